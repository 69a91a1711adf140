//! `EcsPrepareRollback`: what a deployment will find is recorded, and nothing is changed.
//!
//! A manager of Harness has this done by a task of its own. What its rollback gets later is this record alone: nothing of what
//! the deployment did. So the records say that (`unrecorded`), and rules of load balancers stand in them as the swap that may
//! follow would leave them.

use super::phases::{self, Phased};
use super::planned::outputs;
use super::{blue_green, phased_setup, routes, stage};
use crate::EcsExecutor;
use crate::documents::Loaded;
use crate::documents::arn::short;
use crate::memory::{Deployed, Undo};
use crate::scaling;
use crate::service;
use crate::session::Session;
use crate::traffic::undo::Green;
use crate::traffic::{Fault, SavedRule, look};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{BlueGreenRoutes, EcsAction, EcsSpec, EcsStrategy};
use serde_json::{Value, json};

const UNIT: &str = "Prepare Rollback Data";

fn told(spec: &EcsSpec) -> Result<&EcsStrategy, StepError> {
    match &spec.action {
        EcsAction::EcsPrepareRollback { strategy } => Ok(strategy),
        _ => Err(routes::wrong_step(spec)),
    }
}

/// Runs the step. Outputs by strategy (facts A0): `serviceName` and `isFirstDeployment` of every one; of blue-green the
/// routes and `greenServiceName`, `greenServiceExist`; of a phased deployment `servicePrefix`, `nextRevision`,
/// `currentServiceName`, `currentServiceInstanceCount`, `newServiceThresholdInstanceCount`.
///
/// **Errors**: `ECS-015`; those of looking. **Cancel**, **Repeat**: safe, nothing is changed.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, UNIT).await?;
    let work = async {
        let strategy = told(spec)?;
        let session = Session::open(executor, spec, cx, unit.log()).await?;
        let definition =
            stage::service(executor, spec, cx, unit.log()).await?.ok_or_else(stage::no_service)?;
        let name = service::check::name(&definition.value, &definition.place)?.to_owned();
        match strategy {
            EcsStrategy::Rolling => rolling(&session, &name, unit.log()).await,
            EcsStrategy::BlueGreen { routes } => {
                Box::pin(blue_green(&session, routes, &name, &definition, unit.log())).await
            }
            EcsStrategy::Phased => phased(&session, &name, &definition, unit.log()).await,
        }
    };
    let result = work.await;
    unit.end(result).await
}

async fn rolling(session: &Session, name: &str, log: &dyn UnitLog) -> Result<StepOutput, StepError> {
    let live = session.service(name).await?.filter(service::is_active);
    let snapshot = match &live {
        Some(live) => {
            let snapshot = service::snapshot(session, live, log).await?;
            let (revision, count) = (short(&snapshot.task_definition), snapshot.desired);
            session
                .say(log, Level::Info, &format!("service {name} runs {revision} with {count} tasks"))
                .await?;
            Some(Box::new(snapshot))
        }
        None => {
            session.say(log, Level::Info, &format!("service {name} is deployed for the first time")).await?;
            None
        }
    };
    let scaling = scaling::read(session, name, log).await?;
    let created = snapshot.is_none();
    let undo = Undo::Service {
        name: name.to_owned(),
        snapshot,
        scaling: Some(Box::new(scaling)),
        deployed: Some(Deployed { created, unrecorded: true, ..Deployed::default() }),
    };
    let outputs = outputs([("serviceName", name.into()), ("isFirstDeployment", created.into())]);
    Ok(StepOutput { outputs, undo: Some(undo.to_value()), ..StepOutput::default() })
}

async fn blue_green(
    session: &Session,
    routes: &BlueGreenRoutes,
    name: &str,
    definition: &Loaded,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let found = Box::pin(blue_green::find_pair(session, routes, name, log)).await?;
    let written = service::written_count(&definition.value);
    let mut green = Box::pin(blue_green::record(session, &found.pair, &found.live, written, log)).await?;
    green.rules = Box::pin(rules(session, &green)).await?;
    let pair = green.pair.clone();
    let exists = green.before.is_some();
    let undo = Undo::Green(Box::new(green)).to_value();
    let mut outputs = super::swap::outputs(&pair, false);
    // The manager takes this for the service that was live.
    let more: [(&str, Value); 3] = [
        ("serviceName", json!(pair.blue)),
        ("greenServiceName", json!(pair.green)),
        ("greenServiceExist", json!(exists)),
    ];
    outputs.extend(more.map(|(name, value)| (name.to_owned(), value.into())));
    Ok(StepOutput { outputs, undo: Some(undo), ..StepOutput::default() })
}

/// The rules of the pair as they are, and as a swap would leave them: a rollback knows both for ours.
async fn rules(session: &Session, green: &Green) -> Result<Vec<SavedRule>, StepError> {
    let pair = &green.pair;
    let mut all = Vec::new();
    for rule in [Some(&pair.production), pair.stage.as_ref()].into_iter().flatten() {
        let saved = look::actions(session, rule).await?;
        let left = saved.exchanged(&pair.blue_group, &pair.green_group).map_err(Fault::into_step)?;
        let at = session.cx.clock.wall();
        all.push(SavedRule { rule: rule.clone(), before: saved.clone(), saved, left, at });
    }
    Ok(all)
}

async fn phased(
    session: &Session,
    name: &str,
    definition: &Loaded,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let found = phases::found(session, name).await?;
    let old = phased_setup::old(session, name, &found, log).await?;
    let written = service::written_count(&definition.value);
    let next = phases::next(&found);
    let phased = Phased {
        new: phases::name_of(name, next),
        new_count: written.unwrap_or(1),
        old,
        unrecorded: true,
        ..Phased::default()
    };
    let old = phased.old.as_ref();
    let outputs = outputs([
        ("serviceName", name.into()),
        ("isFirstDeployment", old.is_none().into()),
        ("servicePrefix", phases::prefix(name).into()),
        ("nextRevision", next.into()),
        ("currentServiceName", json!(old.map(|old| &old.name))),
        ("currentServiceInstanceCount", json!(old.map(|old| old.count))),
        ("newServiceThresholdInstanceCount", written.unwrap_or(1).into()),
    ]);
    let undo = Undo::Phased { phased: Box::new(phased) };
    Ok(StepOutput { outputs, undo: Some(undo.to_value()), ..StepOutput::default() })
}

/// There is nothing to plan.
pub(crate) async fn plan() -> Result<Plan, StepError> {
    Ok(Plan::Unsupported { reason: "looking at what there is changes nothing".to_owned() })
}
