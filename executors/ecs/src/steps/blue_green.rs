//! `EcsBlueGreenCreateService`: the revision runs as the other service of the pair `<name>__1`, `<name>__2` (facts A9).

use super::beside::{self, Deployment};
use super::{colours, fetched, routes, serve, stage};
use crate::EcsExecutor;
use crate::documents::{Kind, Reader};
use crate::error::bad_spec;
use crate::memory::Memory;
use crate::scaling;
use crate::service::{self, count::Known};
use crate::session::Session;
use crate::task_definition::{self, Source};
use crate::traffic::pair::{self, Colours, Pair};
use crate::traffic::undo::{self, Green};
use crate::traffic::{Actions, Fault, discover, look, short};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::result::Output;
use proto::task::{BlueGreenRoutes, EcsAction, EcsSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FETCH: &str = "Fetch Manifests";
const PREPARE: &str = "Prepare Rollback Data";
const DEPLOY: &str = "Deploy";
/// What a service definition writes where the target group of the stage goes.
const PLACEHOLDER: &str = "<+targetGroupArn>";

/// What the step is told.
struct Told<'a> {
    routes: &'a BlueGreenRoutes,
    same: bool,
    scaling_later: bool,
    update: bool,
    by_weights: bool,
}

fn told(spec: &EcsSpec) -> Result<Told<'_>, StepError> {
    match &spec.action {
        EcsAction::EcsBlueGreenCreateService {
            routes,
            same_as_already_running_instances,
            enable_auto_scaling_in_swap_step,
            update_green_service,
            traffic_shift,
        } => Ok(Told {
            routes,
            same: *same_as_already_running_instances,
            scaling_later: *enable_auto_scaling_in_swap_step,
            update: *update_green_service,
            by_weights: *traffic_shift,
        }),
        _ => Err(routes::wrong_step(spec)),
    }
}

/// Documents of the stage.
struct Fetched {
    name: String,
    document: Value,
    place: String,
    scaling: scaling::Wanted,
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let nothing = |error| undo::as_left(cx, error, "nothing was changed");
    let unit = Unit::begin(cx, FETCH).await?;
    let fetched = async {
        let mut memory = Deployment::begin(spec, cx)?;
        let session = Session::open(executor, spec, cx, unit.log()).await?;
        let fetched = Box::pin(fetch(executor, spec, cx, &mut memory, unit.log())).await?;
        Ok((session, memory, fetched))
    };
    let fetched = fetched.await.map_err(nothing);
    let (session, mut memory, fetched) = unit.end(fetched).await?;
    let unit = Unit::begin(cx, PREPARE).await?;
    let prepared = Box::pin(prepare(&session, spec, &fetched, &mut memory, unit.log())).await;
    unit.end(prepared.map_err(nothing)).await?;
    let unit = Unit::begin(cx, DEPLOY).await?;
    let result = Box::pin(deploy(&session, spec, &fetched, &mut memory, unit.log())).await;
    let result = result.map_err(|error| undo::as_left(cx, error, &memory.state()));
    unit.end(result).await
}

async fn fetch(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    memory: &mut Deployment,
    log: &dyn UnitLog,
) -> Result<Fetched, StepError> {
    let reader = Reader { executor, spec, cx, log };
    let document = spec.definitions.service.as_ref().ok_or_else(stage::no_service)?;
    let loaded = reader.load(Kind::Service, document).await?;
    let name = service::check::name(&loaded.value, &loaded.place)?.to_owned();
    let scaling = fetched::Fetched::of_scaling(&reader).await?.scaling()?;
    if memory.document.is_null() {
        let current = spec.current_task_definition.as_deref();
        memory.source =
            Box::pin(Source::load(&reader, current, spec.definitions.task.as_ref(), None)).await?;
    }
    Ok(Fetched { name, document: loaded.value, place: loaded.place, scaling })
}

/// Decides everything, unless it was decided before. Changes nothing.
async fn prepare(
    session: &Session,
    spec: &EcsSpec,
    fetched: &Fetched,
    memory: &mut Deployment,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if memory.green.is_some() && !memory.document.is_null() {
        return Ok(());
    }
    let told = told(spec)?;
    let known = memory.green.as_ref().map(|green| green.pair.clone());
    let found = Box::pin(found(session, told.routes, told.by_weights, &fetched.name, known, log)).await?;
    let pair = &found.pair;
    let blue = found.blue();
    let written = service::written_count(&fetched.document);
    memory.document = filled(&fetched.document, &pair.green_group, &fetched.place)?;
    memory.count = match blue.map(service::desired) {
        Some(count) if told.same => {
            session.say(log, Level::Info, &format!("desired count {count}: as many as blue has")).await?;
            count
        }
        _ => {
            let bounds = fetched.scaling.target.as_ref().and_then(scaling::bounds);
            let count = service::count(Known { written, live: None, bounds, same: false, daemon: false });
            session.say(log, Level::Info, &count.to_string()).await?;
            count.send.or(written).unwrap_or(1)
        }
    };
    memory.replace = !told.update;
    memory.force = told.update;
    memory.join = found.join;
    memory.coloured = true;
    if memory.green.is_none() {
        let recorded = Box::pin(record(session, &found.pair, &found.live, written, log)).await?;
        let (policies, scaling_later) = (fetched.scaling.names(), told.scaling_later);
        memory.green = Some(Green { policies, scaling_later, ..recorded });
    }
    Ok(())
}

/// The two services of a pair and what sends requests to them.
pub(crate) struct Found {
    pub(crate) pair: Pair,
    pub(crate) live: Vec<Value>,
    /// No rule names green's target group yet.
    join: bool,
}

impl Found {
    fn blue(&self) -> Option<&Value> {
        blue(&self.pair, &self.live)
    }
}

/// The one of the services that is blue, while it is there.
pub(crate) fn blue<'a>(pair: &Pair, live: &'a [Value]) -> Option<&'a Value> {
    pair.blue.as_deref().and_then(|blue| pair::service_named(live, blue))
}

/// Looks at the pair of a service that nobody has decided on yet.
///
/// **Errors**: `ECS-050`, `ECS-051`, `ECS-053`, `ECS-058`; those of the account. **Repeat**: safe.
pub(crate) async fn find_pair(
    session: &Session,
    routes: &BlueGreenRoutes,
    name: &str,
    log: &dyn UnitLog,
) -> Result<Found, StepError> {
    let by_weights = routes.stage_listener.as_deref().unwrap_or_default().trim().is_empty();
    found(session, routes, by_weights, name, None, log).await
}

async fn found(
    session: &Session,
    routes: &BlueGreenRoutes,
    by_weights: bool,
    name: &str,
    known: Option<Pair>,
    log: &dyn UnitLog,
) -> Result<Found, StepError> {
    let names = pair::names(name);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let live =
        session.services(&all).await.map_err(|fault| session.fault(fault, "look at the two services"))?;
    let (pair, join, warnings) = match known {
        Some(pair) => {
            let group = look::group(session, &pair.green_group).await?;
            (pair, group.load_balancers.is_empty(), Vec::new())
        }
        None => Box::pin(decide(session, routes, by_weights, &names, &live)).await?,
    };
    for warning in warnings {
        session.say(log, Level::Warn, &warning).await?;
        session.tell(format!("ecs.bluegreen.tags: {warning}"));
    }
    let blue_text = pair.blue.as_deref().unwrap_or("nobody yet");
    let text = format!(
        "blue is {blue_text} ({}), green is {} ({}); production: {}",
        short(&pair.blue_group),
        pair.green,
        short(&pair.green_group),
        pair.production
    );
    session.say(log, Level::Info, &text).await?;
    Ok(Found { pair, live, join })
}

/// Everything that brings both services back. `written` is the count of the service definition: blue comes back with no fewer.
///
/// **Errors**: those of the account. **Repeat**: safe.
pub(crate) async fn record(
    session: &Session,
    pair: &Pair,
    live: &[Value],
    written: Option<u32>,
    log: &dyn UnitLog,
) -> Result<Green, StepError> {
    let mut green = Green {
        before: None,
        scaling: None,
        blue: None,
        rules: Vec::new(),
        policies: Vec::new(),
        scaling_later: false,
        pair: pair.clone(),
    };
    if let Some(live) = pair::service_named(live, &pair.green).filter(|live| !service::is_ours(session, live))
    {
        let was = Box::pin(serve::as_it_is(session, live, Some(&green.pair.green_group), log)).await?;
        green.before = Some(was.snapshot);
        green.scaling = Some(was.scaling);
    }
    if let Some(live) = blue(pair, live) {
        let mut was = Box::pin(serve::as_it_is(session, live, Some(&green.pair.blue_group), log)).await?;
        was.snapshot.desired = was.snapshot.desired.max(written.unwrap_or(0));
        green.blue = Some(was);
    }
    Ok(green)
}

/// Rules, groups and colours.
async fn decide(
    session: &Session,
    routes: &BlueGreenRoutes,
    by_weights: bool,
    names: &[String; 2],
    live: &[Value],
) -> Result<(Pair, bool, Vec<String>), StepError> {
    let own = |text: &Option<String>| {
        text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let balancer = look::balancer(session, routes.load_balancer.trim()).await?;
    let rule = own(&routes.prod_listener_rule_arn);
    let production = look::named(session, &balancer, routes.prod_listener.trim(), rule.as_deref()).await?;
    let actions = look::actions(session, &production).await?;
    let blue_group = actions.only_group().map_err(Fault::into_step)?;
    let stage = match own(&routes.stage_listener).filter(|_| !by_weights) {
        Some(listener) => {
            let rule = own(&routes.stage_listener_rule_arn);
            Some(look::named(session, &balancer, &listener, rule.as_deref()).await?)
        }
        None => None,
    };
    let mut warnings = Vec::new();
    let green_group = match &stage {
        Some(rule) => look::actions(session, rule).await?.only_group().map_err(Fault::into_step)?,
        None => {
            let written = own(&routes.stage_target_group_arn);
            let (group, warning) =
                other_group(&actions, &blue_group, written.as_deref()).map_err(Fault::into_step)?;
            warnings.extend(warning);
            group
        }
    };
    let Colours { blue, green, warnings: tags } =
        pair::live_colours(names, live, &blue_group, &green_group).map_err(Fault::into_step)?;
    warnings.extend(tags);
    let group = look::group(session, &green_group).await?;
    if green_group != blue_group {
        let like = look::group(session, &blue_group).await?;
        discover::fits(&group, &like, &balancer).map_err(Fault::into_step)?;
    }
    let join = group.load_balancers.is_empty();
    let pair = Pair { blue, green, blue_group, green_group, production, stage, tests: Vec::new(), balancer };
    Ok((pair, join, warnings))
}

/// The group of the stage where traffic is shifted by weights: the one that gets no production requests, whatever is written.
fn other_group(
    actions: &Actions,
    blue: &str,
    written: Option<&str>,
) -> Result<(String, Option<String>), Fault> {
    let weights = actions.weights()?;
    let others: Vec<&str> = weights.iter().map(|(group, _)| group).filter(|group| *group != blue).collect();
    match (written, others.as_slice()) {
        (Some(written), _) if written != blue => Ok((written.to_owned(), None)),
        (Some(_), [other]) => {
            let text = format!(
                "stageTargetGroupArn is {}, which gets the production requests; green goes to {}",
                short(blue),
                short(other)
            );
            Ok(((*other).to_owned(), Some(text)))
        }
        (None, [other]) => Ok(((*other).to_owned(), None)),
        (_, others) => Err(Fault::NotUnique {
            what: "the target group of the stage".to_owned(),
            found: match others {
                [] => format!("the production rule names {} only, which is live", short(blue)),
                _ => format!("the production rule sends {}", weights.shown()),
            },
            set: "`stageTargetGroupArn` of the step to the target group that gets no production requests"
                .to_owned(),
        }),
    }
}

/// The definition with the group in place of the placeholder.
///
/// **Errors**: `ECS-059`: there is none.
fn filled(document: &Value, group: &str, place: &str) -> Result<Value, StepError> {
    let mut found = 0;
    let document = replaced(document, group, &mut found);
    if found == 0 {
        let text = format!(
            "{place}: loadBalancers holds no `{PLACEHOLDER}`; the target group of the stage has no place to go"
        );
        return Err(bad_spec("ECS-059", text).hint(format!(
            "write `targetGroupArn: {PLACEHOLDER}` in `loadBalancers` of the service definition"
        )));
    }
    Ok(document)
}

fn replaced(value: &Value, group: &str, found: &mut usize) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members.iter().map(|(name, member)| (name.clone(), replaced(member, group, found))).collect(),
        ),
        Value::Array(entries) => entries.iter().map(|entry| replaced(entry, group, found)).collect(),
        Value::String(text) if text.contains(PLACEHOLDER) => {
            *found += 1;
            json!(text.replace(PLACEHOLDER, group))
        }
        leaf => leaf.clone(),
    }
}

async fn deploy(
    session: &Session,
    spec: &EcsSpec,
    fetched: &Fetched,
    memory: &mut Deployment,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let wanted =
        Box::pin(task_definition::wanted(session, &memory.source, &[], session.cx.task.artifact.as_ref()))
            .await?;
    service::check::controlled_by_ecs(&fetched.name, &memory.document)?;
    service::check::consistent(&memory.document, &wanted.document, &fetched.place)?;
    wanted.fits_fargate(service::check::on_fargate(&memory.document), &fetched.place)?;
    Box::pin(routes::preflight(session, &memory.document, &wanted.document, memory.count, log)).await?;
    let done = Box::pin(beside::deploy(session, spec, memory, &wanted, log)).await?;
    let pair = done.pair;
    // The tag of a service that is replaced goes with it; the live one's is put right, whatever it said.
    colours::tag(session, memory, pair.blue.as_deref(), Some(&pair.green), log).await?;
    let later = memory.green.as_ref().is_some_and(|green| green.scaling_later);
    if !later && !fetched.scaling.is_empty() {
        let live = scaling::read(session, &pair.green, log).await?;
        Box::pin(scaling::apply(session, &live, &fetched.scaling, memory, log)).await?;
    }
    let created = memory.green.as_ref().is_some_and(|green| green.before.is_none());
    let outputs: BTreeMap<String, Output> = [
        ("isNewServiceCreated", json!(created || memory.replace)),
        ("serviceName", json!(pair.green)),
        ("loadBalancer", json!(pair.balancer.name)),
        ("listenerArn", json!(pair.stage.as_ref().map_or(&pair.production.listener, |rule| &rule.listener))),
        ("listenerRuleArn", json!(pair.stage.as_ref().unwrap_or(&pair.production).arn)),
        ("targetGroupArn", json!(pair.green_group)),
        ("baselineTargetGroupArn", json!(pair.blue_group)),
        ("loadBalancerArn", json!(pair.balancer.arn)),
        ("taskDefinitionArn", json!(done.settled.arn)),
        ("serverInstances", json!(done.report.instances)),
    ]
    .map(|(name, value)| (name.to_owned(), value.into()))
    .into();
    Ok(StepOutput { outputs, undo: memory.undo().map(|undo| undo.to_value()), ..StepOutput::default() })
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit(FETCH);
    let session = Session::open(executor, spec, cx, log.as_ref()).await?;
    let mut memory = Deployment::default();
    let fetched = Box::pin(fetch(executor, spec, cx, &mut memory, log.as_ref())).await?;
    Box::pin(prepare(&session, spec, &fetched, &mut memory, log.as_ref())).await?;
    Box::pin(routes::plan_beside(&session, &memory)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(groups: &[(&str, u32)]) -> Actions {
        let groups: Vec<Value> =
            groups.iter().map(|(group, weight)| json!({"TargetGroupArn": group, "Weight": weight})).collect();
        Actions::new(vec![json!({"Type": "forward", "ForwardConfig": {"TargetGroups": groups}})])
    }

    #[test]
    fn the_group_of_the_stage_is_never_the_live_one() {
        let both = sends(&[("a", 100), ("b", 0)]);
        assert_eq!(other_group(&both, "a", None).unwrap(), ("b".to_owned(), None));
        assert_eq!(other_group(&both, "a", Some("b")).unwrap(), ("b".to_owned(), None));
        // Not alternated by hand: it is not deployed over what is live.
        let (group, warning) = other_group(&both, "a", Some("a")).unwrap();
        assert!(group == "b" && warning.unwrap().contains("gets the production requests"));
        let one = sends(&[("a", 1)]);
        assert_eq!(other_group(&one, "a", Some("c")).unwrap(), ("c".to_owned(), None));
        assert!(other_group(&one, "a", Some("a")).is_err());
        assert!(other_group(&one, "a", None).is_err());
    }

    #[test]
    fn the_placeholder_is_filled_and_its_lack_is_told() {
        let document =
            json!({"loadBalancers": [{"targetGroupArn": "<+targetGroupArn>", "containerName": "app"}]});
        assert_eq!(
            filled(&document, "tg", "x").unwrap(),
            json!({"loadBalancers": [{"targetGroupArn": "tg", "containerName": "app"}]})
        );
        assert_eq!(filled(&json!({"loadBalancers": []}), "tg", "x").unwrap_err().code, "ECS-059");
    }
}
