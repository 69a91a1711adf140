//! The pods of a release, as outcomes name them.

use crate::objects::LABEL_RELEASE;
use crate::rest::encode;
use crate::session::Session;
use executor_api::StepError;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Key of the pods that were there before, in the state of the checkpoint of the first change.
const BEFORE: &str = "podsBefore";

/// Running pods of the release that are not being deleted.
pub(crate) async fn running(session: &Session) -> Result<Vec<Value>, StepError> {
    let path = format!("/api/v1/namespaces/{}/pods", encode(&session.namespace));
    let selector = encode(&format!("{LABEL_RELEASE}={}", session.release));
    let query = format!("labelSelector={selector}&fieldSelector={}", encode("status.phase=Running"));
    let mut pods = match session.api.list(&path, &query).await {
        Ok(pods) => pods,
        // The outcome is for information; the account may deploy without the right to look at pods.
        Err(fault) if fault.code() == Some(403) => Vec::new(),
        Err(fault) => return Err(fault.step("list the pods of the release", &session.api.target)),
    };
    pods.retain(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
    pods.sort_by_key(|pod| text(pod, "/metadata/name").to_owned());
    Ok(pods)
}

fn text<'a>(pod: &'a Value, path: &str) -> &'a str {
    pod.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Uids of the pods before the step changed anything: those of now, unless an earlier life of the task noted them.
pub(crate) async fn before(session: &Session) -> Result<Vec<String>, StepError> {
    let noted = session.cx.checkpoints.history().iter().find_map(|c| c.state.get(BEFORE).cloned());
    if let Some(noted) = noted.and_then(|noted| serde_json::from_value(noted).ok()) {
        return Ok(noted);
    }
    Ok(running(session).await?.iter().map(|pod| text(pod, "/metadata/uid").to_owned()).collect())
}

/// `state` with the pods before, for the checkpoint of the first change.
pub(crate) fn noted(mut state: Value, before: &[String]) -> Value {
    if let Value::Object(state) = &mut state {
        state.insert(BEFORE.to_owned(), json!(before));
    }
    state
}

/// Outcomes `podIps` and `k8sPodList`; pods that were not there before are new.
pub(crate) async fn outcomes(
    session: &Session,
    before: &[String],
) -> Result<[(&'static str, Value); 2], StepError> {
    let before: BTreeSet<&str> = before.iter().map(String::as_str).collect();
    let pods = running(session).await?;
    let mut ips: Vec<&str> =
        pods.iter().map(|pod| text(pod, "/status/podIP")).filter(|ip| !ip.is_empty()).collect();
    ips.sort_unstable();
    let list: Vec<Value> =
        pods.iter().map(|pod| one(pod, !before.contains(text(pod, "/metadata/uid")))).collect();
    Ok([("podIps", json!(ips)), ("k8sPodList", Value::from(list))])
}

fn one(pod: &Value, new: bool) -> Value {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
    let containers: Vec<Value> = statuses
        .map(|status| {
            let field = |key: &str| status.get(key).cloned().unwrap_or(Value::Null);
            json!({"name": field("name"), "image": field("image"), "containerId": field("containerID")})
        })
        .collect();
    json!({"name": text(pod, "/metadata/name"), "namespace": text(pod, "/metadata/namespace"),
        "uid": text(pod, "/metadata/uid"), "podIP": text(pod, "/status/podIP"), "newPod": new,
        "labels": pod.pointer("/metadata/labels"), "containerList": containers})
}
