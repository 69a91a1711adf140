//! `EcsScale`: the desired count of one service (facts A11).
//!
//! A share is of the count at the start. The number is decided once and stands in the checkpoint, so that a step that is
//! repeated after a crash does not take the share of a share.

use super::planned::{outputs, planned};
use super::size;
use crate::EcsExecutor;
use crate::error::bad_spec;
use crate::memory::{Memory, Undo, recall};
use crate::service;
use crate::session::Session;
use crate::steady::{self, Options, Target};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsAction, EcsSpec, TaskCount};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name of the step's unit.
const UNIT: &str = "Scale Service";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Scaled {
    /// Counts before and after, once they are decided.
    counts: Option<(u32, u32)>,
    /// What is waited for, once it was sent.
    target: Option<Target>,
}

impl Memory for Scaled {
    fn undo(&self) -> Option<Undo> {
        None
    }
}

struct Asked<'a> {
    service: &'a str,
    instances: TaskCount,
    skip_wait: bool,
}

fn asked(spec: &EcsSpec) -> Result<Asked<'_>, StepError> {
    match &spec.action {
        EcsAction::EcsScale { service, instances, skip_steady_state_check } => {
            Ok(Asked { service: service.trim(), instances: *instances, skip_wait: *skip_steady_state_check })
        }
        other => Err(bad_spec("ECS-008", format!("{} scales nothing", other.kind()))),
    }
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let asked = asked(spec)?;
    let session = Session::open(executor, spec, cx, log).await?;
    let mut memory: Scaled = recall(cx)?.unwrap_or_default();
    let live = size::scalable(&session, asked.service).await?;
    let (from, to) = *memory.counts.get_or_insert_with(|| {
        let from = service::desired(&live);
        (from, size::share(asked.instances, from))
    });
    let text = format!("service {}: desired count {from} → {to}", asked.service);
    session.say(log, Level::Info, &text).await?;
    if let Some(warning) = size::undone_by(&session, asked.service, to, log).await? {
        session.say(log, Level::Warn, &warning).await?;
        session.tell(warning);
    }
    let target = match memory.target.take() {
        Some(target) => target,
        None => {
            session.go_on(&format!(
                "service {} still has the desired count {}",
                asked.service,
                service::desired(&live)
            ))?;
            send(&session, asked.service, &live, to, &memory).await?
        }
    };
    memory.target = Some(target.clone());
    session.announce(format!("wait for service {}", asked.service), &[], &memory).await?;
    let instances = if asked.skip_wait {
        session.say(log, Level::Info, "the step does not wait for the tasks").await?;
        Vec::new()
    } else {
        let options = Options { drain: None, ..Options::default() };
        steady::wait(&session, &target, log, options).await?.instances
    };
    let outputs = outputs([
        ("serviceName", asked.service.into()),
        ("desiredCount", to.into()),
        ("previousDesiredCount", from.into()),
        ("instances", instances.into()),
    ]);
    Ok(StepOutput { outputs, ..StepOutput::default() })
}

async fn send(
    session: &Session,
    service: &str,
    live: &Value,
    to: u32,
    memory: &Scaled,
) -> Result<Target, StepError> {
    if service::desired(live) == to {
        return Ok(steady::target_of(live));
    }
    Ok(steady::target_of(&size::set(session, service, to, memory).await?))
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
    let asked = asked(spec)?;
    let log = cx.logs.unit(UNIT);
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let from = service::desired(&size::scalable(&session, asked.service).await?);
    let to = size::share(asked.instances, from);
    let mut lines = Vec::new();
    if from != to {
        lines = vec![
            format!("change service {}", asked.service),
            format!("-desiredCount: {from}"),
            format!("+desiredCount: {to}"),
        ];
        lines.extend(size::undone_by(&session, asked.service, to, log.as_ref()).await?);
    }
    Ok(planned(&lines))
}
