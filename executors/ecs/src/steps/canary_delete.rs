//! `EcsCanaryDelete`: the canary of this execution goes, after its last requests were answered (facts A8).
//!
//! [`remove`] also undoes a canary for whoever rolls a stage back.

use super::planned::{outputs, planned};
use super::size;
use crate::EcsExecutor;
use crate::error::bad_spec;
use crate::memory::{Memory, Undo};
use crate::service;
use crate::session::{Session, ecs};
use crate::steady;
use aws::Repeat;
use aws::document::text;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsAction, EcsSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// Name of the step's unit (facts A0).
const UNIT: &str = "Delete Service";
/// How long tasks may take to finish their last requests: twice the deregistration delay that target groups have unless it is
/// set otherwise.
const DRAIN: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Deleted {
    service: String,
}

impl Memory for Deleted {
    fn undo(&self) -> Option<Undo> {
        None
    }
}

/// The canary that a step of this stage made, by what it left behind.
///
/// **Errors**: `ECS-004`.
fn canary(spec: &EcsSpec) -> Result<Option<String>, StepError> {
    for earlier in spec.earlier.undo.iter().rev().filter(|earlier| earlier.kind == "EcsCanaryDeploy") {
        if let Undo::Canary { service } = Undo::read(&earlier.data)? {
            return Ok(Some(service));
        }
    }
    Ok(None)
}

/// Scales a service to nothing, waits until its tasks have gone, deletes it and waits until it is INACTIVE. Returns whether
/// there was anything to delete.
///
/// **Errors**: `ECS-042`: the service is not of this execution; `ECS-037`, `ECS-039`, `ECS-040`; those of the account.
/// **Cancel**: between calls; the text says in what state the service is left. **Repeat**: safe; what is done already is seen
/// by looking, so `memory` only goes into the checkpoints.
pub(crate) async fn remove<M: Memory>(
    session: &Session,
    service: &str,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<bool, StepError> {
    let live = session.service(service).await?;
    let status = live.as_ref().and_then(|live| text(live, &["status"])).unwrap_or("MISSING").to_owned();
    match live {
        Some(live) if service::is_active(&live) => {
            if !service::is_of_execution(session, &live) {
                let what = format!("service {service} was not made by this execution, so it is not deleted");
                return Err(bad_spec("ECS-042", what)
                    .target(session.target().to_owned())
                    .hint("look at its tags: who else works on it? Delete it by hand when nobody needs it"));
            }
            drain(session, service, &live, memory, log).await?;
            session.go_on(&format!("service {service} has no tasks any more and is not deleted yet"))?;
            delete(session, service, memory).await?;
        }
        Some(_) if status == "DRAINING" => {}
        _ => {
            session
                .say(log, Level::Info, &format!("service {service} is {status}: nothing to delete"))
                .await?;
            return Ok(!session.cx.checkpoints.history().is_empty());
        }
    }
    steady::wait_inactive(session, service, log).await?;
    Ok(true)
}

async fn drain<M: Memory>(
    session: &Session,
    service: &str,
    live: &Value,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    session.go_on(&format!("service {service} was left as it is"))?;
    if service::desired(live) > 0 {
        let text =
            format!("service {service}: {} tasks finish their requests and end", service::running(live));
        session.say(log, Level::Info, &text).await?;
        size::set(session, service, 0, memory).await?;
    }
    // Leave time to delete it.
    let limit = DRAIN.min(session.cx.time_left().mul_f64(0.8));
    steady::drain(session, service, log, limit).await?;
    Ok(())
}

pub(super) async fn delete<M: Memory>(session: &Session, service: &str, memory: &M) -> Result<(), StepError> {
    let call = format!("DeleteService {service}");
    session.announce(format!("delete service {service}"), &[&call], memory).await?;
    let input = json!({"cluster": session.cluster, "service": service, "force": true});
    match session.change(&call, ecs("DeleteService"), input, Repeat::Safe).await {
        Ok(_) => Ok(()),
        Err(fault) if fault.is("ServiceNotFoundException") || fault.is("ServiceNotActiveException") => Ok(()),
        Err(fault) => Err(session.fault(fault, &format!("delete service {service}"))),
    }
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let EcsAction::EcsCanaryDelete {} = &spec.action else {
        return Err(bad_spec("ECS-008", format!("{} deletes no canary", spec.action.kind())));
    };
    let Some(service) = canary(spec)? else {
        let text = "no canary was made in this stage: there is nothing to delete";
        log.line(Level::Info, text).await.map_err(crate::error::log_closed)?;
        let outputs = outputs([("canaryDeleted", false.into()), ("canaryServiceName", "".into())]);
        return Ok(StepOutput { outputs, skipped: true, ..StepOutput::default() });
    };
    let session = Session::open(executor, spec, cx, log).await?;
    let memory = Deleted { service: service.clone() };
    let deleted = remove(&session, &service, &memory, log).await?;
    let outputs = outputs([("canaryDeleted", deleted.into()), ("canaryServiceName", service.into())]);
    Ok(StepOutput { outputs, ..StepOutput::default() })
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, UNIT).await?;
    let result = work(executor, spec, cx, unit.log()).await;
    unit.end(result).await
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let Some(service) = canary(spec)? else { return Ok(planned(&[])) };
    let log = cx.logs.unit(UNIT);
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let lines = match session.service(&service).await? {
        Some(live) if service::is_active(&live) => {
            vec![
                format!("drain {} tasks of service {service}", service::running(&live)),
                format!("delete service {service}"),
            ]
        }
        _ => Vec::new(),
    };
    Ok(planned(&lines))
}
