//! `EcsBlueGreenRollback`, and the undoing of single blue-green steps (rule R25): capacity before requests, requests before
//! anything is ended (facts A9).

use super::{colours, routes, serve, swap, terminate, traffic_shift};
use crate::EcsExecutor;
use crate::memory::{Memory, Undo, recall};
use crate::scaling;
use crate::service;
use crate::session::Session;
use crate::steady;
use crate::traffic::undo::{self, Ended, Green, Restoring, Shifted};
use crate::traffic::{Actions, Expect, Fault, SavedRule, change, find, look};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::EcsSpec;
use serde_json::Value;

const UNIT: &str = "Rollback";

/// What the blue-green steps of the stage left behind.
struct Left {
    green: Green,
    rules: Vec<SavedRule>,
    emptied: Option<Ended>,
}

fn left(spec: &EcsSpec) -> Result<Option<Left>, StepError> {
    let (mut green, mut rules, mut emptied) = (None, Vec::new(), None);
    for (_, undo) in undo::earlier(spec)? {
        match undo {
            Undo::Green(found) => {
                rules.extend(found.rules.iter().cloned());
                green = Some(*found);
            }
            // A standalone shift has a rollback step of its own.
            Undo::Traffic(found) if found.pair.is_some() => {
                rules.extend(found.rules);
                emptied = found.emptied.or(emptied);
            }
            _ => {}
        }
    }
    Ok(green.map(|green| Left { green, rules: undo::combined(rules), emptied }))
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, UNIT).await?;
    let work = async {
        let Some(left) = left(spec)? else {
            unit.say(Level::Info, "no service was created in this stage: nothing to roll back").await?;
            return Ok(StepOutput { skipped: true, ..StepOutput::default() });
        };
        let session = Session::open(executor, spec, cx, unit.log()).await?;
        let mut memory: Restoring = recall(cx)?.unwrap_or_default();
        let result = Box::pin(roll_back(&session, &mut memory, &left, unit.log())).await;
        result.map_err(|error| undo::as_left(cx, error, &undo::rules_shown(&memory.rules)))?;
        let mut outputs = swap::outputs(&left.green.pair, false);
        if let Some(blue) = &left.green.pair.blue {
            let instances = steady::instances(&session, blue).await?;
            outputs.insert("instances".to_owned(), Value::from(instances).into());
        }
        Ok(StepOutput { outputs, ..StepOutput::default() })
    };
    let result = work.await;
    unit.end(result).await
}

async fn roll_back(
    session: &Session,
    memory: &mut Restoring,
    left: &Left,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let green = &left.green;
    let pair = &green.pair;
    // 1. Blue can answer again.
    if let Some(blue) = left.emptied.as_ref().or(green.blue.as_ref()) {
        let least = green.blue.as_ref().map_or(blue.snapshot.desired, |found| found.snapshot.desired);
        Box::pin(serve::bring_back(session, &blue.snapshot, least, memory, log)).await?;
        Box::pin(serve::rescale(session, &blue.scaling, &blue.snapshot.name, memory, log)).await?;
    }
    // 2. Requests go there. Each group that gets more has its healthy targets first.
    if pair.blue.is_some() {
        let needs = needs(green);
        Box::pin(traffic_shift::restore_all(session, memory, &left.rules, &needs, log)).await?;
    } else {
        Box::pin(restore_to_nobody(session, memory, &left.rules, log)).await?;
    }
    Box::pin(colours::tag(session, memory, pair.blue.as_deref(), Some(&pair.green), log)).await?;
    // 3. Green has no requests and may go.
    Box::pin(take_back(session, memory, green, pair.blue.is_none(), log)).await
}

/// Gives rules back what they did before the first service of all: nobody answered there, and no health is waited for.
async fn restore_to_nobody(
    session: &Session,
    memory: &mut Restoring,
    rules: &[SavedRule],
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    for saved in rules {
        let back = |now: &Actions| saved.restored(now);
        Box::pin(change::change(session, memory, &saved.rule, Expect::Anything, &back, log)).await?;
    }
    Ok(())
}

fn needs(green: &Green) -> Vec<(String, u32)> {
    let blue = green.blue.as_ref().map_or(1, |blue| blue.snapshot.desired);
    vec![(green.pair.blue_group.clone(), blue)]
}

/// Gives green back what it was, or ends it. The first service of all is only emptied.
async fn take_back<M: Memory>(
    session: &Session,
    memory: &M,
    green: &Green,
    first: bool,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let name = &green.pair.green;
    let Some(live) = session.service(name).await?.filter(service::is_active) else { return Ok(()) };
    let production = look::actions(session, &green.pair.production).await?;
    let groups = find::groups_of(&live);
    let shares = green.pair.blue_group == green.pair.green_group;
    if !first && !shares && find::sends_to(&production, &groups) {
        let text = format!(
            "service {name} still gets requests: {} sends {}",
            green.pair.production,
            production.shown()
        );
        return Err(Fault::Live(text).into_step());
    }
    if let Some(before) = &green.before {
        session.say(log, Level::Info, &format!("service {name} becomes what it was")).await?;
        Box::pin(serve::bring_back(session, before, before.desired, memory, log)).await?;
        Box::pin(serve::scale(session, name, before.desired, memory, log)).await?;
        if let Some(scaling) = &green.scaling {
            Box::pin(serve::rescale(session, scaling, name, memory, log)).await?;
        }
        return Ok(());
    }
    if !service::is_of_execution(session, &live) {
        let text = format!("service {name} was not made by this execution: it is left alone");
        session.tell(format!("ecs.bluegreen.foreign: {text}"));
        return session.say(log, Level::Warn, &text).await;
    }
    let scaling = scaling::read(session, name, log).await?;
    serve::unscale(session, &scaling, memory, log).await?;
    if first {
        serve::empty(session, name, memory, log).await
    } else {
        Box::pin(serve::remove(session, name, memory, log)).await.map(drop)
    }
}

/// Undoes a step that deployed green: its rules, then the service.
///
/// **Errors**: `ECS-057`: it still gets requests; those of every part. **Repeat**: safe.
pub(crate) async fn undo_green(session: &Session, green: &Green, log: &dyn UnitLog) -> Result<(), StepError> {
    let mut memory: Restoring = recall(&session.cx)?.unwrap_or_default();
    let needs = needs(green);
    if green.before.is_some() {
        // The old revision is there again before a rule sends it requests.
        Box::pin(take_back(session, &memory, green, false, log)).await?;
        return Box::pin(traffic_shift::restore_all(session, &mut memory, &green.rules, &needs, log)).await;
    }
    Box::pin(traffic_shift::restore_all(session, &mut memory, &green.rules, &needs, log)).await?;
    Box::pin(take_back(session, &memory, green, false, log)).await
}

/// Undoes a step that changed rules: an emptied service first, then the rules, then the tags.
///
/// **Errors**: `ECS-054`: somebody else changed a rule; `ECS-056`; those of every part. **Repeat**: safe.
pub(crate) async fn undo_traffic(
    session: &Session,
    shifted: &Shifted,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let mut memory: Restoring = recall(&session.cx)?.unwrap_or_default();
    if let Some(emptied) = &shifted.emptied {
        Box::pin(terminate::bring_back(session, emptied, &memory, log)).await?;
    }
    let needs = match &shifted.pair {
        Some(pair) => routes::needs(session, pair).await?,
        None => Vec::new(),
    };
    Box::pin(traffic_shift::restore_all(session, &mut memory, &shifted.rules, &needs, log)).await?;
    match &shifted.pair {
        Some(pair) if shifted.tagged => {
            Box::pin(colours::tag(session, &memory, pair.blue.as_deref(), Some(&pair.green), log)).await
        }
        _ => Ok(()),
    }
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(UNIT);
    let Some(left) = left(spec)? else { return Ok(routes::planned(String::new())) };
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let mut text = String::new();
    if let Some(blue) = &left.green.blue {
        let name = &blue.snapshot.name;
        let live = session.service(name).await?.filter(service::is_active);
        match live.as_ref().map(service::desired) {
            None => {
                text.push_str(&format!("service {name}: made again with {} tasks\n", blue.snapshot.desired))
            }
            Some(count) if count < blue.snapshot.desired => {
                text.push_str(&format!(
                    "service {name}: desiredCount: {count} → {}\n",
                    blue.snapshot.desired
                ));
            }
            Some(_) => {}
        }
    }
    for saved in &left.rules {
        text.push_str(&routes::restoring(&session, saved).await?);
    }
    let name = &left.green.pair.green;
    if session.service(name).await?.filter(service::is_active).is_some() {
        text.push_str(&match &left.green.before {
            Some(before) => format!("service {name}: becomes {} again\n", before.task_definition),
            None if left.green.pair.blue.is_none() => format!("service {name}: emptied\n"),
            None => format!("service {name}: deleted\n"),
        });
    }
    Ok(routes::planned(text))
}
