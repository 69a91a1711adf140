//! `EcsUndo`: undoes one step of a stage without rollback steps, by what that step recorded (rule R25).

use super::rollback::{self, Back, Undone};
use super::{blue_green_rollback, canary_delete, phased_rollback, rollout, routes, terminate};
use crate::EcsExecutor;
use crate::memory::{Undo, recall};
use crate::session::Session;
use crate::traffic::undo::{self, Restoring};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsAction, EcsSpec};

const UNIT: &str = "Rollback";

/// What the step recorded that is undone; `None` when it never came so far.
fn recorded(cx: &StepContext) -> Result<Option<Undo>, StepError> {
    match cx.task.undo.as_ref().filter(|undo| !undo.is_null()) {
        Some(undo) => Undo::read(undo).map(Some),
        None => Ok(None),
    }
}

fn of(spec: &EcsSpec) -> Result<(&str, &str), StepError> {
    match &spec.action {
        EcsAction::EcsUndo { step, kind } => Ok((step, kind)),
        _ => Err(routes::wrong_step(spec)),
    }
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, UNIT).await?;
    let work = async {
        let (step, kind) = of(spec)?;
        let Some(undo) = recorded(cx)? else {
            let text = format!("step {step} ({kind}) changed nothing that could be undone");
            unit.say(Level::Info, &text).await?;
            return Ok(StepOutput { skipped: true, ..StepOutput::default() });
        };
        unit.say(Level::Info, &format!("step {step} ({kind}) is undone")).await?;
        Box::pin(dispatch(executor, spec, cx, &undo, unit.log())).await?;
        Ok(StepOutput::default())
    };
    let result = work.await;
    unit.end(result.map_err(|error| undo::as_left(cx, error, "it was undone as far as the log says"))).await
}

async fn dispatch(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    undo: &Undo,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let session = Session::open(executor, spec, cx, log).await?;
    match undo {
        // Something may run on it, and a revision costs nothing.
        Undo::Registered { arn } => {
            session.say(log, Level::Info, &format!("{arn} stays registered; nothing else was changed")).await
        }
        Undo::Canary { service } => {
            Box::pin(canary_delete::remove(&session, service, &Restoring::default(), log)).await.map(drop)
        }
        Undo::Green(green) => Box::pin(blue_green_rollback::undo_green(&session, green, log)).await,
        Undo::Traffic(shifted) => Box::pin(blue_green_rollback::undo_traffic(&session, shifted, log)).await,
        Undo::Phased { phased } => {
            let memory = Restoring::default();
            Box::pin(phased_rollback::undo(&session, phased, &memory, log)).await.map(drop)
        }
        Undo::Service { .. } => {
            let Some(undone) = Undone::of(undo.clone()) else { return Ok(()) };
            let mut memory: Back = recall(cx)?.unwrap_or_default();
            let result = Box::pin(rollback::roll_back(&session, &undone, false, &mut memory, log)).await;
            rollout::finish(&session, result, &mut memory, log).await.map(drop)
        }
        Undo::Terminated(ended) => {
            let memory: Restoring = recall(cx)?.unwrap_or_default();
            Box::pin(terminate::bring_back(&session, ended, &memory, log)).await
        }
    }
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(UNIT);
    let (step, kind) = of(spec)?;
    let Some(undo) = recorded(cx)? else { return Ok(routes::planned(String::new())) };
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let mut text = String::new();
    for saved in undo::rules_of(&undo) {
        text.push_str(&routes::restoring(&session, saved).await?);
    }
    match &undo {
        Undo::Registered { .. } => {}
        Undo::Phased { .. } => text.push_str("the services of the phased deployment become what they were\n"),
        Undo::Canary { service } => text.push_str(&format!("service {service}: deleted, when it is there\n")),
        Undo::Green(green) => {
            let name = &green.pair.green;
            text.push_str(&match &green.before {
                Some(before) => format!("service {name}: becomes {} again\n", before.task_definition),
                None => format!("service {name}: deleted, when it is there\n"),
            });
        }
        Undo::Traffic(shifted) => {
            if let Some(emptied) = &shifted.emptied {
                text.push_str(&format!(
                    "service {}: {} tasks\n",
                    emptied.snapshot.name, emptied.snapshot.desired
                ));
            }
        }
        Undo::Service { name, snapshot, .. } => text.push_str(&match snapshot {
            Some(before) => format!("service {name}: becomes {} again\n", before.task_definition),
            None => format!("service {name}: deleted, when it is there\n"),
        }),
        Undo::Terminated(ended) => {
            text.push_str(&format!(
                "service {}: made again with {} tasks\n",
                ended.snapshot.name, ended.snapshot.desired
            ));
        }
    }
    if text.is_empty() {
        text = format!("nothing of step {step} ({kind}) is left to be undone\n");
    }
    Ok(routes::planned(text))
}
