//! `EcsBlueGreenSwapTargetGroups`: production and stage exchange their target groups, then the old service is emptied.

use super::traffic_shift::{begin, created, named};
use super::{colours, routes, serve, terminate};
use crate::EcsExecutor;
use crate::documents::{Kind, Reader};
use crate::memory::{Memory, Undo};
use crate::scaling;
use crate::service;
use crate::session::Session;
use crate::steady;
use crate::traffic::pair::Pair;
use crate::traffic::undo::{self, Shifted};
use crate::traffic::{self, Actions, Expect, Fault, look};
use executor_api::{Class, Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::result::Output;
use proto::task::{EcsAction, EcsSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const UNIT: &str = "Swap Target Group";

fn told(spec: &EcsSpec) -> Result<(bool, Duration), StepError> {
    match &spec.action {
        EcsAction::EcsBlueGreenSwapTargetGroups {
            do_not_downsize_old_service,
            downsize_old_service_delay_ms,
        } => Ok((!do_not_downsize_old_service, Duration::from_millis(*downsize_old_service_delay_ms))),
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
    let result = match begin(spec, cx) {
        Ok(mut memory) => {
            let result = Box::pin(work(executor, spec, cx, &mut memory, unit.log())).await;
            result.map_err(|error| undo::as_left(cx, error, &undo::rules_shown(&memory.rules)))
        }
        Err(error) => Err(error),
    };
    unit.end(result).await
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    memory: &mut Shifted,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let (downsize, delay) = told(spec)?;
    let pair = created(spec)?;
    let session = Session::open(executor, spec, cx, log).await?;
    memory.pair = Some(pair.clone());
    if scaling_begins_now(spec)? {
        Box::pin(scale_by_itself(executor, &session, spec, memory, &pair, log)).await?;
    }
    Box::pin(exchange(&session, spec, memory, &pair, log)).await?;
    let instances = Box::pin(settle(&session, memory, &pair, downsize.then_some(delay), log)).await;
    let instances = instances.map_err(|error| exchanged_already(error, memory))?;
    let mut outputs = outputs(&pair, true);
    outputs.insert("instances".to_owned(), Value::from(instances).into());
    Ok(StepOutput { outputs, undo: memory.undo().map(|undo| undo.to_value()), ..StepOutput::default() })
}

/// What follows the exchange: colours, and with `delay` the end of the old service's tasks. Returns the tasks of the new one.
async fn settle(
    session: &Session,
    memory: &mut Shifted,
    pair: &Pair,
    delay: Option<Duration>,
    log: &dyn UnitLog,
) -> Result<Vec<Value>, StepError> {
    memory.tagged = true;
    Box::pin(colours::tag(session, memory, Some(&pair.green), pair.blue.as_deref(), log)).await?;
    if let (Some(blue), Some(delay)) = (&pair.blue, delay) {
        Box::pin(empty(session, memory, pair, blue, delay, log)).await?;
    }
    steady::instances(session, &pair.green).await
}

/// An error after the exchange says that requests go elsewhere already; what ends a step on request is told by
/// [`undo::as_left`].
fn exchanged_already(mut error: StepError, memory: &Shifted) -> StepError {
    if !matches!(error.class, Class::Cancelled { .. }) {
        for saved in &memory.rules {
            let rule = saved.rule.to_string();
            if !error.what.contains(&rule) {
                error.what.push_str(&format!("; {rule} sends {} already", saved.left.shown()));
            }
        }
    }
    error
}

/// Whether the create-service step left green's autoscaling to this one.
fn scaling_begins_now(spec: &EcsSpec) -> Result<bool, StepError> {
    let all = undo::earlier(spec)?;
    Ok(all.iter().any(|(_, undo)| matches!(undo, Undo::Green(green) if green.scaling_later)))
}

async fn scale_by_itself(
    executor: &EcsExecutor,
    session: &Session,
    spec: &EcsSpec,
    memory: &Shifted,
    pair: &Pair,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let reader = Reader { executor, spec, cx: &session.cx, log };
    let (mut targets, mut policies) = (Vec::new(), Vec::new());
    for document in &spec.definitions.scalable_targets {
        let all = reader.load_all(Kind::ScalableTarget, document).await?;
        targets.extend(all.into_iter().map(|one| (one.value, one.place)));
    }
    for document in &spec.definitions.scaling_policies {
        let all = reader.load_all(Kind::ScalingPolicy, document).await?;
        policies.extend(all.into_iter().map(|one| (one.value, one.place)));
    }
    let wanted = scaling::Wanted::of(&targets, &policies)?;
    if wanted.is_empty() {
        return Ok(());
    }
    let live = scaling::read(session, &pair.green, log).await?;
    scaling::apply(session, &live, &wanted, memory, log).await
}

/// Outcome of a swap and of its rollback (facts A0).
pub(crate) fn outputs(pair: &Pair, shifted: bool) -> BTreeMap<String, Output> {
    let stage = pair.stage.as_ref();
    [
        ("loadBalancer", json!(pair.balancer.name)),
        ("prodListenerArn", json!(pair.production.listener)),
        ("prodListenerRuleArn", json!(pair.production.arn)),
        ("prodTargetGroupArn", json!(pair.blue_group)),
        ("stageListenerArn", json!(stage.map(|rule| &rule.listener))),
        ("stageListenerRuleArn", json!(stage.and_then(|rule| rule.arn.as_ref()))),
        ("stageTargetGroupArn", json!(pair.green_group)),
        ("trafficShifted", json!(shifted)),
        ("isFirstDeployment", json!(pair.blue.is_none())),
    ]
    .map(named)
    .into()
}

/// Production first, then the stage. When the second change fails, the first is taken back.
async fn exchange(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Shifted,
    pair: &Pair,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if pair.blue_group == pair.green_group {
        return session.say(log, Level::Info, "both services share one target group: no rule changes").await;
    }
    // Decided once: an exchange that is done twice is none.
    if memory.planned.is_empty() {
        for rule in [Some(&pair.production), pair.stage.as_ref()].into_iter().flatten() {
            let now = look::actions(session, rule).await?;
            check(&now, rule, pair)?;
            let next = now.exchanged(&pair.blue_group, &pair.green_group).map_err(Fault::into_step)?;
            memory.planned.push((rule.clone(), next));
        }
    }
    let needs = routes::needs(session, pair).await?;
    for (rule, next) in memory.planned.clone() {
        let wanted = |_: &Actions| Ok(next.clone());
        if rule == pair.production {
            let left = undo::left(spec, &rule)?;
            let expect = left.as_ref().map_or(Expect::Anything, Expect::AsLeft);
            Box::pin(traffic::shift::shift(session, memory, &rule, expect, &wanted, &needs, log)).await?;
            continue;
        }
        let changed =
            Box::pin(traffic::change::change(session, memory, &rule, Expect::Anything, &wanted, log)).await;
        if let Err(error) = changed {
            return Err(Box::pin(taken_back(session, memory, pair, error, log)).await);
        }
    }
    Ok(())
}

/// Refuses a rule that does not send to the pair: what was decided when green was made holds no longer.
fn check(now: &Actions, rule: &traffic::Rule, pair: &Pair) -> Result<(), StepError> {
    let weights = now.weights().map_err(Fault::into_step)?;
    if weights.of(&pair.blue_group) + weights.of(&pair.green_group) > 0 {
        return Ok(());
    }
    let fault = Fault::Changed {
        rule: rule.clone(),
        now: now.shown(),
        left: format!("{} or {}", traffic::short(&pair.blue_group), traffic::short(&pair.green_group)),
    };
    Err(fault.into_step())
}

/// The error of the second change, after the first was taken back.
async fn taken_back(
    session: &Session,
    memory: &mut Shifted,
    pair: &Pair,
    mut error: StepError,
    log: &dyn UnitLog,
) -> StepError {
    if matches!(error.class, Class::Cancelled { .. }) {
        return error;
    }
    let Some(saved) = memory.rules.iter().find(|saved| saved.rule == pair.production).cloned() else {
        return error;
    };
    let back = |now: &Actions| saved.restored(now);
    let session = session.finishing();
    match Box::pin(traffic::change::change(&session, memory, &saved.rule, Expect::Anything, &back, log)).await
    {
        Ok(_) => {
            error.what.push_str(&format!("; {} was put back: it sends {}", saved.rule, saved.saved.shown()))
        }
        Err(second) => error.what.push_str(&format!(
            "; {} sends {} and could not be put back: {}",
            saved.rule,
            saved.left.shown(),
            second.what
        )),
    }
    error
}

/// Empties the old service after a while, with its autoscaling suspended so that it stays empty.
async fn empty(
    session: &Session,
    memory: &mut Shifted,
    pair: &Pair,
    blue: &str,
    delay: Duration,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let Some(live) = session.service(blue).await?.filter(service::is_active) else { return Ok(()) };
    if memory.emptied.is_none() {
        let delay = session.cx.rehearsed(delay);
        if !delay.is_zero() {
            session
                .say(log, Level::Info, &format!("{blue} keeps its tasks for {} s", delay.as_secs()))
                .await?;
            session.pause(delay, &format!("service {blue} still has its tasks")).await?;
        }
        let changed = memory.rules.iter().find(|saved| saved.rule == pair.production);
        let since = changed.map(|saved| saved.at);
        terminate::wait_for_clients(session, since, pair, log).await?;
        memory.emptied = Some(serve::as_it_is(session, &live, Some(&pair.blue_group), log).await?);
    }
    let actions = look::actions(session, &pair.production).await?;
    if pair.blue_group != pair.green_group && traffic::find::sends_to(&actions, &[&pair.blue_group]) {
        let text =
            format!("service {blue} gets requests again: {} sends {}", pair.production, actions.shown());
        return Err(Fault::Live(text).into_step());
    }
    if let Some(emptied) = memory.emptied.clone() {
        serve::freeze(session, &emptied.scaling, memory, log).await?;
    }
    serve::empty(session, blue, memory, log).await
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(UNIT);
    let (downsize, _) = told(spec)?;
    let pair = created(spec)?;
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let exchanged = |now: &Actions| now.exchanged(&pair.blue_group, &pair.green_group);
    let mut text = String::new();
    if pair.blue_group != pair.green_group {
        for rule in [Some(&pair.production), pair.stage.as_ref()].into_iter().flatten() {
            text.push_str(&routes::changed(&session, rule, &exchanged).await?);
        }
    }
    if let Some(blue) = pair.blue.as_deref().filter(|_| downsize) {
        let live = session.service(blue).await?.filter(service::is_active);
        if let Some(count) = live.as_ref().map(service::desired).filter(|count| *count > 0) {
            text.push_str(&format!("service {blue}: desiredCount: {count} → 0\n"));
        }
    }
    Ok(routes::planned(text))
}
