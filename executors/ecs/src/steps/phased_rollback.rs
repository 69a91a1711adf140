//! `EcsBasicRollback`: the service that ran before serves again, and the new one has no tasks any more (facts A10).

use super::canary_delete;
use super::phases::{self, Old, Phased};
use super::planned::{outputs, planned};
use super::size;
use crate::EcsExecutor;
use crate::documents::arn::short;
use crate::error::bad_spec;
use crate::memory::{Memory, Undo};
use crate::scaling::{self, Scaling};
use crate::service;
use crate::session::Session;
use crate::steady::{self, Options};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsAction, EcsSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const UNIT: &str = "Rollback";

/// Everything stands in what the steps left behind; each thing is done again until it is so.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rollback {
    new: String,
}

impl Memory for Rollback {
    fn undo(&self) -> Option<Undo> {
        None
    }
}

/// Undoes a phased deployment: also for whoever rolls a stage back without a rollback step. Returns the size of the service
/// that ran before, if there was one.
///
/// **Errors**: those of the waits (`ECS-030` …) and of the account. **Cancel**: between calls. **Repeat**: safe.
pub(crate) async fn undo<M: Memory>(
    session: &Session,
    phased: &Phased,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<Option<u32>, StepError> {
    let Some(old) = &phased.old else {
        session.say(log, Level::Info, "nothing ran before: the new service is removed").await?;
        remove_scaling(session, phased, memory, log).await?;
        canary_delete::remove(session, &phased.new, memory, log).await?;
        return Ok(None);
    };
    let count = bring_back(session, old, memory, log).await?;
    if (phased.suspended || phased.unrecorded) && old.scaling.target.is_some() {
        scaling::resume(session, &old.scaling, memory, log).await?;
    }
    session
        .go_on(&format!("service {} serves again, service {} still has its tasks", old.name, phased.new))?;
    remove_scaling(session, phased, memory, log).await?;
    let live = session.service(&phased.new).await?.filter(service::is_active);
    if live.as_ref().is_some_and(|live| service::desired(live) > 0 || service::running(live) > 0) {
        session.say(log, Level::Info, &format!("service {} gives its tasks up", phased.new)).await?;
        size::set(session, &phased.new, 0, memory).await?;
        steady::drain(session, &phased.new, log, session.cx.time_left().mul_f64(0.8)).await?;
    }
    Ok(Some(count))
}

/// The service that ran before, as it was and steady.
async fn bring_back<M: Memory>(
    session: &Session,
    old: &Old,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<u32, StepError> {
    let live = session.service(&old.name).await?.filter(service::is_active);
    let count = live.as_ref().map_or(old.count, |live| old.count.max(service::desired(live)));
    let (snapshot, revision) = (&old.snapshot, &old.snapshot.task_definition);
    let restored = service::restore(session, snapshot, revision, Some(count), &[], memory, log).await?;
    steady::wait(session, &restored.target, log, Options { drain: None, ..Options::default() }).await?;
    Ok(count)
}

/// Takes away the autoscaling that the new service got.
async fn remove_scaling<M: Memory>(
    session: &Session,
    phased: &Phased,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if phased.scaled.is_none() && !phased.unrecorded {
        return Ok(());
    }
    let live = scaling::read(session, &phased.new, log).await?;
    let none = Scaling { resource: live.resource.clone(), v: live.v, ..Scaling::default() };
    let policies = phased.scaled.as_ref().unwrap_or(&live.ours);
    scaling::restore(session, &none, &live, policies, true, memory, log).await
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let EcsAction::EcsBasicRollback {} = &spec.action else {
        return Err(bad_spec("ECS-008", format!("{} rolls no phased deployment back", spec.action.kind())));
    };
    let Some(phased) = phases::earlier(spec)? else {
        let text = "no service was set up in this stage: there is nothing to roll back";
        log.line(Level::Info, text).await.map_err(crate::error::log_closed)?;
        return Ok(StepOutput { skipped: true, ..StepOutput::default() });
    };
    let session = Session::open(executor, spec, cx, log).await?;
    let memory = Rollback { new: phased.new.clone() };
    let count = undo(&session, &phased, &memory, log).await?;
    let old = match (&phased.old, count) {
        (Some(old), Some(count)) => phases::shown_running(&session, &old.name, count).await?,
        _ => Value::Null,
    };
    let outputs = outputs([
        ("newService", phases::shown(&phased.new, 0)),
        ("oldService", old),
        ("isFirstTimeDeployment", phased.old.is_none().into()),
    ]);
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
    let Some(phased) = phases::earlier(spec)? else { return Ok(planned(&[])) };
    let log = cx.logs.unit(UNIT);
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let mut lines = Vec::new();
    match &phased.old {
        None => lines.push(format!("delete service {}", phased.new)),
        Some(old) => {
            lines.push(format!(
                "service {} gets {} tasks of {}",
                old.name,
                old.count,
                short(&old.snapshot.task_definition)
            ));
            if session.service(&phased.new).await?.is_some_and(|live| service::desired(&live) > 0) {
                lines.push(format!("scale service {} to 0", phased.new));
            }
        }
    }
    Ok(planned(&lines))
}
