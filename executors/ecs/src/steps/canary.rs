//! `EcsCanaryDeploy`: the new revision runs beside the service as `<name>Canary` (facts A8, rule R19).
//!
//! The canary is a service of its own behind the same target group, so its share of the requests is its share of the tasks. A
//! further step of the same execution changes the size of the canary that is there.

use super::canary_delete::delete;
use super::fetched::Fetched;
use super::planned::{outputs, planned};
use super::size;
use crate::EcsExecutor;
use crate::documents::{Reader, reveal};
use crate::error::bad_spec;
use crate::memory::{Memory, Undo, recall};
use crate::preflight::{self, Surge};
use crate::service::{self, Call};
use crate::session::{Session, ecs};
use crate::steady::{self, Options, Report, Target};
use crate::task_definition::{self, Wanted};
use aws::Repeat;
use aws::document::{list, text};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsAction, EcsSpec, TaskCount};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

const FETCH: &str = "Fetch Manifests";
const DEPLOY: &str = "Deploy";
/// What the name of a canary ends with.
const SUFFIX: &str = "Canary";
/// Longest name of a service (facts A8).
const LONGEST: usize = 255;
/// How long tasks of a canary that is replaced may take to end.
const DRAIN: Duration = Duration::from_secs(600);

/// Everything that is decided once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Canary {
    fetched: Fetched,
    /// Name of the canary.
    service: String,
    count: Option<u32>,
    /// From here on there may be a canary of ours.
    ours: bool,
    /// What is waited for, once it was sent.
    target: Option<Target>,
}

impl Memory for Canary {
    fn undo(&self) -> Option<Undo> {
        self.ours.then(|| Undo::Canary { service: self.service.clone() })
    }
}

fn asked(spec: &EcsSpec) -> Result<(Option<TaskCount>, bool), StepError> {
    match &spec.action {
        EcsAction::EcsCanaryDeploy { instances, replace_existing } => Ok((*instances, *replace_existing)),
        other => Err(bad_spec("ECS-008", format!("{} deploys no canary", other.kind()))),
    }
}

async fn fetch(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<Canary, StepError> {
    if let Some(memory) = recall::<Canary>(cx)? {
        let text = "the definitions are those that this step began with";
        log.line(Level::Info, text).await.map_err(crate::error::log_closed)?;
        return Ok(memory);
    }
    let fetched = Fetched::load(&Reader { executor, spec, cx, log }).await?;
    let main = &fetched.name;
    let service = format!("{main}{SUFFIX}");
    if service.len() > LONGEST {
        let what = format!(
            "the canary of {main} would be called {service}: {} characters, at most {LONGEST}",
            service.len()
        );
        return Err(bad_spec("ECS-044", what).hint("give the service a shorter name"));
    }
    Ok(Canary { fetched, service, ..Canary::default() })
}

/// What is known before the first change.
struct Ready {
    document: Value,
    main: Option<Value>,
    canary: Option<Value>,
    wanted: Wanted,
    count: u32,
    /// Somebody else's canary is to go first.
    replace: bool,
}

/// Number of tasks of the canary, with the words for the log. `main` is the service's count.
fn count(instances: Option<TaskCount>, main: u32) -> (u32, String) {
    let count = size::share(instances.unwrap_or(TaskCount::Count(1)), main).max(1);
    let text = match instances {
        None => "1 task, because the step names no number".to_owned(),
        Some(TaskCount::Count(asked)) => format!("{asked} tasks beside {main}"),
        Some(TaskCount::Percentage(percent)) => {
            let raised = if percent * main < 50 { " (at least one)" } else { "" };
            format!("{percent} % of {main} tasks: {count}{raised}")
        }
    };
    (count, text)
}

async fn prepare(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Canary,
    log: &dyn UnitLog,
) -> Result<Ready, StepError> {
    let (instances, replace_existing) = asked(spec)?;
    let document = reveal(&memory.fetched.service, session.cx.secrets.as_ref())?;
    let main_name = memory.service.strip_suffix(SUFFIX).unwrap_or_default();
    let mut found = session
        .services(&[main_name, &memory.service])
        .await
        .map_err(|fault| session.fault(fault, &format!("look at service {main_name} and its canary")))?;
    let mut take = |name: &str| {
        let at = found.iter().position(|service| text(service, &["serviceName"]) == Some(name))?;
        Some(found.swap_remove(at))
    };
    let main = take(main_name).filter(service::is_active);
    let canary = take(&memory.service);
    service::check::controlled_by_ecs(&memory.service, &document)?;
    let beside = match &main {
        Some(main) => service::desired(main),
        None => {
            let text = format!("ecs.canary.alone: service {main_name} does not run: the canary runs alone");
            session.say(log, Level::Warn, &text).await?;
            service::written_count(&document).unwrap_or(1)
        }
    };
    let count = match memory.count {
        Some(count) => count,
        None => {
            let (count, words) = count(instances, beside);
            session.say(log, Level::Info, &format!("canary {}: {words}", memory.service)).await?;
            count
        }
    };
    memory.count = Some(count);
    let foreign =
        canary.as_ref().filter(|live| service::is_active(live) && !service::is_of_execution(session, live));
    if let Some(foreign) = foreign.filter(|_| !replace_existing) {
        return Err(refused(session, memory, foreign));
    }
    let replace = foreign.is_some();
    let artifact = session.cx.task.artifact.clone();
    let wanted = task_definition::wanted(session, &memory.fetched.definition, &[], artifact.as_ref()).await?;
    wanted.fits_fargate(service::check::on_fargate(&document), &memory.fetched.definition.place)?;
    service::check::consistent(&document, &wanted.document, &memory.fetched.place)?;
    Ok(Ready { document, main, canary, wanted, count, replace })
}

fn refused(session: &Session, memory: &Canary, foreign: &Value) -> StepError {
    let tag = service::tag(foreign, service::EXECUTION);
    let whose = match tag {
        Some(execution) => format!("execution {execution} made it"),
        None => "it carries no tag of an execution".to_owned(),
    };
    let what = format!(
        "service {} runs already with {} tasks and is not of this execution: {whose}",
        memory.service,
        service::running(foreign)
    );
    bad_spec("ECS-043", what).target(session.target().to_owned()).hint(
        "wait until the other deployment has removed its canary, or set `replaceExisting: true` in the step when nobody needs it",
    )
}

async fn deploy(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Canary,
    log: &dyn UnitLog,
) -> Result<(Ready, Report), StepError> {
    let mut ready = prepare(session, spec, memory, log).await?;
    if memory.target.is_none() {
        for line in ready.wanted.lines() {
            session.say(log, Level::Info, &line).await?;
        }
        preflight::check(session, &demand(&ready, memory), log).await?;
        if !spec.definitions.scalable_targets.is_empty() {
            let text = "autoscaling of the service is not attached to the canary, whose own load says little";
            session.say(log, Level::Info, text).await?;
        }
        session.go_on("nothing was changed")?;
        if ready.replace {
            replace(session, memory, ready.canary.as_ref(), log).await?;
            ready.canary = None;
        }
        let settled = task_definition::settle(session, &ready.wanted, memory, log).await?;
        session.go_on(&format!("service {} was left as it is", memory.service))?;
        memory.target = Some(send(session, spec, memory, &ready, &settled.arn, log).await?);
    }
    let target = memory.target.clone().unwrap_or_default();
    session.announce(format!("wait for service {}", memory.service), &[], memory).await?;
    let report = steady::wait(session, &target, log, Options::default()).await?;
    Ok((ready, report))
}

fn demand<'a>(ready: &'a Ready, memory: &'a Canary) -> preflight::Wanted<'a> {
    let count = u64::from(ready.count);
    let running = ready.canary.as_ref().filter(|live| service::is_active(live)).map_or(0, service::running);
    let beside = count.saturating_sub(running.into());
    preflight::Wanted {
        service: &memory.service,
        definition: &ready.wanted.document,
        desired: count,
        // A canary that does not grow needs no room.
        surge: Surge { beside, may_stop: u64::from(beside == 0) },
        launch_type: text(&ready.document, &["launchType"]),
        provided: !list(&ready.document, &["capacityProviderStrategy"]).is_empty(),
    }
}

/// Ends somebody else's canary in order.
async fn replace(
    session: &Session,
    memory: &Canary,
    live: Option<&Value>,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let service = &memory.service;
    let text = format!("service {service} is of another execution and is replaced");
    session.say(log, Level::Warn, &text).await?;
    session.tell(format!("ecs.canary.replaced: {text}"));
    if live.is_some_and(|live| service::desired(live) > 0) {
        size::set(session, service, 0, memory).await?;
    }
    steady::drain(session, service, log, DRAIN.min(session.cx.time_left() / 2)).await?;
    delete(session, service, memory).await?;
    steady::wait_inactive(session, service, log).await
}

/// Makes the canary, or changes the one of this execution.
async fn send(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Canary,
    ready: &Ready,
    task_definition: &str,
    log: &dyn UnitLog,
) -> Result<Target, StepError> {
    let name = memory.service.clone();
    let call = Call {
        cluster: &session.cluster,
        service: &name,
        task_definition,
        count: Some(ready.count),
        force: false,
    };
    match ready.canary.as_ref().filter(|live| service::is_active(live)) {
        Some(live) => {
            let revision = service::revision(session, live).await?;
            let update = service::update_input(&ready.document, live, revision.as_ref(), call);
            for warning in &update.warnings {
                session.say(log, Level::Warn, warning).await?;
            }
            memory.ours = true;
            if update.is_nothing() {
                session.say(log, Level::Info, &format!("service {name} is as it is to be")).await?;
                return Ok(steady::target_of(live));
            }
            for change in &update.changes {
                session.say(log, Level::Info, &format!("  {change}")).await?;
            }
            let call = format!("UpdateService {name}");
            session.announce(format!("change service {name}"), &[&call], memory).await?;
            let answer = session.change(&call, ecs("UpdateService"), update.input, Repeat::Safe).await;
            let answer = answer.map_err(|fault| session.fault(fault, &format!("change service {name}")))?;
            Ok(steady::target_of(&answer))
        }
        None => {
            if ready.canary.as_ref().and_then(|live| text(live, &["status"])) == Some("DRAINING") {
                steady::wait_inactive(session, &name, log).await?;
            }
            let token = session.token(&format!("create {name}"), 32);
            let input =
                service::create_input(&ready.document, call, &token, &service::own_tags(session, spec));
            memory.ours = true;
            let call = format!("CreateService {name}");
            session.announce(format!("create service {name}"), &[&call], memory).await?;
            let answer = session.change(&call, ecs("CreateService"), input, Repeat::Safe).await;
            let answer = answer.map_err(|fault| session.fault(fault, &format!("create service {name}")))?;
            session
                .say(log, Level::Info, &format!("service {name} is made with {} tasks", ready.count))
                .await?;
            Ok(steady::target_of(&answer))
        }
    }
}

/// What share of the requests the canary gets.
async fn share_of_requests(
    session: &Session,
    memory: &Canary,
    ready: &Ready,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let main_name = memory.service.strip_suffix(SUFFIX).unwrap_or_default();
    let found = session.services(&[main_name, &memory.service]).await;
    let found = found
        .map_err(|fault| session.fault(fault, &format!("look at service {main_name} and its canary")))?;
    let of = |name: &str| found.iter().find(|service| text(service, &["serviceName"]) == Some(name));
    let (Some(canary), Some(main)) = (of(&memory.service), of(main_name).filter(|_| ready.main.is_some()))
    else {
        return Ok(());
    };
    let groups = size::target_groups(main);
    let shared = size::target_groups(canary).into_iter().any(|group| groups.contains(&group));
    let (new, old) = (service::running(canary), service::running(main));
    let text = match (shared, in_percent(new, old)) {
        (true, Some(share)) => {
            format!(
                "{new} of {} tasks behind the target group are the canary's: it gets about {share} % of the requests",
                new + old
            )
        }
        _ => format!(
            "canary and service share no target group: {new} and {old} tasks run, and no requests are divided between them"
        ),
    };
    session.say(log, Level::Info, &text).await
}

fn in_percent(new: u32, old: u32) -> Option<u64> {
    let (new, all) = (u64::from(new), u64::from(new) + u64::from(old));
    (all > 0).then(|| (new * 100 + all / 2) / all)
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, FETCH).await?;
    let result = fetch(executor, spec, cx, unit.log()).await;
    let mut memory = unit.end(result).await?;
    let unit = Unit::begin(cx, DEPLOY).await?;
    let work = async {
        let session = Session::open(executor, spec, cx, unit.log()).await?;
        let (ready, report) = deploy(&session, spec, &mut memory, unit.log()).await?;
        share_of_requests(&session, &memory, &ready, unit.log()).await?;
        Ok((ready.count, report))
    };
    let result = work.await;
    let (count, report) = unit.end(result).await?;
    let outputs = outputs([
        ("canaryServiceName", memory.service.clone().into()),
        ("desiredCount", count.into()),
        ("instances", report.instances.into()),
    ]);
    let undo = memory.undo().map(|undo| undo.to_value());
    Ok(StepOutput { outputs, undo, ..StepOutput::default() })
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(FETCH);
    let mut memory = fetch(executor, spec, cx, log.as_ref()).await?;
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let ready = prepare(&session, spec, &mut memory, log.as_ref()).await?;
    let mut lines = ready.wanted.lines();
    match ready.canary.as_ref().filter(|live| service::is_active(live) && !ready.replace) {
        Some(live) => {
            lines.push(format!("change service {}", memory.service));
            lines.push(format!("-desiredCount: {}", service::desired(live)));
        }
        None => {
            if ready.replace {
                lines.push(format!("delete service {}", memory.service));
            }
            lines.push(format!("create service {}", memory.service));
        }
    }
    lines.push(format!("+desiredCount: {}", ready.count));
    Ok(planned(&lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_has_at_least_one_task() {
        for (instances, main, is) in [
            (None, 10, 1),
            (Some(TaskCount::Count(4)), 10, 4),
            (Some(TaskCount::Percentage(10)), 4, 1),
            (Some(TaskCount::Percentage(25)), 10, 3),
            (Some(TaskCount::Percentage(50)), 10, 5),
            (Some(TaskCount::Percentage(100)), 10, 10),
            (Some(TaskCount::Percentage(50)), 0, 1),
        ] {
            assert_eq!(count(instances, main).0, is, "{instances:?} of {main}");
        }
    }

    #[test]
    fn its_share_of_the_requests_is_its_share_of_the_tasks() {
        assert_eq!((in_percent(1, 3), in_percent(1, 2), in_percent(0, 0)), (Some(25), Some(33), None));
    }
}
