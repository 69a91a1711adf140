//! `EcsBlueGreenTrafficShift`: weights of blue and green on the rule of the stage, or any weights on any rule; and
//! `StandAloneTrafficShiftRollback`, which takes the latter back.

use crate::EcsExecutor;
use crate::memory::{Memory, Undo, recall};
use crate::session::Session;
use crate::steps::{colours, routes, shift};
use crate::traffic::pair::Pair;
use crate::traffic::undo::{self, Restoring, Shifted};
use crate::traffic::{self, Actions, Expect, Fault, Rule, SavedRule, Weights, look};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::result::Output;
use proto::task::{EcsAction, EcsSpec, TrafficShift};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const UNIT: &str = "Traffic Shift";
const ROLLBACK: &str = "Rollback";

fn told(spec: &EcsSpec) -> Result<&TrafficShift, StepError> {
    match &spec.action {
        EcsAction::EcsBlueGreenTrafficShift { shift } => Ok(shift),
        _ => Err(routes::wrong_step(spec)),
    }
}

/// The pair of the create-service step of this stage.
///
/// **Errors**: `ECS-060`: there was none.
pub(crate) fn created(spec: &EcsSpec) -> Result<Pair, StepError> {
    undo::pair(spec)?.ok_or_else(|| {
        let text = format!("{}: no step of this stage has created a green service", spec.action.kind());
        Fault::NotRecorded(text).into_step()
    })
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, UNIT).await?;
    let result = match begin(spec, cx) {
        Ok(mut memory) => {
            let result = Box::pin(work(executor, spec, cx, &mut memory, unit.log())).await;
            result.map_err(|error| undo::as_left(cx, error, &undo::rules_shown(&memory.rules)))
        }
        Err(error) => Err(error),
    };
    unit.end(result).await
}

/// What this life or attempt goes on with.
pub(crate) fn begin(spec: &EcsSpec, cx: &StepContext) -> Result<Shifted, StepError> {
    if let Some(memory) = recall(cx)? {
        return Ok(memory);
    }
    Ok(match undo::own(spec, cx)? {
        Some(Undo::Traffic(shifted)) => *shifted,
        _ => Shifted::default(),
    })
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    memory: &mut Shifted,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let session = Session::open(executor, spec, cx, log).await?;
    let outputs = match told(spec)? {
        TrafficShift::Inherit { weight_percentage } => {
            let pair = created(spec)?;
            memory.pair = Some(pair.clone());
            Box::pin(shift::to_green(&session, spec, memory, &pair, *weight_percentage, log)).await?;
            if *weight_percentage == 100 {
                memory.tagged = true;
                Box::pin(colours::tag(&session, memory, Some(&pair.green), pair.blue.as_deref(), log))
                    .await?;
            }
            inherited(&pair, *weight_percentage)
        }
        TrafficShift::Standalone { .. } => {
            let (rule, weights) = Box::pin(standalone(&session, spec)).await?;
            let left = undo::left(spec, &rule)?;
            let expect = left.as_ref().map_or(Expect::Anything, Expect::AsLeft);
            let wanted = |now: &Actions| now.forwarding(&weights);
            let (before, after) =
                Box::pin(traffic::shift::shift(&session, memory, &rule, expect, &wanted, &[], log)).await?;
            [
                ("listenerRuleArn", json!(rule.id())),
                ("weights", shift::weights(&after)),
                ("previousWeights", shift::weights(&before)),
            ]
            .map(named)
            .into()
        }
    };
    Ok(StepOutput { outputs, undo: memory.undo().map(|undo| undo.to_value()), ..StepOutput::default() })
}

pub(crate) fn named((name, value): (&str, Value)) -> (String, Output) {
    (name.to_owned(), value.into())
}

fn inherited(pair: &Pair, percent: u32) -> BTreeMap<String, Output> {
    [
        ("loadBalancer", json!(pair.balancer.name)),
        ("prodListenerArn", json!(pair.production.listener)),
        ("prodListenerRuleArn", json!(pair.production.arn)),
        ("prodTargetGroupArn", json!(pair.blue_group)),
        ("stageTargetGroupArn", json!(pair.green_group)),
        ("weightPercentage", json!(percent)),
        ("trafficShifted", json!(percent == 100)),
    ]
    .map(named)
    .into()
}

/// The rule and the weights of a standalone shift.
///
/// **Errors**: `ECS-050`, `ECS-051`, `ECS-058`.
async fn standalone(session: &Session, spec: &EcsSpec) -> Result<(Rule, Weights), StepError> {
    let TrafficShift::Standalone { load_balancer, listener, listener_rule_arn, forward } = told(spec)? else {
        return Err(routes::wrong_step(spec));
    };
    let weights = Weights::new(forward.iter().cloned()).map_err(Fault::into_step)?;
    let balancer = look::balancer(session, load_balancer).await?;
    let rule = look::named(session, &balancer, listener, listener_rule_arn.as_deref()).await?;
    for (arn, _) in weights.iter() {
        let group = look::group(session, arn).await?;
        if !group.load_balancers.is_empty() && !group.load_balancers.contains(&balancer.arn) {
            let text = format!("target group {arn} belongs to another load balancer than {}", balancer.name);
            return Err(Fault::Unfit(text).into_step());
        }
    }
    Ok((rule, weights))
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(UNIT);
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    match told(spec)? {
        TrafficShift::Inherit { weight_percentage } => {
            let pair = created(spec)?;
            let split = Weights::split(&pair.blue_group, &pair.green_group, *weight_percentage);
            let split = split.map_err(Fault::into_step)?;
            routes::plan(&session, &[(&pair.production, &|now: &Actions| now.with_weights(&split))]).await
        }
        TrafficShift::Standalone { .. } => {
            let (rule, weights) = Box::pin(standalone(&session, spec)).await?;
            routes::plan(&session, &[(&rule, &|now: &Actions| now.forwarding(&weights))]).await
        }
    }
}

/// Rules that standalone shifts of this stage changed.
fn shifted_alone(spec: &EcsSpec) -> Result<Vec<SavedRule>, StepError> {
    let all = undo::earlier(spec)?.into_iter().filter_map(|(kind, undo)| match undo {
        Undo::Traffic(shifted) if kind == "EcsBlueGreenTrafficShift" && shifted.pair.is_none() => {
            Some(shifted.rules)
        }
        _ => None,
    });
    Ok(undo::combined(all.flatten()))
}

/// Takes every standalone shift of this stage back.
pub(crate) async fn run_rollback(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, ROLLBACK).await?;
    let result = Box::pin(roll_back(executor, spec, cx, unit.log())).await;
    unit.end(result).await
}

async fn roll_back(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let rules = shifted_alone(spec)?;
    if rules.is_empty() {
        log.line(Level::Info, "no step of this stage shifted requests by itself: nothing to roll back")
            .await
            .map_err(crate::error::log_closed)?;
        return Ok(StepOutput { skipped: true, ..StepOutput::default() });
    }
    let session = Session::open(executor, spec, cx, log).await?;
    let mut memory: Restoring = recall(cx)?.unwrap_or_default();
    Box::pin(restore_all(&session, &mut memory, &rules, &[], log)).await?;
    Ok(StepOutput::default())
}

/// Brings every rule back, as far as nobody else changed it: one that somebody did does not keep the others from it.
///
/// **Errors**: the first one; the text names all.
pub(crate) async fn restore_all<M: traffic::Rules>(
    session: &Session,
    memory: &mut M,
    rules: &[SavedRule],
    needs: &traffic::shift::Least,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let mut failed: Option<StepError> = None;
    // Production before the stage, as they were changed: a group that no rule names any more would lose its health.
    for saved in rules {
        match Box::pin(traffic::shift::restore(session, memory, saved, needs, log)).await {
            Ok(_) => {}
            Err(error) if matches!(error.class, executor_api::Class::Cancelled { .. }) => return Err(error),
            Err(error) => match &mut failed {
                Some(first) => first.what.push_str(&format!("; {}", error.what)),
                None => failed = Some(error),
            },
        }
    }
    failed.map_or(Ok(()), Err)
}

/// What the rollback would change.
pub(crate) async fn plan_rollback(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(ROLLBACK);
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let rules = shifted_alone(spec)?;
    let mut text = String::new();
    for saved in &rules {
        text.push_str(&routes::restoring(&session, saved).await?);
    }
    Ok(routes::planned(text))
}
