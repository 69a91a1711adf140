//! `K8sCanaryDelete`: the canary of the stage goes.
//!
//! What to delete comes from the outcome of the canary step, from its undo data when it was aborted, and from the labels
//! of the release, so that a canary of which nobody wrote anything down is found too. Traffic leaves first.

use super::copies::{CONFIGURATION, GUARDS, Live, ROUTES, SERVICES, WORKLOADS, planned};
use super::routes;
use crate::KubeExecutor;
use crate::canary::{self, SUFFIX, TRACK};
use crate::error::bad_spec;
use crate::objects::{Mask, Reference, diff};
use crate::session::Session;
use crate::traffic;
use executor_api::Unit;
use executor_api::{Level, Plan, StepContext, StepError, StepOutput, UnitLog};
use proto::task::{KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What there is of a canary.
struct Found {
    /// In the order of deletion.
    objects: Vec<Live>,
    /// Its Services.
    services: Vec<String>,
    /// Routes that send requests to them, with the patch that ends that.
    routes: Vec<(Live, Value)>,
}

/// References in the outcome and in the undo data: single ones, or lists with commas.
fn named(spec: &KubernetesSpec, cx: &StepContext) -> Result<Vec<String>, StepError> {
    let KubernetesAction::K8sCanaryDelete { workloads } = &spec.action else {
        return Err(bad_spec("KUBE-001", format!("{} deletes no canary", spec.action.kind())));
    };
    let undo = cx.task.undo.as_ref().and_then(|undo| undo.get("canaryWorkload")?.as_str());
    let texts = workloads.iter().map(String::as_str).chain(undo);
    let refs = texts.flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty());
    Ok(refs.map(str::to_owned).collect())
}

async fn find(session: &Session, spec: &KubernetesSpec, log: &dyn UnitLog) -> Result<Found, StepError> {
    let kinds: Vec<(&str, &str)> = [&GUARDS[..], &WORKLOADS, &SERVICES, &CONFIGURATION].concat();
    let mut objects = session.labelled(&kinds, &[(TRACK, SUFFIX)], log).await?;
    let known: BTreeSet<Reference> = objects.iter().map(|live| live.object.reference()).collect();
    for text in named(spec, &session.cx)? {
        let reference = session.parse_reference(&text)?;
        if known.contains(&reference) {
            continue;
        }
        if !canary::is_canary_name(&reference.name) {
            session.say(log, Level::Warn, &format!("{reference} is no canary by its name: it stays")).await?;
            continue;
        }
        let Some(path) = session.path_of(&reference) else { continue };
        let what = format!("read {reference}");
        let found: Option<Value> =
            session.api.find(&path).await.map_err(|f| f.step(&what, &session.api.target))?;
        match found.and_then(|value| crate::objects::Object::new(value, "the cluster").ok()) {
            Some(object) => objects.push(Live { object, path }),
            None => session.say(log, Level::Info, &format!("{reference} is gone already")).await?,
        }
    }
    let rank = |live: &Live| kinds.iter().position(|kind| *kind == (live.object.group(), live.object.kind()));
    objects.sort_by_key(|live| (rank(live).unwrap_or(kinds.len()), live.name()));
    objects.dedup_by_key(|live| live.object.reference());
    let services: Vec<String> = objects
        .iter()
        .filter(|live| live.object.kind() == "Service")
        .map(|live| live.object.name().to_owned())
        .collect();
    let mut routes = Vec::new();
    if !services.is_empty() {
        for route in session.labelled(&ROUTES, &[], log).await? {
            if let Some(patch) = traffic::withdraw(&route.object.value, &services) {
                routes.push((route, patch));
            }
        }
    }
    Ok(Found { objects, services, routes })
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let again = !cx.checkpoints.history().is_empty();
    let unit = Unit::begin(cx, "Initialize").await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        session.learn_places(unit.log()).await?;
        let found = find(&session, spec, unit.log()).await?;
        let text = match found.objects.len() {
            0 => format!("release {} has no canary: nothing to delete", session.release),
            _ => format!(
                "to be deleted:\n{}",
                found.objects.iter().map(Live::name).collect::<Vec<_>>().join("\n")
            ),
        };
        unit.say(Level::Info, &text).await?;
        Ok((session, found))
    };
    let result = work.await;
    let (session, found) = unit.end(result).await?;
    let skipped = found.objects.is_empty() && !again;
    let unit = Unit::begin(cx, "Delete").await?;
    let work = async {
        routes::leave(&session, &found.services, unit.log()).await?;
        let state = json!({"v": 1, "deleted": found.objects.iter().map(Live::name).collect::<Vec<_>>()});
        session.delete_all(&found.objects, "delete the canary", state, None, unit.log()).await
    };
    let result = work.await;
    unit.end(result).await?;
    Ok(StepOutput { skipped, ..StepOutput::default() })
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let log = cx.logs.unit("Initialize");
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    session.learn_places(log.as_ref()).await?;
    let found = find(&session, spec, log.as_ref()).await?;
    let mut text = String::new();
    for (route, patch) in &found.routes {
        let after = traffic::patched(&route.object.value, patch);
        text.push_str(&diff(Some(&route.object.value), Some(&after), &Mask::default()).1);
    }
    for live in &found.objects {
        text.push_str(&diff(Some(&live.object.value), None, &Mask::default()).1);
    }
    Ok(planned(text))
}
