//! `EcsRunTask` shape 4 with a service name: the revision runs as a service beside the live one (rule R9, settled facts §3.5
//! and §3.6).
//!
//! Which of the two names is green follows from where production requests go: a pipeline that runs a second time deploys the
//! other one.

use super::beside::{self, Deployment};
use super::{blue_green, routes, stage};
use crate::EcsExecutor;
use crate::documents::{Loaded, Reader};
use crate::memory::Memory;
use crate::service;
use crate::session::Session;
use crate::task_definition::{self, Source};
use crate::traffic::pair;
use crate::traffic::undo;
use crate::traffic::{Fault, discover, find, look};
use aws::document::{list, text, whole};
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, Unit, UnitLog};
use proto::result::Output;
use proto::task::{EcsAction, EcsDocument, EcsSpec, RunTaskShape};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FETCH: &str = "Fetch Manifests";
const RUN: &str = "Run Task";

/// What the step is told.
struct Told<'a> {
    document: &'a EcsDocument,
    service: &'a str,
    launch_type: Option<&'a str>,
    network: Option<&'a Value>,
    count: Option<u32>,
    group: Option<&'a str>,
}

fn told(spec: &EcsSpec) -> Result<Told<'_>, StepError> {
    if let EcsAction::EcsRunTask { shape } = &spec.action
        && let RunTaskShape::Green {
            document,
            service,
            launch_type,
            network_configuration,
            desired_count,
            target_group_arn,
        } = &**shape
    {
        return Ok(Told {
            document,
            service: service.trim(),
            launch_type: launch_type.as_deref(),
            network: network_configuration.as_ref(),
            count: *desired_count,
            group: target_group_arn.as_deref(),
        });
    }
    Err(routes::wrong_step(spec))
}

/// Runs the step.
pub(crate) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, FETCH).await?;
    let fetched = async {
        let mut memory = Deployment::begin(spec, cx)?;
        let session = Session::open(executor, spec, cx, unit.log()).await?;
        Box::pin(prepare(executor, &session, spec, &mut memory, unit.log())).await?;
        Ok((session, memory))
    };
    let fetched = fetched.await.map_err(|error| undo::as_left(cx, error, "nothing was changed"));
    let (session, mut memory) = unit.end(fetched).await?;
    let unit = Unit::begin(cx, RUN).await?;
    let result = Box::pin(deploy(&session, spec, &mut memory, unit.log())).await;
    let result = result.map_err(|error| undo::as_left(cx, error, &memory.state()));
    unit.end(result).await
}

/// Decides everything, unless it was decided before. Changes nothing.
async fn prepare(
    executor: &EcsExecutor,
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Deployment,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    if memory.green.is_some() && !memory.document.is_null() {
        return Ok(());
    }
    let told = told(spec)?;
    let reader = Reader { executor, spec, cx: &session.cx, log };
    memory.source = Box::pin(Source::load(
        &reader,
        spec.current_task_definition.as_deref(),
        spec.definitions.task.as_ref(),
        Some(told.document),
    ))
    .await?;
    let definition = stage::service(executor, spec, &session.cx, log).await?;
    let other = stage::name(definition.as_ref());
    let names: Vec<&str> = [Some(told.service), other].into_iter().flatten().collect();
    let live =
        session.services(&names).await.map_err(|fault| session.fault(fault, "look at the two services"))?;
    // What an earlier attempt decided and changed is gone on with.
    let decided = memory.green.as_ref().map(|green| green.pair.clone());
    let (pair, join) = match decided {
        Some(pair) => {
            let group = look::group(session, &pair.green_group).await?;
            (pair, group.load_balancers.is_empty())
        }
        None => {
            let declared =
                definition.as_ref().map(|definition| find::groups_of(&definition.value)).unwrap_or_default();
            let routes = beside::told(spec, told.group);
            let found =
                Box::pin(discover::for_green(session, &routes, told.service, other, &live, &declared))
                    .await?;
            for warning in &found.warnings {
                session.say(log, Level::Warn, warning).await?;
                session.tell(format!("ecs.bluegreen.routes: {warning}"));
            }
            (found.pair, found.unattached)
        }
    };
    describe(session, &pair, told.service, log).await?;
    let blue = blue_green::blue(&pair, &live);
    let document = Box::pin(document(session, &pair, blue, definition.as_ref(), &told, log)).await?;
    let written = service::written_count(&document);
    memory.count = told.count.or(blue.map(service::desired)).or(written).unwrap_or(1);
    memory.document = document;
    memory.join = join;
    if memory.green.is_none() {
        memory.green = Some(Box::pin(blue_green::record(session, &pair, &live, None, log)).await?);
    }
    Ok(())
}

async fn describe(
    session: &Session,
    pair: &pair::Pair,
    named: &str,
    log: &dyn UnitLog,
) -> Result<(), StepError> {
    use crate::traffic::short;
    let blue = match &pair.blue {
        Some(blue) => format!("blue is {blue} ({})", short(&pair.blue_group)),
        None => format!("nobody is blue yet ({})", short(&pair.blue_group)),
    };
    let text = format!(
        "{blue}, green is {} ({}); production: {}",
        pair.green,
        short(&pair.green_group),
        pair.production
    );
    session.say(log, Level::Info, &text).await?;
    if pair.green != named {
        let text = format!(
            "ecs.bluegreen.turned: service {named} gets the production requests already, so {} is deployed as green",
            pair.green
        );
        session.say(log, Level::Warn, &text).await?;
        session.tell(text);
    }
    Ok(())
}

/// Input of CreateService for green: what blue has, else the service definition of the stage, with what the step says.
async fn document(
    session: &Session,
    pair: &pair::Pair,
    blue: Option<&Value>,
    definition: Option<&Loaded>,
    told: &Told<'_>,
    log: &dyn UnitLog,
) -> Result<Value, StepError> {
    let base = match (blue, definition) {
        (Some(live), _) => {
            service::check::controlled_by_ecs(pair::name(live), live)?;
            let revision = service::revision(session, live).await?;
            service::described(live, revision.as_ref())
        }
        (None, Some(definition)) => definition.value.clone(),
        (None, None) => {
            let text = format!(
                "service {} is made for the first time, and the stage has no service definition",
                pair.green
            );
            return Err(Fault::Unfit(text).into_step());
        }
    };
    let (document, warnings) = green_document(&base, pair, told).map_err(Fault::into_step)?;
    for warning in warnings {
        session.say(log, Level::Warn, &warning).await?;
        session.tell(format!("ecs.bluegreen.service: {warning}"));
    }
    Ok(document)
}

/// What green does not take over from blue, because other callers would reach it that way before it is verified.
const OTHER_WAYS: [&str; 3] =
    ["serviceRegistries", "serviceConnectConfiguration", "vpcLatticeConfigurations"];

/// Pure part of [`document`].
fn green_document(base: &Value, pair: &pair::Pair, told: &Told<'_>) -> Result<(Value, Vec<String>), Fault> {
    let mut out = base.as_object().cloned().unwrap_or_default();
    let mut warnings = Vec::new();
    let entries = list(base, &["loadBalancers"]);
    let of_blue = |entry: &&Value| text(entry, &["targetGroupArn"]) == Some(&pair.blue_group);
    let entry = entries.iter().find(of_blue).or(match entries {
        [one] => Some(one),
        _ => None,
    });
    let container = entry.and_then(|entry| text(entry, &["containerName"]));
    let port = entry.and_then(|entry| whole(entry, &["containerPort"]));
    let (Some(container), Some(port)) = (container, port) else {
        return Err(Fault::Unfit(format!(
            "neither blue nor the service definition says which container of {} takes the requests",
            pair.green
        )));
    };
    out.insert(
        "loadBalancers".to_owned(),
        json!([{"targetGroupArn": pair.green_group, "containerName": container, "containerPort": port}]),
    );
    out.insert("serviceName".to_owned(), json!(pair.green));
    for name in OTHER_WAYS {
        let empty = |value: &Value| {
            value.as_array().is_some_and(Vec::is_empty) || value.get("enabled") == Some(&json!(false))
        };
        if out.shift_remove(name).is_some_and(|value| !empty(&value)) {
            warnings.push(format!(
                "{name} of blue is not given to green: callers would reach green that way at once"
            ));
        }
    }
    if let Some(kind) = told.launch_type {
        out.shift_remove("capacityProviderStrategy");
        out.insert("launchType".to_owned(), json!(kind));
    }
    if let Some(network) = told.network {
        out.insert("networkConfiguration".to_owned(), network.clone());
    }
    if let Some(tags) = out.get_mut("tags").and_then(Value::as_array_mut) {
        tags.retain(|tag| !text(tag, &["key"]).unwrap_or_default().starts_with("delegate:"));
    }
    if out.get("tags").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        out.shift_remove("tags");
    }
    Ok((Value::Object(out), warnings))
}

async fn deploy(
    session: &Session,
    spec: &EcsSpec,
    memory: &mut Deployment,
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    let wanted =
        Box::pin(task_definition::wanted(session, &memory.source, &[], session.cx.task.artifact.as_ref()))
            .await?;
    service::check::consistent(&memory.document, &wanted.document, "the green service")?;
    wanted.fits_fargate(service::check::on_fargate(&memory.document), "the green service")?;
    Box::pin(routes::preflight(session, &memory.document, &wanted.document, memory.count, log)).await?;
    let done = Box::pin(beside::deploy(session, spec, memory, &wanted, log)).await?;
    let arn = &done.settled.arn;
    let revision = arn.rsplit(':').next().and_then(|text| text.parse::<u64>().ok());
    let container = list(&memory.document, &["loadBalancers"]).first();
    let container = container.and_then(|entry| text(entry, &["containerName"]));
    let image = done.settled.images.iter().find(|(name, _)| Some(name.as_str()) == container);
    let outputs: BTreeMap<String, Output> = [
        ("taskDefinition", json!(done.settled.document)),
        ("taskDefinitionArn", json!(arn)),
        ("revision", json!(revision)),
        ("image", json!(image.or(done.settled.images.first()).map(|(_, image)| image))),
        ("serviceName", json!(done.pair.green)),
        ("targetGroupArn", json!(done.pair.green_group)),
        ("baselineTargetGroupArn", json!(done.pair.blue_group)),
        ("loadBalancerArn", json!(done.pair.balancer.arn)),
        ("listenerRuleArn", json!(done.pair.production.id())),
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
    Box::pin(prepare(executor, &session, spec, &mut memory, log.as_ref())).await?;
    Box::pin(routes::plan_beside(&session, &memory)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Rule, look::Balancer};

    fn pair() -> pair::Pair {
        pair::Pair {
            blue: Some("web".into()),
            green: "web-green".into(),
            blue_group: "tg-blue".into(),
            green_group: "tg-green".into(),
            production: Rule::default_of("listener"),
            stage: None,
            tests: Vec::new(),
            balancer: Balancer { arn: "lb".into(), name: "lb".into() },
        }
    }

    fn told<'a>(document: &'a EcsDocument, network: Option<&'a Value>) -> Told<'a> {
        Told {
            document,
            service: "web-green",
            launch_type: Some("FARGATE"),
            network,
            count: None,
            group: None,
        }
    }

    #[test]
    fn green_is_made_as_blue_is_but_reached_by_its_own_group_only() {
        let base = json!({"serviceName": "web", "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}],
            "loadBalancers": [{"targetGroupArn": "other", "containerName": "x", "containerPort": 1},
                {"targetGroupArn": "tg-blue", "containerName": "app", "containerPort": 8080}],
            "serviceRegistries": [{"registryArn": "arn"}], "vpcLatticeConfigurations": [],
            "healthCheckGracePeriodSeconds": 60,
            "tags": [{"key": "team", "value": "a"}, {"key": "delegate:execution", "value": "old"}]});
        let document = EcsDocument::Value { place: String::new(), value: Value::Null };
        let network = json!({"awsvpcConfiguration": {"subnets": ["green"]}});
        let (made, warnings) = green_document(&base, &pair(), &told(&document, Some(&network))).unwrap();
        assert_eq!(
            made,
            json!({"serviceName": "web-green", "launchType": "FARGATE", "networkConfiguration": network,
                "loadBalancers": [{"targetGroupArn": "tg-green", "containerName": "app", "containerPort": 8080}],
                "healthCheckGracePeriodSeconds": 60, "tags": [{"key": "team", "value": "a"}]})
        );
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("serviceRegistries"), "{warnings:?}");
        assert!(green_document(&json!({}), &pair(), &told(&document, None)).is_err());
    }
}
