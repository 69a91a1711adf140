//! `K8sPatch`: one patch of one workload.
//!
//! The server is asked first, by a dry run, what would come out. That and what was before stand in the checkpoint as
//! hashes: a step that is repeated after a crash sees by them whether its patch arrived, because not every patch can be
//! sent twice (`Json` with `add` to a list).

use super::workload::{self, Workload};
use crate::KubeExecutor;
use crate::error::{bad_spec, cancelled};
use crate::objects::{Mask, Object, diff, parse_document};
use crate::rest::{Answer, Ask, JSON_PATCH, MERGE};
use crate::session::Session;
use crate::steady;
use bytes::Bytes;
use executor_api::Unit;
use executor_api::{Class, Level, Plan, StepContext, StepError, StepOutput};
use http::Method;
use proto::task::{FileStore, KubernetesAction, KubernetesSpec};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const CAUSE: &str = "kubernetes.io/change-cause";

struct Asked<'a> {
    workload: &'a str,
    source: &'a FileStore,
    media: &'static str,
    record_change_cause: bool,
    skip_wait: bool,
}

fn asked(spec: &KubernetesSpec) -> Result<Asked<'_>, StepError> {
    let KubernetesAction::K8sPatch {
        workload,
        source,
        merge_strategy,
        record_change_cause,
        skip_steady_state_check,
    } = &spec.action
    else {
        return Err(bad_spec("KUBE-001", format!("{} patches nothing", spec.action.kind())));
    };
    let media = match merge_strategy.as_str() {
        "Strategic" => STRATEGIC,
        "Merge" => MERGE,
        "Json" => JSON_PATCH,
        other => {
            let text = format!("mergeStrategyType: `{other}`; expected Strategic, Merge or Json");
            return Err(bad_spec("KUBE-057", text));
        }
    };
    Ok(Asked {
        workload,
        source,
        media,
        record_change_cause: *record_change_cause,
        skip_wait: *skip_steady_state_check,
    })
}

/// The patch as a document of the shape that its kind needs.
fn document(text: &str, asked: &Asked<'_>) -> Result<Value, StepError> {
    let patch = parse_document(text)
        .map_err(|(line, problem)| bad_spec("KUBE-057", format!("source: line {line}: {problem}")))?;
    let right = if asked.media == JSON_PATCH { patch.is_array() } else { patch.is_object() };
    if right {
        return Ok(patch);
    }
    let expected = if asked.media == JSON_PATCH { "a list of operations" } else { "a map" };
    Err(bad_spec("KUBE-057", format!("source: the patch must be {expected}")).hint(
        "a Json patch is a list of `op`, `path`, `value`; Strategic and Merge patches look like the object",
    ))
}

/// The patch with the cause of the change in it.
fn with_cause(mut patch: Value, live: &Object, cause: &str) -> Value {
    match &mut patch {
        Value::Array(operations) => {
            if live.annotations().is_none() {
                operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
            }
            let path = "/metadata/annotations/kubernetes.io~1change-cause";
            operations.push(json!({"op": "add", "path": path, "value": cause}));
        }
        map => {
            if let Some(annotations) = ["metadata", "annotations"].iter().try_fold(map, |at, key| {
                let at = at.as_object_mut()?;
                Some(at.entry(*key).or_insert_with(|| json!({})))
            }) && let Some(annotations) = annotations.as_object_mut()
            {
                annotations.insert(CAUSE.to_owned(), cause.into());
            }
        }
    }
    patch
}

/// What an author can change of an object, as a hash. The status and the server's bookkeeping are left out.
fn fingerprint(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in ["managedFields", "resourceVersion", "generation"] {
            meta.remove(name);
        }
        // The controller of Deployments keeps its count here.
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("deployment.kubernetes.io/revision");
            if annotations.is_empty() {
                meta.remove("annotations");
            }
        }
    }
    hex::encode(Sha256::digest(object.to_string().as_bytes()))
}

struct Patch {
    workload: Workload,
    live: Object,
    media: &'static str,
    body: Value,
}

impl Patch {
    async fn send(&self, session: &Session, dry: bool, call: &str) -> Result<Value, StepError> {
        let mut path = format!("{}?fieldManager={}", self.workload.path, crate::apply::MANAGER);
        if dry {
            path.push_str("&dryRun=All");
        }
        let ask = Ask::with(Method::PATCH, path, self.media, Bytes::from(self.body.to_string()));
        let answer = if dry { session.api.ask(ask).await } else { session.api.mutate(call, ask).await };
        let value = answer.and_then(|answer: Answer| answer.read::<Value>());
        value.map_err(|fault| {
            if fault.code() == Some(415) && self.media == STRATEGIC {
                let text = format!("{call}: {} does not know strategic merges", self.workload.reference.kind);
                return bad_spec("KUBE-057", text)
                    .target(self.workload.name())
                    .hint("use mergeStrategyType Merge or Json for custom resources");
            }
            session.masked(fault.step(call, &session.api.target))
        })
    }
}

async fn source(
    executor: &KubeExecutor,
    asked: &Asked<'_>,
    cx: &StepContext,
) -> Result<(String, Mask), StepError> {
    let unit = Unit::begin(cx, "Fetch Files").await?;
    let text = super::render::read_store(executor, asked.source, cx, unit.log()).await;
    unit.end(text).await
}

async fn prepare(session: &Session, asked: &Asked<'_>, text: &str) -> Result<Patch, StepError> {
    let workload = workload::one(session, asked.workload, |_| true)?;
    let patch = document(text, asked)?;
    let live = workload.read(session).await?;
    let body = match asked.record_change_cause {
        true => {
            let cause = format!("K8sPatch of {}", session.cx.task.execution.node);
            with_cause(patch, &live, &cause)
        }
        false => patch,
    };
    Ok(Patch { workload, live, media: asked.media, body })
}

/// Sends the patch unless it has arrived already.
async fn apply(session: &Session, patch: &Patch, before: &[String], unit: &Unit) -> Result<(), StepError> {
    let call = format!("patch {}", patch.workload.name());
    let now = fingerprint(&patch.live.value);
    let history = session.cx.checkpoints.history();
    let announced = history.iter().rev().find_map(|c| {
        let patch = c.state.get("patch")?;
        Some((patch.get("before")?.as_str()?.to_owned(), patch.get("after")?.as_str()?.to_owned()))
    });
    let arrived = announced.as_ref().is_some_and(|(_, after)| *after == now);
    if arrived {
        return unit
            .say(Level::Info, &format!("{} was patched before the agent restarted", patch.workload.name()))
            .await;
    }
    if announced.is_some_and(|(before, _)| before != now) {
        let text = format!(
            "{call}: the agent restarted, and in the meantime it became something else than before or after the patch"
        );
        return Err(StepError::new(Class::RemoteFailed { code: 1 }, "KUBE-058", text)
            .target(patch.workload.name())
            .hint("look whether the patch is in; run the step again if it is not"));
    }
    let result = patch.send(session, true, &call).await?;
    let after = fingerprint(&result);
    let (_, text) = diff(Some(&patch.live.value), Some(&result), &session.mask);
    if after == now {
        return unit
            .say(Level::Info, &format!("{} is as the patch wants it; nothing is sent", patch.workload.name()))
            .await;
    }
    unit.say(Level::Info, text.trim_end()).await?;
    if let Some((reason, _)) = session.cx.cancel.requested() {
        return Err(cancelled(reason, &format!("{} is as it was", patch.workload.name())));
    }
    let state = json!({"v": 1, "patch": {"workload": patch.workload.name(), "before": now, "after": after, "pods": before}});
    session.api.announce(call.clone(), vec![call.clone()], state, None).await?;
    patch.send(session, false, &call).await?;
    Ok(())
}

/// Runs the step.
pub(crate) async fn run(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<StepOutput, StepError> {
    let asked = asked(spec)?;
    let (text, mask) = source(executor, &asked, cx).await?;
    let unit = Unit::begin(cx, "Initialize").await?;
    let work = async {
        let mut session = Session::open(executor, spec, cx, unit.log()).await?;
        session.mask = mask;
        let patch = prepare(&session, &asked, &text).await?;
        let before = workload::pods_before(&session, &patch.workload, &patch.live, "patch").await;
        Ok((session, patch, before))
    };
    let result = work.await;
    let (session, patch, before) = unit.end(result).await?;
    let unit = Unit::begin(cx, "Patch").await?;
    let result = apply(&session, &patch, &before, &unit).await;
    unit.end(result).await?;
    let mut outputs = BTreeMap::from([("workload".to_owned(), Value::from(patch.workload.name()).into())]);
    if !asked.skip_wait {
        let unit = Unit::begin(cx, "Wait for Steady State").await?;
        let targets = [patch.workload.target()];
        let result = steady::wait(session.api.client(), &targets, cx, unit.log()).await;
        let report = unit.end(result).await?;
        outputs.extend(workload::pods(&report, &before));
    }
    let unit = Unit::begin(cx, "Wrap Up").await?;
    let said = unit.say(Level::Info, &format!("{} is patched", patch.workload.name())).await;
    unit.end(said).await?;
    Ok(StepOutput { outputs, ..StepOutput::default() })
}

/// What the step would change.
pub(crate) async fn plan(
    executor: &KubeExecutor,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Result<Plan, StepError> {
    let asked = asked(spec)?;
    let log = cx.logs.unit("Initialize");
    let (text, mask) = super::render::read_store(executor, asked.source, cx, log.as_ref()).await?;
    let mut session = Session::open(executor, spec, cx, log.as_ref()).await?;
    session.mask = mask;
    let patch = prepare(&session, &asked, &text).await?;
    let result = patch.send(&session, true, &format!("patch {}", patch.workload.name())).await?;
    Ok(super::copies::planned(diff(Some(&patch.live.value), Some(&result), &session.mask).1))
}
