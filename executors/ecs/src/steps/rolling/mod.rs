//! `EcsRollingDeploy`: the service of the stage is made or updated, and waited for (facts A6).

mod decision;
mod native;

use super::fetched::Fetched;
use super::planned::{outputs, planned};
use super::rollout::{self, Sent};
use crate::EcsExecutor;
use crate::documents::Reader;
use crate::documents::arn::short;
use crate::error::bad_spec;
use crate::memory::{Deployed, Memory, Undo, recall};
use crate::native::{Followed, Pause, outputs as native_outputs};
use crate::scaling::{self, Scaling};
use crate::service::{self, Call, Snapshot, Update, check};
use crate::session::{Session, ecs};
use crate::steady::{self, Target};
use aws::Repeat;
use aws::document::{list, text};
use decision::{Decision, decide, look};
use executor_api::{Class, Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsAction, EcsSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the step remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rolling {
    fetched: Option<Fetched>,
    /// The rollback data are complete.
    prepared: bool,
    /// What there was; `None`: this is the first deployment.
    snapshot: Option<Box<Snapshot>>,
    scaling: Option<Box<Scaling>>,
    /// The revision that is deployed.
    revision: Option<String>,
    /// How many tasks, once that is decided.
    count: Option<Option<u32>>,
    force: bool,
    suspended: bool,
    sent: Option<Sent>,
    target: Option<Target>,
    /// The service has arrived; what is left is autoscaling.
    arrived: bool,
    /// Autoscaling documents were about to be applied.
    scaled: bool,
    tagged: Vec<String>,
    /// The strategy by which ECS shifts the requests itself.
    native: Option<String>,
    /// The newest service deployment from before the step.
    before: Option<String>,
    /// Ours.
    followed: Option<Followed>,
    /// The gate at which the step has ended.
    paused: Option<Pause>,
}

impl Memory for Rolling {
    fn undo(&self) -> Option<Undo> {
        let name = self.fetched.as_ref()?.name.clone();
        // At a gate the step leaves its scaling documents to whoever continues.
        let scaled = self.scaled || self.paused.is_some();
        let deployed = self.sent.as_ref().map(|_| Deployed {
            task_definition: self.revision.clone().unwrap_or_default(),
            deployment: self.target.as_ref().and_then(|target| target.deployment.clone()),
            created: self.snapshot.is_none(),
            policies: if scaled { self.policies() } else { Vec::new() },
            target_registered: scaled && self.registers_target(),
            tags: self.tagged.clone(),
            unrecorded: false,
            native: self.followed.clone().map(Box::new),
        });
        self.prepared.then(|| Undo::Service {
            name,
            snapshot: self.snapshot.clone(),
            scaling: self.scaling.clone(),
            deployed,
        })
    }
}

impl Rolling {
    fn fetched(&self) -> Result<&Fetched, StepError> {
        self.fetched
            .as_ref()
            .ok_or_else(|| StepError::new(Class::Bug, "ECS-004", "the step has lost its documents"))
    }

    fn name(&self) -> &str {
        self.fetched.as_ref().map(|fetched| fetched.name.as_str()).unwrap_or_default()
    }

    fn policies(&self) -> Vec<String> {
        let wanted = self.fetched.as_ref().and_then(|fetched| fetched.scaling().ok());
        wanted.map(|wanted| wanted.names()).unwrap_or_default()
    }

    fn registers_target(&self) -> bool {
        let had = self.scaling.as_ref().is_some_and(|scaling| scaling.target.is_some());
        !had && self.fetched.as_ref().is_some_and(|fetched| !fetched.targets.is_empty())
    }
}

/// What the step was asked for.
#[derive(Clone, Copy)]
struct Asked {
    same: bool,
    force: bool,
    skip_steady: bool,
}

fn asked(spec: &EcsSpec) -> Result<Asked, StepError> {
    match spec.action {
        EcsAction::EcsRollingDeploy {
            same_as_already_running_instances: same,
            force_new_deployment: force,
            skip_steady_state_check: skip_steady,
            ..
        } => Ok(Asked { same, force, skip_steady }),
        _ => Err(bad_spec("ECS-008", format!("{} is no rolling deployment", spec.action.kind()))),
    }
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let asked = asked(spec)?;
    let mut memory: Rolling = recall(cx)?.unwrap_or_default();
    let unit = Unit::begin(cx, "Fetch Manifests").await?;
    let result = fetch(executor, spec, cx, &mut memory, unit.log()).await;
    unit.end(result).await?;
    let unit = Unit::begin(cx, "Prepare Rollback Data").await?;
    let result = prepare(executor, spec, cx, &mut memory, unit.log()).await;
    let session = unit.end(result).await?;
    let unit = Unit::begin(cx, "Deploy").await?;
    let result = deploy(&session, spec, asked, &mut memory, unit.log()).await;
    let result = rollout::finish(&session, result, &mut memory, unit.log()).await;
    let instances = unit.end(result).await?;
    Ok(output(&memory, instances))
}

impl rollout::Suspending for Rolling {
    fn suspended(&self) -> Option<&Scaling> {
        self.scaling.as_deref().filter(|_| self.suspended)
    }

    fn resumed(&mut self) {
        self.suspended = false;
    }
}

fn output(memory: &Rolling, instances: Vec<Value>) -> StepOutput {
    let mut all = vec![("serviceName", Value::from(memory.name())), ("instances", instances.into())];
    all.extend(memory.followed.iter().flat_map(|followed| native_outputs(followed, memory.paused.as_ref())));
    let outputs = outputs(all);
    StepOutput { outputs, undo: memory.undo().map(|undo| undo.to_value()), ..StepOutput::default() }
}

async fn fetch(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    memory: &mut Rolling,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if memory.fetched.is_none() {
        memory.fetched = Some(Fetched::load(&Reader { executor, spec, cx, log }).await?);
    }
    Ok(())
}

/// Refuses what no rolling deployment can do, and takes the snapshot.
async fn prepare(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    memory: &mut Rolling,
    log: &dyn UnitLog,
) -> Result<Session, StepError> {
    let session = Session::open(executor, spec, cx, log).await?;
    let fetched = memory.fetched()?.clone();
    if memory.prepared {
        session.say(log, Level::Info, "the rollback data of before the interruption are used").await?;
        return Ok(session);
    }
    check::controlled_by_ecs(&fetched.name, &fetched.service)?;
    let live = session.service(&fetched.name).await?;
    if let Some(live) = live.as_ref().filter(|live| service::is_active(live)) {
        check::controlled_by_ecs(&fetched.name, live)?;
        let back = memory.fetched.as_mut();
        if let Some(warning) = back.and_then(|own| check::back_to_rolling(&own.name, live, &mut own.service))
        {
            session.say(log, Level::Warn, &warning).await?;
            session.tell(format!("ecs.native: {warning}"));
        }
        let snapshot = service::snapshot(&session, live, log).await?;
        let text = format!(
            "service {} runs {} with {} tasks",
            fetched.name,
            short(&snapshot.task_definition),
            snapshot.desired
        );
        session.say(log, Level::Info, &text).await?;
        memory.snapshot = Some(Box::new(snapshot));
    } else {
        let status = live.as_ref().and_then(|live| text(live, &["status"])).unwrap_or("missing");
        let text = format!("service {} is {status}: this is its first deployment", fetched.name);
        session.say(log, Level::Info, &text).await?;
    }
    native::prepare(&session, spec, memory, live.as_ref().filter(|live| service::is_active(live)), log)
        .await?;
    let scaling = scaling::read(&session, &fetched.name, log).await?;
    fetched.scaling()?.has_target(&scaling)?;
    memory.scaling = Some(Box::new(scaling));
    memory.prepared = true;
    Ok(session)
}

/// Returns the tasks that run in the end.
async fn deploy(
    session: &Session,
    spec: &EcsSpec,
    asked: Asked,
    memory: &mut Rolling,
    log: &dyn UnitLog,
) -> Result<Vec<Value>, StepError> {
    let name = memory.name().to_owned();
    if memory.target.is_none() {
        let plan = match native::sent_before(session, memory, log).await? {
            Some(live) => Decision::Sent(live),
            None => decide(session, spec, asked, memory, log).await?,
        };
        let rolls = match &plan {
            Decision::Create(_) | Decision::Sent(_) => true,
            Decision::Update(update) => update.rolls,
            Decision::Nothing(_) => false,
        };
        memory.target = match plan {
            Decision::Create(input) => Some(create(session, memory, input, log).await?),
            Decision::Update(update) => Some(update_service(session, memory, update, log).await?),
            Decision::Sent(live) => Some(steady::target_of(&live)),
            Decision::Nothing(live) => {
                let text = format!("service {name} is up to date: nothing is changed");
                session.say(log, Level::Info, &text).await?;
                Some(steady::target_of(&live))
            }
        };
        native::identify(session, memory, rolls).await?;
        // The deployment is known now: whoever goes on after a crash waits for the same one.
        session.announce(format!("wait for service {name}"), &[], memory).await?;
    } else if !memory.arrived {
        rollout::suspend_again(session, memory, log).await?;
    }
    if !memory.arrived {
        match asked.skip_steady {
            false => native::wait(session, memory, log).await?,
            true => {
                session.say(log, Level::Warn, "skipSteadyStateCheck: nobody waits for the rollout").await?;
            }
        }
        memory.arrived = true;
    }
    rollout::resume(session, memory, log).await?;
    apply(session, spec, memory, log).await?;
    steady::instances(session, &name).await
}

/// Scaling documents and tags, when the service has arrived.
async fn apply(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Rolling,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let fetched = memory.fetched()?.clone();
    let wanted = fetched.scaling()?;
    if !wanted.is_empty() && memory.paused.is_none() {
        let live = scaling::read(session, &fetched.name, log).await?;
        memory.scaled = true;
        scaling::apply(session, &live, &wanted, memory, log).await?;
    }
    if memory.snapshot.is_none() {
        return Ok(());
    }
    let mut tags = list(&fetched.service, &["tags"]).to_vec();
    let namespace = service::namespace_tag(spec);
    let written = |name: &str| tags.iter().any(|tag| text(tag, &["key"]) == Some(name));
    if let Some((name, value)) = namespace.filter(|(name, _)| !written(name)) {
        tags.push(json!({"key": name, "value": value}));
    }
    let Some(live) = session.service(&fetched.name).await?.filter(|_| !tags.is_empty()) else {
        return Ok(());
    };
    let set = service::tags_to_set(&live, &tags);
    let keys = set.iter().filter_map(|tag| text(tag, &["key"]).map(str::to_owned));
    memory.tagged.extend(keys);
    service::set_tags(session, &live, &set, &[], memory, log).await
}

async fn create(
    session: &Session,
    memory: &mut Rolling,
    input: Value,
    log: &dyn UnitLog,
) -> Result<Target, StepError> {
    let name = memory.name().to_owned();
    rollout::free_name(session, &name, log).await?;
    let call = format!("CreateService {name}");
    memory.sent = Some(Sent { primary: None });
    session.announce(format!("make service {name}"), &[&call], memory).await?;
    let answer = session.change(&call, ecs("CreateService"), input, Repeat::Safe).await;
    let answer = answer.map_err(|fault| session.fault(fault, &call))?;
    session.say(log, Level::Info, &format!("service {name} is made")).await?;
    Ok(steady::target_of(&answer))
}

async fn update_service(
    session: &Session,
    memory: &mut Rolling,
    update: Update,
    log: &dyn UnitLog,
) -> Result<Target, StepError> {
    let name = memory.name().to_owned();
    let scaling = memory.scaling.as_deref().cloned().unwrap_or_default();
    if update.rolls && scaling.can_be_suspended() {
        memory.suspended = true;
        scaling::suspend(session, &scaling, memory, log).await?;
    }
    let primary = memory.sent.clone().and_then(|sent| sent.primary);
    let primary =
        primary.or_else(|| memory.snapshot.as_ref().and_then(|snapshot| snapshot.deployment.clone()));
    let sent = Sent { primary };
    memory.sent = Some(sent.clone());
    let previous = memory.snapshot.as_ref().map(|snapshot| snapshot.task_definition.clone());
    let answer = rollout::update(session, &name, update.input, &sent, memory).await?;
    let mut target = steady::target_of(&answer);
    target.previous_task_definition = previous.or(target.previous_task_definition);
    Ok(target)
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let asked = asked(spec)?;
    let log = cx.logs.unit("Fetch Manifests");
    let mut memory = Rolling::default();
    fetch(executor, spec, cx, &mut memory, log.as_ref()).await?;
    let session = prepare(executor, spec, cx, &mut memory, log.as_ref()).await?;
    let name = memory.name().to_owned();
    let live = session.service(&name).await?.filter(service::is_active);
    let picture = look(&session, asked, &memory, live.as_ref()).await?;
    let mut lines = picture.lines.clone();
    let fetched = memory.fetched()?;
    let revision =
        picture.wanted.existing.clone().unwrap_or_else(|| format!("{} (new)", picture.wanted.family()));
    let call = Call {
        cluster: &session.cluster,
        service: &name,
        task_definition: &revision,
        count: picture.count.send,
        force: picture.force,
    };
    match &live {
        None => {
            lines.push(format!("service {name} is made:"));
            let input = service::create_input(&fetched.service, call, "", &[]);
            let changes = crate::changes::between(&json!({}), &input, &|_| None);
            let token = |line: &String| !line.starts_with("clientToken");
            lines.extend(
                changes.iter().map(ToString::to_string).filter(token).map(|line| format!("  {line}")),
            );
        }
        Some(live) => {
            let running = service::revision(&session, live).await?;
            let update = service::update_input(&fetched.service, live, running.as_ref(), call);
            lines.extend(update.warnings.iter().cloned());
            if update.is_nothing() {
                lines.push(format!("service {name} is up to date"));
            } else {
                let force = if picture.force { " by force" } else { "" };
                lines.push(format!("service {name} is updated{force}:"));
                lines.extend(update.changes.iter().map(|change| format!("  {change}")));
            }
        }
    }
    let scaling = memory.scaling.as_deref().cloned().unwrap_or_default();
    lines.extend(scaling::planned(&scaling, &fetched.scaling()?));
    Ok(planned(&lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_data_says_what_was_sent_and_nothing_before() {
        let mut memory = Rolling {
            fetched: Some(Fetched {
                name: "web".into(),
                targets: vec![(json!({}), "x".into())],
                ..Fetched::default()
            }),
            ..Rolling::default()
        };
        assert_eq!(memory.undo(), None);
        memory.prepared = true;
        let undo = |memory: &Rolling| match memory.undo() {
            Some(Undo::Service { name, snapshot, deployed, .. }) => (name, snapshot.is_some(), deployed),
            other => panic!("{other:?}"),
        };
        assert_eq!(undo(&memory), ("web".into(), false, None));
        memory.revision = Some("td:2".into());
        memory.sent = Some(Sent::default());
        memory.tagged = vec!["a".into()];
        let deployed = undo(&memory).2.unwrap();
        assert!(deployed.created && !deployed.target_registered && deployed.tags == ["a"]);
        memory.scaled = true;
        memory.snapshot = Some(Box::default());
        let deployed = undo(&memory).2.unwrap();
        assert!(deployed.target_registered && !deployed.created);
        let again: Rolling = serde_json::from_value(serde_json::to_value(&memory).unwrap()).unwrap();
        assert_eq!(again, memory);
    }
}
