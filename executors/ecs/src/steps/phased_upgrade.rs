//! `EcsUpgradeContainer`: tasks move from the service that ran before to the new one (facts A10).

use super::fetched::Fetched;
use super::phases::{self, Phased};
use super::planned::{outputs, planned};
use super::size;
use crate::EcsExecutor;
use crate::documents::Reader;
use crate::error::bad_spec;
use crate::memory::{Memory, Undo, recall};
use crate::scaling;
use crate::service;
use crate::session::Session;
use crate::steady::{self, Options};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsAction, EcsSpec, ResizeStrategy, TaskCount};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const UNIT: &str = "Upgrade Container";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Upgrade {
    phased: Phased,
    /// Sizes of the new and the old service, once they are decided.
    sizes: Option<(u32, Option<u32>)>,
    fetched: Option<Fetched>,
}

impl Memory for Upgrade {
    fn undo(&self) -> Option<Undo> {
        Some(Undo::Phased { phased: Box::new(self.phased.clone()) })
    }
}

fn asked(spec: &EcsSpec) -> Result<(TaskCount, Option<TaskCount>), StepError> {
    match &spec.action {
        EcsAction::EcsUpgradeContainer { new_instances, downsize_old } => Ok((*new_instances, *downsize_old)),
        other => Err(bad_spec("ECS-008", format!("{} moves no tasks", other.kind()))),
    }
}

fn begin(spec: &EcsSpec, cx: &StepContext) -> Result<Upgrade, StepError> {
    if let Some(memory) = recall::<Upgrade>(cx)? {
        return Ok(memory);
    }
    let Some(phased) = phases::earlier(spec)? else {
        let what = "no EcsServiceSetup of this stage has made a service whose size could be changed";
        return Err(bad_spec("ECS-045", what).hint("put an EcsServiceSetup step before EcsUpgradeContainer"));
    };
    Ok(Upgrade { phased, ..Upgrade::default() })
}

/// Services and sizes in the order in which they change.
fn order(phased: &Phased, sizes: (u32, Option<u32>)) -> Vec<(String, u32)> {
    let mut order = vec![(phased.new.clone(), sizes.0)];
    if let (Some(old), Some(size)) = (&phased.old, sizes.1) {
        order.push((old.name.clone(), size));
    }
    if phased.resize == ResizeStrategy::DownsizeOldFirst {
        order.reverse();
    }
    order
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let (new, old) = asked(spec)?;
    let mut memory = begin(spec, cx)?;
    let session = Session::open(executor, spec, cx, log).await?;
    let sizes = *memory.sizes.get_or_insert_with(|| phases::sizes(&memory.phased, new, old));
    // The size that serves in the end brings its autoscaling with it.
    let whole = sizes.0 >= memory.phased.new_count;
    if whole && memory.fetched.is_none() {
        memory.fetched = Some(Fetched::of_scaling(&Reader { executor, spec, cx, log }).await?);
    }
    let mut instances = Vec::new();
    let mut done = String::from("nothing was changed");
    for (service, count) in order(&memory.phased, sizes) {
        session.go_on(&done)?;
        let found = resize(&session, &service, count, &mut memory, log).await?;
        if service == memory.phased.new {
            instances = found;
        }
        done = format!("service {service} has {count} tasks");
    }
    if whole {
        scale_new(&session, &mut memory, log).await?;
    }
    let phased = &memory.phased;
    let old = match (&phased.old, sizes.1) {
        (Some(old), Some(size)) => phases::shown_running(&session, &old.name, size).await?,
        _ => Value::Null,
    };
    let outputs = outputs([
        ("newService", phases::shown(&phased.new, sizes.0)),
        ("oldService", old),
        ("instances", instances.into()),
    ]);
    let undo = memory.undo().map(|undo| undo.to_value());
    Ok(StepOutput { outputs, undo, ..StepOutput::default() })
}

async fn resize(
    session: &Session,
    service: &str,
    count: u32,
    memory: &mut Upgrade,
    log: &dyn UnitLog,
) -> Result<Vec<Value>, StepError> {
    let live = size::scalable(session, service).await?;
    let is = service::desired(&live);
    session.say(log, Level::Info, &format!("service {service}: desired count {is} → {count}")).await?;
    let is_old = memory.phased.old.as_ref().is_some_and(|old| old.name == service);
    if is_old && count < is && !memory.phased.suspended {
        // Set before it is done: whoever undoes the step resumes it in any case.
        memory.phased.suspended = true;
        size::suspend(session, service, memory, log).await?;
    }
    let target = match is == count {
        true => steady::target_of(&live),
        false => steady::target_of(&size::set(session, service, count, memory).await?),
    };
    let report = steady::wait(session, &target, log, Options { drain: None, ..Options::default() }).await?;
    Ok(report.instances)
}

/// Gives the new service the autoscaling of the definitions.
async fn scale_new(session: &Session, memory: &mut Upgrade, log: &dyn UnitLog) -> Result<(), StepError> {
    let Some(fetched) = &memory.fetched else { return Ok(()) };
    let wanted = fetched.scaling()?;
    if wanted.is_empty() {
        return Ok(());
    }
    let new = memory.phased.new.clone();
    session.go_on(&format!("service {new} has its tasks and no autoscaling yet"))?;
    let live = scaling::read(session, &new, log).await?;
    memory.phased.scaled = Some(wanted.names());
    scaling::apply(session, &live, &wanted, memory, log).await
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
    let (new, old) = asked(spec)?;
    let memory = begin(spec, cx)?;
    let log = cx.logs.unit(UNIT);
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let mut lines = Vec::new();
    for (service, count) in order(&memory.phased, phases::sizes(&memory.phased, new, old)) {
        let is = service::desired(&size::scalable(&session, &service).await?);
        if is != count {
            lines.extend([
                format!("change service {service}"),
                format!("-desiredCount: {is}"),
                format!("+desiredCount: {count}"),
            ]);
        }
    }
    Ok(planned(&lines))
}
