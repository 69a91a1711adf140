//! `EcsRunTask` shape 5: so many percent of the requests go to green (rule R9).

use crate::EcsExecutor;
use crate::error::bad_spec;
use crate::session::Session;
use crate::steps::routes;
use crate::traffic::discover::Told;
use crate::traffic::pair::Pair;
use crate::traffic::undo::{self, Shifted};
use crate::traffic::{self, Actions, Expect, Fault, Weights, short};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsAction, EcsSpec, RunTaskShape};
use serde_json::{Value, json};

const UNIT: &str = "Run Task";

/// What the step is told.
fn shape(spec: &EcsSpec) -> Result<(u32, Told), StepError> {
    if let EcsAction::EcsRunTask { shape } = &spec.action
        && let RunTaskShape::Shift {
            percent,
            listener_rule_arn,
            listener_arn,
            blue_target_group_arn,
            green_target_group_arn,
        } = &**shape
    {
        let told = Told {
            rule: listener_rule_arn.clone(),
            listener: listener_arn.clone(),
            blue_group: blue_target_group_arn.clone(),
            green_group: green_target_group_arn.clone(),
            ..Told::default()
        };
        return Ok((*percent, told));
    }
    Err(bad_spec("ECS-008", format!("{} shifts no requests", spec.action.kind())))
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, UNIT).await?;
    let mut memory = match crate::memory::recall::<Shifted>(cx)? {
        Some(memory) => memory,
        None => match undo::own(spec, cx)? {
            Some(crate::memory::Undo::Traffic(shifted)) => *shifted,
            _ => Shifted::default(),
        },
    };
    let result = Box::pin(work(executor, spec, cx, &mut memory, unit.log())).await;
    let result = result.map_err(|error| undo::as_left(cx, error, &undo::rules_shown(&memory.rules)));
    unit.end(result).await
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    memory: &mut Shifted,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let (percent, told) = shape(spec)?;
    let session = Session::open(executor, spec, cx, log).await?;
    let pair = match memory.pair.clone() {
        Some(pair) => pair,
        None => Box::pin(routes::pair_of(executor, &session, spec, told, log)).await?,
    };
    memory.pair = Some(pair.clone());
    let (before, after) = Box::pin(to_green(&session, spec, memory, &pair, percent, log)).await?;
    let output = StepOutput {
        outputs: [
            ("percent", json!(percent)),
            ("weights", weights(&after)),
            ("previousWeights", weights(&before)),
            ("listenerRuleArn", json!(pair.production.id())),
            ("targetGroupArn", json!(pair.green_group)),
            ("baselineTargetGroupArn", json!(pair.blue_group)),
            ("loadBalancerArn", json!(pair.balancer.arn)),
            ("serviceName", json!(pair.green)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect(),
        undo: crate::memory::Memory::undo(memory).map(|undo| undo.to_value()),
        ..StepOutput::default()
    };
    Ok(output)
}

/// Gives green so many percent of the production requests, as soon as it can answer them.
///
/// **Errors**: those of [`traffic::shift`]. **Repeat**: safe.
pub(crate) async fn to_green(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Shifted,
    pair: &Pair,
    percent: u32,
    log: &dyn UnitLog,
) -> Result<(Actions, Actions), StepError> {
    let split = Weights::split(&pair.blue_group, &pair.green_group, percent).map_err(Fault::into_step)?;
    let wanted = |now: &Actions| now.with_weights(&split);
    let needs = routes::needs(session, pair).await?;
    let left = undo::left(spec, &pair.production)?;
    let expect = left.as_ref().map_or(Expect::Anything, Expect::AsLeft);
    let done =
        Box::pin(traffic::shift::shift(session, memory, &pair.production, expect, &wanted, &needs, log))
            .await?;
    if percent == 100
        && let Some(time) = done.1.sticky()
    {
        let text = format!(
            "{} is sticky: clients that {} has answered may stay there for up to {} s more; it must not be ended before",
            pair.production,
            short(&pair.blue_group),
            time.as_secs()
        );
        session.say(log, Level::Warn, &text).await?;
    }
    Ok(done)
}

pub(crate) fn weights(actions: &Actions) -> Value {
    let weights = actions.weights().unwrap_or_default();
    weights.iter().map(|(group, weight)| (group.to_owned(), json!(weight))).collect()
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(UNIT);
    let (percent, told) = shape(spec)?;
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let pair = Box::pin(routes::pair_of(executor, &session, spec, told, log.as_ref())).await?;
    let split = Weights::split(&pair.blue_group, &pair.green_group, percent).map_err(Fault::into_step)?;
    routes::plan(&session, &[(&pair.production, &|now: &Actions| now.with_weights(&split))]).await
}
