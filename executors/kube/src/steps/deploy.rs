//! What a canary and a colour have in common on their way into the cluster.

use super::copies::Live;
use super::flags;
use super::render::Fetched;
use crate::apply::{Applied, Definitions, Options};
use crate::error::bad_spec;
use crate::objects::Object;
use crate::release::{History, Item, Ours, Release, Status};
use crate::rest::encode;
use crate::session::Session;
use crate::steady;
use executor_api::Unit;
use executor_api::{CancelReason, Class, Level, StepContext, StepError, UnitLog};
use proto::result::Output;
use proto::task::KubernetesSpec;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The objects of a release of this number, without those of files that a deployment leaves out. Secrets that went into
/// them are hidden from now on, and every object lies in its namespace.
///
/// **Errors**: `KUBE-010`: every document that is no object.
pub(crate) fn objects(
    session: &mut Session,
    fetched: &mut Fetched,
    number: u64,
    color: Option<&str>,
) -> Result<Vec<Object>, StepError> {
    let (mut objects, mask) = fetched.objects(number, color, true)?;
    session.mask = mask;
    let definitions = Definitions::of(&objects);
    session.place(&mut objects, &|object| definitions.namespaced(object));
    Ok(objects)
}

/// Documents as objects again.
pub(crate) fn wrapped(documents: Vec<Value>, source: &str) -> Result<Vec<Object>, StepError> {
    let wrap = |value| {
        Object::new(value, source).map_err(|problem| bad_spec("KUBE-010", format!("{source}: {problem}")))
    };
    documents.into_iter().map(wrap).collect()
}

/// How the set of a deployment is applied.
///
/// **Errors**: `KUBE-037`: a command flag that means nothing here.
pub(crate) fn options(spec: &KubernetesSpec, skip_dry_run: bool) -> Result<Options, StepError> {
    Ok(Options { skip_dry_run, ..flags::read(&spec.command_flags, "Apply", false)?.options })
}

/// The number of this task's release: the one it has already, else that of an earlier step of the same stage which
/// `continues`, else a new one.
pub(crate) fn number(
    history: &History,
    cx: &StepContext,
    continues: impl Fn(&Release) -> bool,
) -> (u64, Option<Release>) {
    let execution = &cx.task.execution;
    let earlier = history.of_task(&cx.task_id).or_else(|| {
        history.of_execution(&execution.execution_id, &execution.stage).filter(|found| continues(found))
    });
    match earlier {
        Some(release) => (release.number, Some(release.clone())),
        None => (history.next(), None),
    }
}

/// The release that is about to be made, or goes on: in progress, with the objects as they will be applied.
pub(crate) fn release(
    number: u64,
    earlier: Option<Release>,
    objects: Vec<Object>,
    spec: &KubernetesSpec,
    cx: &StepContext,
) -> Release {
    let ours = Ours {
        task: cx.task_id.clone(),
        execution: cx.task.execution.execution_id.clone(),
        stage: cx.task.execution.stage.clone(),
        step: spec.action.kind().to_owned(),
        ..Ours::default()
    };
    let mut release = Release::new(number, objects, ours);
    if let Some(earlier) = earlier {
        release.version = earlier.version;
        release.uid = earlier.uid;
        release.ours.inventory = earlier.ours.inventory;
        release.labels = earlier.labels;
        release.annotations = earlier.annotations;
    }
    release
}

/// Writes down what was applied.
pub(crate) fn note(release: &mut Release, applied: &[Applied]) {
    for item in applied.iter().map(Item::from) {
        release.ours.inventory.retain(|known| known.reference != item.reference);
        release.ours.inventory.push(item);
    }
}

/// Ends a unit of the deployment; when it failed, the release is marked as failed first.
pub(crate) async fn end<T>(
    unit: Unit,
    session: &Session,
    release: &mut Release,
    result: Result<T, StepError>,
) -> Result<T, StepError> {
    if let Err(error) = &result {
        failed(session, release, error, unit.log()).await;
    }
    unit.end(result).await
}

/// Ends a release that failed. The step fails with its own error, whatever becomes of this; on a drain the release stays
/// in progress, because the next agent goes on with it.
async fn failed(session: &Session, release: &mut Release, error: &StepError, log: &dyn UnitLog) {
    let goes_on =
        matches!(error.class, Class::Cancelled { reason: CancelReason::Drain | CancelReason::LeaseLost });
    // One that was never stored has changed nothing.
    if goes_on || release.version.is_empty() {
        return;
    }
    release.status = Status::Failed;
    if let Err(other) = History::store(session, release).await {
        let text = format!("release {} could not be marked as failed: {}", release.number, other.what);
        let _closed = session.say(log, Level::Warn, &text).await;
    }
}

/// Says in a cancelled step's error what is in the cluster.
pub(crate) fn with_state(mut error: StepError, state: &str) -> StepError {
    if matches!(error.class, Class::Cancelled { .. } | Class::Timeout) {
        error.what.push_str("; in the cluster: ");
        error.what.push_str(state);
    }
    error
}

/// Target of the wait for one object.
pub(crate) fn target(object: &Object, namespace: &str) -> steady::Target {
    steady::Target {
        api_version: object.api_version().to_owned(),
        kind: object.kind().to_owned(),
        namespace: object.namespace().unwrap_or(namespace).to_owned(),
        name: object.name().to_owned(),
    }
}

/// Pods that run, and are not on their way out.
pub(crate) struct Pods(Vec<Value>);

impl Pods {
    /// Those that carry all these labels.
    pub(crate) async fn find(
        session: &Session,
        namespace: &str,
        labels: &[(&str, &str)],
    ) -> Result<Pods, StepError> {
        let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let path = format!("/api/v1/namespaces/{}/pods", encode(namespace));
        let query = format!("labelSelector={}", encode(&selector.join(",")));
        let found = session.api.list(&path, &query).await;
        let mut pods = found.map_err(|fault| fault.step("list pods", &session.api.target))?;
        pods.retain(|pod| {
            pod.pointer("/status/phase").and_then(Value::as_str) == Some("Running")
                && pod.pointer("/metadata/deletionTimestamp").is_none()
        });
        Ok(Pods(pods))
    }

    /// Their addresses, sorted.
    pub(crate) fn ips(&self) -> Value {
        let mut ips: Vec<&str> =
            self.0.iter().filter_map(|pod| pod.pointer("/status/podIP")?.as_str()).collect();
        ips.sort_unstable();
        ips.into()
    }

    /// How many are ready.
    pub(crate) fn ready(&self) -> u32 {
        let ready = |pod: &&Value| {
            let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
            conditions
                .into_iter()
                .flatten()
                .any(|c| c.get("type") == Some(&json!("Ready")) && c.get("status") == Some(&json!("True")))
        };
        u32::try_from(self.0.iter().filter(ready).count()).unwrap_or(u32::MAX)
    }
}

/// Outputs from pairs; nothing for null.
pub(crate) fn outputs<const N: usize>(pairs: [(&str, Value); N]) -> BTreeMap<String, Output> {
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect()
}

/// How many pods of a live workload are ready.
pub(crate) fn ready(live: Option<&Live>) -> u32 {
    let found = live.and_then(|live| live.object.at("/status/readyReplicas")?.as_u64());
    found.and_then(|ready| u32::try_from(ready).ok()).unwrap_or(0)
}
