//! `EcsRollingRollback`: what the rolling deployment of this stage found comes back (facts A7).

use super::planned::{outputs, planned};
use super::rollout::{self, Suspending, superseded};
use crate::EcsExecutor;
use crate::documents::arn::short;
use crate::error::bad_spec;
use crate::memory::{Deployed, Memory, Undo, recall};
use crate::native::{self, Followed, Following, Undoing, Way};
use crate::preflight::images as registry;
use crate::scaling::{self, Scaling};
use crate::service::{self, Snapshot, primary};
use crate::session::Session;
use crate::steady::{self, Target};
use crate::task_definition::{self, Source, images};
use aws::document::text;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{ContinueUntil, EcsAction, EcsSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is undone, for whoever undoes single steps (rule R25) as well: of each service the oldest state before and the newest deployment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Undone {
    name: String,
    snapshot: Option<Box<Snapshot>>,
    scaling: Scaling,
    deployed: Option<Deployed>,
}

impl Undone {
    /// Of the undo data of a deployment; `None` for other data.
    pub(crate) fn of(undo: Undo) -> Option<Undone> {
        let Undo::Service { name, snapshot, scaling, deployed } = undo else { return None };
        Some(Undone {
            name,
            snapshot,
            scaling: scaling.map(|scaling| *scaling).unwrap_or_default(),
            deployed,
        })
    }
}

/// What the step remembers of the service that it is at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Back {
    /// Services that are back.
    done: Vec<String>,
    /// The revision that runs again.
    revision: Option<String>,
    count: Option<u32>,
    suspended: Option<Box<Scaling>>,
    target: Option<Target>,
    /// What became of the service deployment of the step that is undone; `None` until that is known.
    native: Option<Native>,
    /// The service deployment that is followed: first that one, then the one that brings the snapshot back.
    followed: Option<Followed>,
    /// The newest service deployment before the snapshot was brought back.
    before: Option<String>,
}

/// How a deployment that ECS makes itself is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Native {
    /// ECS has rolled it back.
    ByEcs,
    /// It is over: what was before is deployed again.
    Over,
}

impl Memory for Back {
    fn undo(&self) -> Option<Undo> {
        None
    }
}

impl Following for Back {
    fn followed(&self) -> Option<&Followed> {
        self.followed.as_ref()
    }

    fn followed_mut(&mut self) -> Option<&mut Followed> {
        self.followed.as_mut()
    }
}

impl Suspending for Back {
    fn suspended(&self) -> Option<&Scaling> {
        self.suspended.as_deref()
    }

    fn resumed(&mut self) {
        self.suspended = None;
    }
}

fn skips_wait(spec: &EcsSpec) -> Result<bool, StepError> {
    match spec.action {
        EcsAction::EcsRollingRollback { skip_steady_state_check } => Ok(skip_steady_state_check),
        _ => Err(bad_spec("ECS-008", format!("{} is no rolling rollback", spec.action.kind()))),
    }
}

/// What rolling deployments of the stage left behind.
///
/// **Errors**: `ECS-004`.
fn undone(spec: &EcsSpec) -> Result<Vec<Undone>, StepError> {
    let mut all: Vec<Undone> = Vec::new();
    for earlier in spec.earlier.undo.iter().filter(|earlier| earlier.kind == "EcsRollingDeploy") {
        if earlier.data.is_null() {
            continue;
        }
        let Some(found) = Undone::of(Undo::read(&earlier.data)?) else { continue };
        match all.iter_mut().find(|one| one.name == found.name) {
            Some(one) => one.deployed = found.deployed.or(one.deployed.take()),
            None => all.push(found),
        }
    }
    Ok(all)
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let skip_wait = skips_wait(spec)?;
    let mut memory: Back = recall(cx)?.unwrap_or_default();
    let unit = Unit::begin(cx, "Rollback").await?;
    let result = work(executor, spec, cx, skip_wait, &mut memory, unit.log()).await;
    unit.end(result).await
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    skip_wait: bool,
    memory: &mut Back,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let all = undone(spec)?;
    if all.is_empty() {
        let text = "no rolling deployment of this stage has begun: there is nothing to roll back";
        log.line(Level::Info, text).await.map_err(crate::error::log_closed)?;
        let outputs = outputs([("firstDeployment", false.into())]);
        return Ok(StepOutput { outputs, skipped: true, ..StepOutput::default() });
    }
    let session = Session::open(executor, spec, cx, log).await?;
    let mut instances = Vec::new();
    for one in &all {
        if !memory.done.contains(&one.name) {
            let result = roll_back(&session, one, skip_wait, memory, log).await;
            let found = rollout::finish(&session, result, memory, log).await?;
            instances.extend(found);
            *memory = Back { done: std::mem::take(&mut memory.done), ..Back::default() };
            memory.done.push(one.name.clone());
        }
    }
    let first = all.iter().any(|one| one.snapshot.is_none());
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    let outputs = outputs([
        ("firstDeployment", first.into()),
        ("serviceName", names.join(",").into()),
        ("instances", instances.into()),
    ]);
    Ok(StepOutput { outputs, ..StepOutput::default() })
}

/// Undoes one deployment. Returns the tasks that run afterwards. The caller ends with [`rollout::finish`].
///
/// **Errors**: `ECS-024`: somebody else has deployed since; those of [`service::restore`] and [`steady::wait`].
/// **Repeat**: safe with the memory of before.
pub(crate) async fn roll_back(
    session: &Session,
    one: &Undone,
    skip_wait: bool,
    memory: &mut Back,
    log: &dyn UnitLog,
) -> Result<Vec<Value>, StepError> {
    if one.deployed.is_none() {
        let text = format!("nothing was deployed to service {}: it stays as it is", one.name);
        session.say(log, Level::Info, &text).await?;
        if one.scaling.target.is_some() {
            let live = scaling::read(session, &one.name, log).await?;
            scaling::restore(session, &one.scaling, &live, &[], false, memory, log).await?;
        }
        return steady::instances(session, &one.name).await;
    }
    match &one.snapshot {
        None => remove(session, one, memory, log).await.map(|()| Vec::new()),
        Some(snapshot) => bring_back(session, one, snapshot, skip_wait, memory, log).await,
    }
}

fn deployed(one: &Undone) -> Deployed {
    one.deployed.clone().unwrap_or_default()
}

/// The scaling policies that the deployment put, and whether it made the target.
fn scaled<'a>(one: &Undone, deployed: &'a Deployed, live: &'a Scaling) -> (&'a [String], bool) {
    match deployed.unrecorded {
        // Policies of documents are marked; a target that was not there before is taken for the deployment's.
        true => (&live.ours, one.scaling.target.is_none()),
        false => (&deployed.policies, deployed.target_registered),
    }
}

/// The first deployment of a service is undone by deleting it.
async fn remove(session: &Session, one: &Undone, memory: &Back, log: &dyn UnitLog) -> Result<(), StepError> {
    let name = &one.name;
    let deployed = deployed(one);
    let live = session.service(name).await?;
    if let Some(live) = live.as_ref().filter(|live| service::is_active(live)) {
        let runs = primary(live).and_then(|now| text(now, &["taskDefinition"]));
        if !service::is_of_execution(session, live) && runs != Some(deployed.task_definition.as_str()) {
            return Err(superseded(session, name, live));
        }
        let text = format!("service {name} did not exist before: it is deleted with its tasks");
        session.say(log, Level::Info, &text).await?;
    }
    let scaling = scaling::read(session, name, log).await?;
    let (put, made) = scaled(one, &deployed, &scaling);
    scaling::restore(session, &one.scaling, &scaling, put, made, memory, log).await?;
    if live.as_ref().is_some_and(service::is_active) {
        service::delete(session, name, memory).await?;
    }
    if live.is_some() {
        steady::wait_inactive(session, name, log).await?;
    }
    Ok(())
}

async fn bring_back(
    session: &Session,
    one: &Undone,
    snapshot: &Snapshot,
    skip_wait: bool,
    memory: &mut Back,
    log: &dyn UnitLog,
) -> Result<Vec<Value>, StepError> {
    let deployed = deployed(one);
    if let (Some(native), None) = (&deployed.native, memory.native) {
        memory.followed.get_or_insert_with(|| Followed::clone(native));
        let undone = Box::pin(native::undo(session, memory, log)).await?;
        memory.native = Some(if undone == Undoing::Back { Native::ByEcs } else { Native::Over });
        memory.followed = None;
    }
    if memory.target.is_none() {
        let live = session.service(&one.name).await?.filter(service::is_active);
        let runs = live.as_ref().and_then(primary).and_then(|now| text(now, &["taskDefinition"]));
        let ours = |revision: &str| {
            revision == snapshot.task_definition
                || deployed.unrecorded
                || revision == deployed.task_definition
                || memory.revision.as_deref() == Some(revision)
        };
        if let Some(live) = live.as_ref().filter(|_| runs.is_some_and(|runs| !ours(runs))) {
            return Err(superseded(session, &one.name, live));
        }
        if runs == Some(snapshot.task_definition.as_str()) {
            let text = format!(
                "service {} is on its way to {} already: its state is checked, and its autoscaling brought back",
                one.name,
                short(&snapshot.task_definition)
            );
            session.say(log, Level::Info, &text).await?;
        }
        if memory.revision.is_none() {
            memory.revision = Some(revision(session, snapshot, memory, log).await?);
            let now = live.as_ref().map_or(0, service::desired);
            let daemon = text(&snapshot.document, &["schedulingStrategy"]) == Some("DAEMON");
            memory.count = (!daemon).then_some(snapshot.desired.max(now));
        }
        let revision = memory.revision.clone().unwrap_or_default();
        if one.scaling.can_be_suspended() && runs != Some(revision.as_str()) {
            memory.suspended = Some(Box::new(one.scaling.clone()));
            scaling::suspend(session, &one.scaling, memory, log).await?;
        }
        let tags = &deployed.tags;
        if memory.before.is_none() && live.as_ref().is_some_and(native::is_native) {
            memory.before = native::previous(session, &one.name).await?;
        }
        let restored =
            service::restore(session, snapshot, &revision, memory.count, tags, memory, log).await?;
        let mut target = restored.target;
        let undone = match deployed.unrecorded {
            true => runs.unwrap_or_default(),
            false => &deployed.task_definition,
        };
        if undone != target.task_definition {
            target.previous_task_definition = Some(undone.to_owned());
        }
        memory.followed = shifted_back(session, &one.name, &target, restored.rolls, memory).await?;
        if memory.native.is_some() && !restored.rolls {
            // What ECS names as the service's deployment is the one that was undone.
            target.service_deployment = None;
        }
        memory.target = Some(target);
        session.announce(format!("wait for service {}", one.name), &[], memory).await?;
    } else {
        rollout::suspend_again(session, memory, log).await?;
    }
    match memory.target.clone().filter(|_| !skip_wait) {
        // Nobody judges a rollback: its gates are opened.
        Some(_) if memory.followed.is_some() => {
            Box::pin(native::follow(session, memory, Way::On(ContinueUntil::End), log)).await?;
        }
        Some(target) => {
            steady::wait(session, &target, log, steady::Options::default()).await?;
        }
        None => session.say(log, Level::Warn, "skipSteadyStateCheck: nobody waits for the rollback").await?,
    }
    rollout::resume(session, memory, log).await?;
    let live = scaling::read(session, &one.name, log).await?;
    let (put, made) = scaled(one, &deployed, &live);
    scaling::restore(session, &one.scaling, &live, put, made, memory, log).await?;
    steady::instances(session, &one.name).await
}

/// The service deployment that brings the snapshot back, when ECS shifts the requests itself.
async fn shifted_back(
    session: &Session,
    name: &str,
    target: &Target,
    rolls: bool,
    memory: &Back,
) -> Result<Option<Followed>, StepError> {
    let live = session.service(name).await?.filter(native::is_native);
    let Some(live) = live.filter(|_| rolls) else { return Ok(None) };
    native::find(session, &live, &target.task_definition, memory.before.as_deref(), true).await
}

/// The revision of the snapshot; the same one registered again, when it was deregistered meanwhile.
pub(crate) async fn revision<M: Memory>(
    session: &Session,
    snapshot: &Snapshot,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<String, StepError> {
    let source = source(snapshot);
    let wanted = task_definition::wanted(session, &source, &[], None).await?;
    for warning in &wanted.warnings {
        session.say(log, Level::Warn, warning).await?;
        session.tell(warning.clone());
    }
    for (container, image) in images::of(&wanted.document) {
        if missing(session, &image).await {
            let text = format!(
                "ecs.rollback.image: the image {image} of container {container} is not in its registry any more; tasks of {} cannot start",
                short(&snapshot.task_definition)
            );
            session.say(log, Level::Warn, &text).await?;
            session.tell(text);
        }
    }
    let settled = task_definition::settle(session, &wanted, memory, log).await?;
    Ok(settled.arn)
}

fn source(snapshot: &Snapshot) -> Source {
    let place = format!("service {} before the deployment", snapshot.name);
    Source { arn: Some(snapshot.task_definition.clone()), documents: Vec::new(), place }
}

/// Whether a registry of ECR in this region surely does not have an image.
async fn missing(session: &Session, image: &str) -> bool {
    let Some(found) = registry::here(session, image) else { return false };
    registry::described(session, &found).await.is_err_and(|fault| registry::is_absent(&fault))
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    skips_wait(spec)?;
    let log = cx.logs.unit("Rollback");
    let all = undone(spec)?;
    let mut lines = Vec::new();
    if all.is_empty() {
        return Ok(planned(&lines));
    }
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    for one in all.iter().filter(|one| one.deployed.is_some()) {
        let live = session.service(&one.name).await?.filter(service::is_active);
        match (&one.snapshot, &live) {
            (None, None) => {}
            (None, Some(_)) => lines.push(format!("delete service {}", one.name)),
            (Some(snapshot), None) => {
                lines.push(format!(
                    "make service {} again with {}",
                    one.name,
                    short(&snapshot.task_definition)
                ));
            }
            (Some(snapshot), Some(live)) => {
                let wanted = task_definition::wanted(&session, &source(snapshot), &[], None).await?;
                let revision =
                    wanted.existing.unwrap_or_else(|| format!("{} (new)", snapshot.task_definition));
                let count = Some(snapshot.desired.max(service::desired(live)));
                let running = service::revision(&session, live).await?;
                let changes = service::way_back(&session, snapshot, live, running.as_ref(), &revision, count);
                if !changes.is_empty() {
                    lines.push(format!("bring service {} back:", one.name));
                    lines.extend(changes.iter().map(|change| format!("  {change}")));
                }
            }
        }
    }
    Ok(planned(&lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::task::EcsUndo;
    use serde_json::json;

    #[test]
    fn the_oldest_state_and_the_newest_deployment_of_a_service_count() {
        let undo = |name: &str, before: Option<&str>, after: Option<&str>| {
            let snapshot = before.map(|arn| {
                Box::new(Snapshot { name: name.into(), task_definition: arn.into(), ..Snapshot::default() })
            });
            let deployed = after.map(|arn| Deployed { task_definition: arn.into(), ..Deployed::default() });
            let data = Undo::Service { name: name.into(), snapshot, scaling: None, deployed }.to_value();
            EcsUndo { step: "s".into(), kind: "EcsRollingDeploy".into(), succeeded: true, data }
        };
        let all = vec![
            undo("web", Some("td:1"), Some("td:2")),
            undo("api", None, None),
            undo("web", Some("td:2"), Some("td:3")),
            EcsUndo {
                step: "x".into(),
                kind: "EcsRollingDeploy".into(),
                succeeded: false,
                data: Value::Null,
            },
        ];
        let value = json!({"account": {"connector": "a", "region": "r", "credential": {"type": "Irsa"}}, "cluster": "c",
            "action": {"type": "EcsRollingRollback", "skip_steady_state_check": false, "skipSteadyStateCheck": false}});
        let mut spec: EcsSpec = serde_json::from_value(value).unwrap();
        assert_eq!(undone(&spec).unwrap(), []);
        spec.earlier.undo = all;
        let found = undone(&spec).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].snapshot.as_ref().unwrap().task_definition, "td:1");
        assert_eq!(found[0].deployed.as_ref().unwrap().task_definition, "td:3");
        assert!(found[1].snapshot.is_none() && found[1].deployed.is_none());
    }
}
