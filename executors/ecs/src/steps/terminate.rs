//! `EcsRunTask` shape 6: a service that gets no requests is drained and deleted (rule R9).

use super::{routes, serve};
use crate::EcsExecutor;
use crate::memory::{Memory, Undo, recall};
use crate::scaling::{self, Scaling};
use crate::service;
use crate::session::Session;
use crate::steady;
use crate::traffic::discover::Told;
use crate::traffic::pair::{self, Pair};
use crate::traffic::undo::{self, Ended};
use crate::traffic::{Fault, Rule, find, look, short};
use aws::document::text;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::task::{EcsAction, EcsSpec, RunTaskShape};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

const UNIT: &str = "Run Task";

/// What the step remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ending {
    /// The service and everything that makes it anew, once its end is decided.
    ended: Option<Ended>,
}

impl Memory for Ending {
    fn undo(&self) -> Option<Undo> {
        self.ended.clone().map(|ended| Undo::Terminated(Box::new(ended)))
    }
}

fn which(spec: &EcsSpec) -> Result<&str, StepError> {
    if let EcsAction::EcsRunTask { shape } = &spec.action
        && let RunTaskShape::Terminate { which } = &**shape
    {
        return Ok(which.trim());
    }
    Err(routes::wrong_step(spec))
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, UNIT).await?;
    let work = async {
        let mut memory: Ending = match recall(cx)? {
            Some(memory) => memory,
            None => match undo::own(spec, cx)? {
                Some(Undo::Terminated(ended)) => Ending { ended: Some(*ended) },
                _ => Ending::default(),
            },
        };
        let result = Box::pin(work(executor, spec, cx, &mut memory, unit.log())).await;
        let state = match &memory.ended {
            Some(ended) => {
                format!("service {} gets no requests and is left as far as it came", ended.snapshot.name)
            }
            None => "nothing was ended".to_owned(),
        };
        result.map_err(|error| undo::as_left(cx, error, &state))
    };
    let result = work.await;
    unit.end(result).await
}

/// The pair of the stage and the service that is to go. The pair is not known where a service is named that belongs to none.
async fn target(
    executor: &EcsExecutor,
    session: &Session,
    spec: &EcsSpec,
    log: &dyn UnitLog,
) -> Result<(Option<Pair>, String), StepError> {
    let which = which(spec)?;
    let colour = which.to_lowercase();
    if let Some(pair) = undo::pair(spec)? {
        let name = match colour.as_str() {
            "blue" => pair.blue.clone().unwrap_or_default(),
            "green" => pair.green.clone(),
            _ => which.to_owned(),
        };
        return Ok((Some(pair), name));
    }
    if !matches!(colour.as_str(), "blue" | "green") {
        return Ok((None, which.to_owned()));
    }
    let pair = routes::pair_of(executor, session, spec, Told::default(), log).await?;
    let name = if colour == "blue" { pair.blue.clone().unwrap_or_default() } else { pair.green.clone() };
    if name.is_empty() {
        let text = format!("which service is {colour} is not known: no step of this stage deployed it");
        return Err(Fault::NotRecorded(text).into_step());
    }
    Ok((Some(pair), name))
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    memory: &mut Ending,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let session = Session::open(executor, spec, cx, log).await?;
    let (pair, name) = Box::pin(target(executor, &session, spec, log)).await?;
    if name.is_empty() {
        session
            .say(log, Level::Info, "there was no blue service before this stage: nothing is to be ended")
            .await?;
        return Ok(output(memory, "", false));
    }
    let live = session.service(&name).await?;
    let status = live.as_ref().and_then(|live| text(live, &["status"])).unwrap_or("MISSING").to_owned();
    match live.filter(service::is_active) {
        Some(live) => {
            Box::pin(no_requests(&session, pair.as_ref(), &live, log)).await?;
            if let Some(pair) = &pair {
                let since = undo::left(spec, &pair.production)?.map(|saved| saved.at);
                Box::pin(wait_for_clients(&session, since, pair, log)).await?;
                // Meanwhile somebody may have sent requests back.
                Box::pin(no_requests(&session, Some(pair), &live, log)).await?;
            }
            if memory.ended.is_none() {
                let groups = find::groups_of(&live);
                let known = pair.as_ref().map(|pair| pair.blue_group.as_str());
                let group = known.filter(|known| groups.contains(known)).or(groups.first().copied());
                let mut ended = Box::pin(serve::as_it_is(&session, &live, group, log)).await?;
                let heirs =
                    pair.as_ref().filter(|pair| pair.blue.as_ref() == Some(&name) && !pair.green.is_empty());
                if let Some(pair) = heirs {
                    ended.handed = Box::pin(heir(&session, pair, &ended.scaling, log)).await?;
                }
                memory.ended = Some(ended);
            }
        }
        None if status == "DRAINING" => {}
        None if memory.ended.is_none() => {
            session
                .say(log, Level::Info, &format!("service {name} is {status}: nothing is to be ended"))
                .await?;
            return Ok(output(memory, &name, false));
        }
        None => {}
    }
    if let Some(ended) = memory.ended.clone() {
        if let (Some((heir, before)), Some(pair)) = (&ended.handed, &pair) {
            Box::pin(hand_over(&session, memory, &ended.scaling, heir, before, pair, log)).await?;
        }
        Box::pin(serve::unscale(&session, &ended.scaling, memory, log)).await?;
    }
    Box::pin(serve::remove(&session, &name, memory, log)).await?;
    session.say(log, Level::Info, &format!("service {name} has ended")).await?;
    Ok(output(memory, &name, true))
}

fn output(memory: &Ending, name: &str, ended: bool) -> StepOutput {
    let mut outputs = vec![("serviceName", json!(name)), ("terminated", json!(ended))];
    if let Some(ended) = &memory.ended {
        outputs.push(("taskDefinitionArn", json!(ended.snapshot.task_definition)));
        outputs.push(("desiredCount", json!(ended.snapshot.desired)));
    }
    StepOutput {
        outputs: outputs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
        undo: memory.undo().map(|undo| undo.to_value()),
        ..StepOutput::default()
    }
}

/// Refuses to end a service that a rule sends requests to. Rules for tests that did so when the deployment began are only told.
///
/// **Errors**: `ECS-057`.
async fn no_requests(
    session: &Session,
    pair: Option<&Pair>,
    live: &Value,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let groups = find::groups_of(live);
    let mut balancers: Vec<String> = pair.map(|pair| pair.balancer.arn.clone()).into_iter().collect();
    for group in &groups {
        for balancer in look::group(session, group).await?.load_balancers {
            if !balancers.contains(&balancer) {
                balancers.push(balancer);
            }
        }
    }
    let known =
        |rule: &Rule| pair.is_some_and(|pair| pair.tests.contains(rule) || pair.stage.as_ref() == Some(rule));
    let mut live_rules = Vec::new();
    for balancer in balancers {
        for found in look::rules(session, &balancer).await? {
            if !find::sends_to(&found.actions, &groups) {
                continue;
            }
            if known(&found.rule) {
                let text = format!("{} is for tests and still sends {}", found.rule, found.actions.shown());
                session.say(log, Level::Warn, &text).await?;
            } else {
                live_rules.push(format!("{} sends {}", found.rule, found.actions.shown()));
            }
        }
    }
    if live_rules.is_empty() {
        return Ok(());
    }
    let text = format!("service {} gets requests: {}", pair::name(live), live_rules.join("; "));
    Err(Fault::Live(text).into_step())
}

/// Waits until clients that are bound to the old group by a cookie are free. `since` is when its requests were taken away, epoch
/// milliseconds; not known, they are waited for in full.
pub(crate) async fn wait_for_clients(
    session: &Session,
    since: Option<u64>,
    pair: &Pair,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let Some(sticky) = look::actions(session, &pair.production).await?.sticky() else { return Ok(()) };
    let passed = since
        .map_or(Duration::ZERO, |since| Duration::from_millis(session.cx.clock.wall().saturating_sub(since)));
    let left = session.cx.rehearsed(sticky).saturating_sub(passed);
    if left.is_zero() {
        return Ok(());
    }
    let text = format!(
        "{} is sticky: {} s until clients of {} are free",
        pair.production,
        left.as_secs().max(1),
        short(&pair.blue_group)
    );
    session.say(log, Level::Info, &text).await?;
    session.pause(left, "nothing was ended yet").await
}

/// The service that takes the autoscaling over: green, unless it has one of its own.
async fn heir(
    session: &Session,
    pair: &Pair,
    scaling: &Scaling,
    log: &dyn UnitLog,
) -> Result<Option<(String, Scaling)>, StepError> {
    if scaling.target.is_none() {
        return Ok(None);
    }
    let own = scaling::read(session, &pair.green, log).await?;
    Ok(own.target.is_none().then(|| (pair.green.clone(), own)))
}

/// Gives the autoscaling of the service that goes to the one that stays.
async fn hand_over(
    session: &Session,
    memory: &Ending,
    scaling: &Scaling,
    heir: &str,
    before: &Scaling,
    pair: &Pair,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let old = scaling.resource.rsplit('/').next().unwrap_or_default();
    let text = format!("autoscaling of {old} is given to {heir}, which takes its place");
    session.say(log, Level::Info, &text).await?;
    let mine = inherited(scaling, old, heir, pair);
    let live = scaling::read(session, heir, log).await?;
    Box::pin(scaling::restore(
        session,
        &mine,
        &Scaling { resource: before.resource.clone(), ..live },
        &[],
        false,
        memory,
        log,
    ))
    .await
}

/// The autoscaling of one service for another: names of the service and of its target group are exchanged wherever they stand.
fn inherited(scaling: &Scaling, old: &str, new: &str, pair: &Pair) -> Scaling {
    let path = |arn: &str| arn.split_once(":targetgroup/").map(|(_, rest)| format!("targetgroup/{rest}"));
    let groups = path(&pair.blue_group).zip(path(&pair.green_group));
    let own = |value: &Value| {
        let mut value = exchanged(value, old, new, groups.as_ref());
        if let Some(members) = value.as_object_mut() {
            for name in ["ServiceNamespace", "ResourceId", "ScalableDimension"] {
                members.shift_remove(name);
            }
        }
        value
    };
    Scaling {
        target: scaling.target.as_ref().map(own),
        policies: scaling.policies.iter().map(own).collect(),
        actions: scaling.actions.iter().map(own).collect(),
        ..Scaling::default()
    }
}

fn exchanged(value: &Value, old: &str, new: &str, groups: Option<&(String, String)>) -> Value {
    let go = |value: &Value| exchanged(value, old, new, groups);
    match value {
        Value::Object(members) => {
            let named = |name: &str| members.get("Name").and_then(Value::as_str) == Some(name);
            let change = |(name, member): (&String, &Value)| {
                // `{"Name": "ServiceName", "Value": "web"}` of a metric's dimensions.
                let own = name == "Value" && named("ServiceName") && member.as_str() == Some(old);
                (name.clone(), if own { json!(new) } else { go(member) })
            };
            Value::Object(members.iter().map(change).collect())
        }
        Value::Array(entries) => entries.iter().map(go).collect(),
        Value::String(text) => match groups {
            // `app/web/50dc/targetgroup/blue/1` of ALBRequestCountPerTarget.
            Some((blue, green)) if text.ends_with(blue.as_str()) => json!(text.replace(blue.as_str(), green)),
            _ => value.clone(),
        },
        leaf => leaf.clone(),
    }
}

/// Makes a service again that the step ended, and waits until it can answer requests; its autoscaling comes back.
///
/// **Errors**: those of every part. **Cancel**: in the waits. **Repeat**: safe.
pub(crate) async fn bring_back<M: Memory>(
    session: &Session,
    ended: &Ended,
    memory: &M,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    let name = &ended.snapshot.name;
    if session.service(name).await?.and_then(|live| text(&live, &["status"]).map(str::to_owned)).as_deref()
        == Some("DRAINING")
    {
        steady::wait_inactive(session, name, log).await?;
    }
    Box::pin(serve::bring_back(session, &ended.snapshot, ended.snapshot.desired, memory, log)).await?;
    if let Some(group) = &ended.group {
        let group = look::group(session, group).await?;
        let state = format!("service {name} runs again and gets no requests yet");
        // A group that no rule names any more is checked once the rules are back.
        if !group.load_balancers.is_empty() {
            let least = ended.snapshot.desired.max(1);
            crate::traffic::health::wait_healthy(session, &group, least, &state, log).await?;
        }
    }
    if let Some((heir, before)) = &ended.handed
        && before.target.is_none()
    {
        let live = scaling::read(session, heir, log).await?;
        Box::pin(serve::unscale(session, &live, memory, log)).await?;
    }
    Box::pin(serve::rescale(session, &ended.scaling, name, memory, log)).await
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(UNIT);
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let (pair, name) = Box::pin(target(executor, &session, spec, log.as_ref())).await?;
    let live = match name.is_empty() {
        true => None,
        false => session.service(&name).await?.filter(service::is_active),
    };
    let Some(live) = live else { return Ok(routes::planned(String::new())) };
    Box::pin(no_requests(&session, pair.as_ref(), &live, log.as_ref())).await?;
    let document = crate::changes::sorted(&service::described(&live, None));
    let before = serde_json::to_string_pretty(&document).unwrap_or_default();
    Ok(routes::planned(routes::difference(&format!("service {name}"), &before, "")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::look::Balancer;

    #[test]
    fn autoscaling_is_handed_over_with_the_names_of_the_heir() {
        let arn = |name: &str| format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{name}/1");
        let pair = Pair {
            blue: Some("web".into()),
            green: "web-green".into(),
            blue_group: arn("blue"),
            green_group: arn("green"),
            production: Rule::default_of("listener"),
            stage: None,
            tests: Vec::new(),
            balancer: Balancer { arn: "lb".into(), name: "lb".into() },
        };
        let scaling = Scaling {
            resource: "service/prod/web".into(),
            target: Some(json!({"ResourceId": "service/prod/web", "MinCapacity": 2, "MaxCapacity": 9})),
            policies: vec![json!({"PolicyName": "web", "ResourceId": "service/prod/web", "P": {
                "ResourceLabel": "app/web/50dc/targetgroup/blue/1",
                "Dimensions": [{"Name": "ServiceName", "Value": "web"}, {"Name": "Other", "Value": "web"}]}})],
            ..Scaling::default()
        };
        let heir = inherited(&scaling, "web", "web-green", &pair);
        assert_eq!(heir.target, Some(json!({"MinCapacity": 2, "MaxCapacity": 9})));
        assert_eq!(
            heir.policies,
            [json!({"PolicyName": "web", "P": {"ResourceLabel": "app/web/50dc/targetgroup/green/1",
                "Dimensions": [{"Name": "ServiceName", "Value": "web-green"}, {"Name": "Other", "Value": "web"}]}})]
        );
    }
}
