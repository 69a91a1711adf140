//! What blue-green steps do with one service of the pair: deploy it, empty it, end it, bring it back.
//!
//! Each looks first and sends only what is missing, so that a step goes on after a crash where it stopped.

use super::rollback;
use crate::memory::Memory;
use crate::scaling::{self, Scaling};
use crate::service::{self, Call, Snapshot};
use crate::session::{Session, autoscaling, ecs};
use crate::steady;
use crate::traffic::undo::Ended;
use aws::Repeat;
use aws::document::{flag, text};
use executor_api::{Level, StepError, UnitLog};
use serde_json::{Value, json};
use std::time::Duration;

/// How long tasks of an emptied service may take to go.
const DRAIN: Duration = Duration::from_secs(600);

/// What a service is to become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Input of CreateService.
    pub(crate) document: &'a Value,
    /// ARN of the revision.
    pub(crate) task_definition: &'a str,
    /// How many tasks; `None` leaves the count of a service alone that exists.
    pub(crate) count: Option<u32>,
    /// Roll although nothing differs.
    pub(crate) force: bool,
    /// Tags of a service that is made.
    pub(crate) tags: &'a [(String, String)],
}

fn status(live: Option<&Value>) -> &str {
    live.and_then(|live| text(live, &["status"])).unwrap_or_default()
}

/// Makes or updates a service and waits until it is steady.
///
/// **Errors**: those of the account and of [`steady::wait`]; `ECS-002`. **Cancel**: in the wait. **Repeat**: safe.
pub(crate) async fn deploy<M: Memory>(
    session: &Session,
    wanted: Wanted<'_>,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<steady::Report, StepError> {
    let name = wanted.name;
    let live = free(session, name, log).await?;
    let call = Call {
        cluster: &session.cluster,
        service: name,
        task_definition: wanted.task_definition,
        count: wanted.count,
        force: wanted.force,
    };
    let answer = match live {
        None => Box::pin(create(session, wanted.document, call, wanted.tags, memory, log)).await?,
        Some(live) => {
            let revision = service::revision(session, &live).await?;
            let update = service::update_input(wanted.document, &live, revision.as_ref(), call);
            for warning in &update.warnings {
                session.say(log, Level::Warn, warning).await?;
            }
            if update.is_nothing() {
                session.say(log, Level::Info, &format!("service {name} is as wanted already")).await?;
                live
            } else {
                for change in &update.changes {
                    session.say(log, Level::Info, &format!("service {name}: {change}")).await?;
                }
                send(session, name, update.input, memory).await?
            }
        }
    };
    let target = steady::target_of(&answer);
    Box::pin(steady::wait(session, &target, log, steady::Options::default())).await
}

/// The service when it is active; one that drains is waited for, because it holds its name until it is gone.
async fn free(session: &Session, name: &str, log: &dyn UnitLog) -> Result<Option<Value>, StepError> {
    let live = session.service(name).await?;
    match status(live.as_ref()) {
        "ACTIVE" => Ok(live),
        "DRAINING" => {
            session.say(log, Level::Info, &format!("service {name} is still DRAINING")).await?;
            Box::pin(steady::wait_inactive(session, name, log)).await?;
            Ok(None)
        }
        _ => Ok(None),
    }
}

async fn create<M: Memory>(
    session: &Session,
    document: &Value,
    call: Call<'_>,
    tags: &[(String, String)],
    memory: &M,
    log: &dyn UnitLog,
) -> Result<Value, StepError> {
    let name = call.service;
    // Equal for every attempt and every life: sending it twice makes one service.
    let token = session.token(&format!("create {name}"), 36);
    let input = service::create_input(document, call, &token, tags);
    let text = format!("CreateService {name}");
    session.go_on(&format!("service {name} was not made"))?;
    session.announce(format!("make service {name}"), &[&text], memory).await?;
    session.say(log, Level::Info, &format!("service {name} is made with {}", call.task_definition)).await?;
    let answer = session.change(&text, ecs("CreateService"), input, Repeat::Safe).await;
    answer.map_err(|fault| session.fault(fault, &text))
}

async fn send<M: Memory>(
    session: &Session,
    name: &str,
    input: Value,
    memory: &M,
) -> Result<Value, StepError> {
    let text = format!("UpdateService {name}");
    session.go_on(&format!("service {name} was not changed"))?;
    session.announce(format!("update service {name}"), &[&text], memory).await?;
    let answer = session.change(&text, ecs("UpdateService"), input, Repeat::Safe).await;
    answer.map_err(|fault| session.fault(fault, &text))
}

/// Gives a service so many tasks. Returns whether it had another number. A service that is not active is left alone.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn scale<M: Memory>(
    session: &Session,
    name: &str,
    count: u32,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<Option<Value>, StepError> {
    let Some(live) = session.service(name).await?.filter(service::is_active) else { return Ok(None) };
    let now = service::desired(&live);
    if now == count {
        return Ok(Some(live));
    }
    session.say(log, Level::Info, &format!("service {name}: {now} → {count} tasks")).await?;
    let input = json!({"cluster": session.cluster, "service": name, "desiredCount": count});
    send(session, name, input, memory).await.map(Some)
}

/// Empties a service and waits until its tasks have answered their last requests.
///
/// **Errors**, **Cancel**, **Repeat**: as [`deploy`].
pub(crate) async fn empty<M: Memory>(
    session: &Session,
    name: &str,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if scale(session, name, 0, memory, log).await?.is_some() {
        Box::pin(steady::drain(session, name, log, DRAIN)).await?;
    }
    Ok(())
}

/// Empties and deletes a service, and waits until its name is free. Returns whether there was one.
///
/// **Errors**, **Cancel**, **Repeat**: as [`deploy`].
pub(crate) async fn remove<M: Memory>(
    session: &Session,
    name: &str,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<bool, StepError> {
    let live = session.service(name).await?;
    match status(live.as_ref()) {
        "ACTIVE" => {
            empty(session, name, memory, log).await?;
            session.say(log, Level::Info, &format!("service {name} is deleted")).await?;
            service::delete(session, name, memory).await?;
        }
        "DRAINING" => {}
        _ => return Ok(false),
    }
    Box::pin(steady::wait_inactive(session, name, log)).await?;
    Ok(true)
}

/// Makes a service again as it was, or gives it back what it had, and waits until it is steady. It gets at least `least`
/// tasks, and keeps more if it has more.
///
/// **Errors**, **Cancel**, **Repeat**: as [`deploy`].
pub(crate) async fn bring_back<M: Memory>(
    session: &Session,
    snapshot: &Snapshot,
    least: u32,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let live = session.service(&snapshot.name).await?;
    let now = live.as_ref().filter(|live| service::is_active(live)).map_or(0, service::desired);
    let daemon = text(&snapshot.document, &["schedulingStrategy"]) == Some("DAEMON");
    let count = (!daemon).then_some(least.max(now));
    session.go_on(&format!("service {} was not brought back", snapshot.name))?;
    let revision = Box::pin(rollback::revision(session, snapshot, memory, log)).await?;
    let restored = service::restore(session, snapshot, &revision, count, &[], memory, log);
    let restored = Box::pin(restored).await?;
    Box::pin(steady::wait(session, &restored.target, log, steady::Options::default())).await.map(drop)
}

/// A service as it is, with everything that makes it anew.
///
/// **Errors**: those of the account. **Repeat**: safe.
pub(crate) async fn as_it_is(
    session: &Session,
    live: &Value,
    group: Option<&str>,
    log: &dyn UnitLog,
) -> Result<Ended, StepError> {
    let snapshot = Box::pin(service::snapshot(session, live, log)).await?;
    let scaling = scaling::read(session, &snapshot.name, log).await?;
    Ok(Ended { snapshot, group: group.map(str::to_owned), scaling, handed: None })
}

/// Keeps a service's autoscaling from doing anything, scaling out included.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn freeze<M: Memory>(
    session: &Session,
    scaling: &Scaling,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if scaling.target.is_none() {
        return Ok(());
    }
    let call = format!("RegisterScalableTarget {}", scaling.resource);
    session.announce(format!("suspend autoscaling of {}", scaling.resource), &[&call], memory).await?;
    session.say(log, Level::Info, &format!("autoscaling of {} is suspended", scaling.resource)).await?;
    let input = json!({"ServiceNamespace": "ecs", "ResourceId": scaling.resource, "ScalableDimension": "ecs:service:DesiredCount",
        "SuspendedState": {"DynamicScalingInSuspended": true, "DynamicScalingOutSuspended": true,
            "ScheduledScalingSuspended": true}});
    let answer = session.change(&call, autoscaling("RegisterScalableTarget"), input, Repeat::Safe).await;
    answer.map(drop).map_err(|fault| session.fault(fault, &call))
}

/// Takes a service's autoscaling away; its policies and scheduled actions go with it.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn unscale<M: Memory>(
    session: &Session,
    scaling: &Scaling,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if scaling.target.is_none() {
        return Ok(());
    }
    let call = format!("DeregisterScalableTarget {}", scaling.resource);
    session.announce(format!("take autoscaling of {} away", scaling.resource), &[&call], memory).await?;
    session.say(log, Level::Info, &format!("autoscaling of {} is taken away", scaling.resource)).await?;
    let input = json!({"ServiceNamespace": "ecs", "ResourceId": scaling.resource, "ScalableDimension": "ecs:service:DesiredCount"});
    match session.change(&call, autoscaling("DeregisterScalableTarget"), input, Repeat::Safe).await {
        Ok(_) => Ok(()),
        Err(fault) if fault.is("ObjectNotFoundException") => Ok(()),
        Err(fault) => Err(session.fault(fault, &call)),
    }
}

/// Gives a service the autoscaling back that it had.
///
/// **Errors**: those of the account; `ECS-002`. **Repeat**: safe.
pub(crate) async fn rescale<M: Memory>(
    session: &Session,
    before: &Scaling,
    name: &str,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if before.target.is_none() {
        return Ok(());
    }
    let live = scaling::now(session, name).await?;
    Box::pin(scaling::restore(session, before, &live, &[], false, memory, log)).await?;
    // A state in which nothing was suspended is not always written down.
    if is_suspended(&live) && !is_suspended(before) {
        Box::pin(scaling::resume(session, before, memory, log)).await?;
    }
    Ok(())
}

fn is_suspended(scaling: &Scaling) -> bool {
    let names = ["DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended"];
    let target = scaling.target.as_ref();
    target
        .is_some_and(|target| names.iter().any(|name| flag(target, &["SuspendedState", name]) == Some(true)))
}
