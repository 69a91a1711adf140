//! Workloads that a step names, and what is told about their pods afterwards.

use crate::discovery::Resource;
use crate::error::bad_spec;
use crate::objects::{Object, Reference};
use crate::session::Session;
use crate::steady::{Instance, Report, Target};
use executor_api::StepError;
use proto::result::Output;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One workload: its name and where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) reference: Reference,
    pub(crate) resource: Resource,
    pub(crate) path: String,
}

impl Workload {
    /// As messages call it.
    pub(crate) fn name(&self) -> String {
        self.reference.to_string()
    }

    /// What a wait calls it.
    pub(crate) fn target(&self) -> Target {
        Target {
            api_version: self.resource.gvk.api_version(),
            kind: self.reference.kind.clone(),
            namespace: self.reference.namespace.clone().unwrap_or_default(),
            name: self.reference.name.clone(),
        }
    }

    /// The workload as it is.
    ///
    /// **Errors**: `KUBE-055` with what is there instead.
    pub(crate) async fn read(&self, session: &Session) -> Result<Object, StepError> {
        let what = format!("read {}", self.name());
        let live: Option<Value> =
            session.api.find(&self.path).await.map_err(|fault| fault.step(&what, &session.api.target))?;
        match live.and_then(|live| Object::new(live, "the cluster").ok()) {
            Some(object) => Ok(object),
            None => Err(self.missing(session).await),
        }
    }

    async fn missing(&self, session: &Session) -> StepError {
        let collection = self.resource.collection(self.reference.namespace.as_deref());
        let there = session.api.list(&collection, "").await.unwrap_or_default();
        let names: Vec<&str> =
            there.iter().filter_map(|o| o.pointer("/metadata/name")?.as_str()).take(20).collect();
        let text = match names.as_slice() {
            [] => format!("{} is not there, nor any other {}", self.name(), self.reference.kind),
            names => format!("{} is not there; there are: {}", self.name(), names.join(", ")),
        };
        bad_spec("KUBE-055", text)
            .target(self.name())
            .hint("correct kind, name or namespace, or deploy the workload first")
    }
}

/// The workload that `text` (`[namespace/]Kind/name`) names. A comma list must leave exactly one that `fits`.
///
/// **Errors**: `KUBE-010`, `KUBE-018`, `KUBE-055`.
pub(crate) fn one(
    session: &Session,
    text: &str,
    fits: impl Fn(&Resource) -> bool,
) -> Result<Workload, StepError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let mut found = Vec::new();
    for part in &parts {
        let workload = by_reference(session, session.parse_reference(part)?)?;
        if parts.len() == 1 || fits(&workload.resource) {
            found.push(workload);
        }
    }
    match (found.len(), found.pop()) {
        (1, Some(workload)) => Ok(workload),
        (count, _) => {
            Err(bad_spec("KUBE-055", format!("workload: `{text}` names {count} workloads, expected one"))
                .target(text.to_owned())
                .hint("write one reference: [namespace/]Kind/name"))
        }
    }
}

/// The workload of a reference.
pub(crate) fn by_reference(session: &Session, reference: Reference) -> Result<Workload, StepError> {
    let resource = session.discovery.of_reference(&reference).cloned().ok_or_else(|| {
        bad_spec("KUBE-018", format!("{reference}: the cluster does not know the kind {}", reference.kind))
            .target(session.api.target.clone())
    })?;
    let path = resource.path(reference.namespace.as_deref(), &reference.name);
    Ok(Workload { reference, resource, path })
}

/// Outcomes about the pods of a wait; `before` are the uids from before the change.
pub(crate) fn pods(report: &Report, before: &[String]) -> BTreeMap<String, Output> {
    let all: Vec<&Instance> = report.targets.iter().flat_map(|target| &target.pods).collect();
    let pod = |pod: &&Instance| {
        let containers: Vec<Value> = pod
            .containers
            .iter()
            .map(|(name, image, id)| json!({"name": name, "image": image, "containerId": id}))
            .collect();
        json!({"uid": pod.uid, "name": pod.name, "namespace": pod.namespace, "podIP": pod.ip,
            "newPod": !before.contains(&pod.uid), "containerList": containers, "labels": pod.labels})
    };
    let ips: Vec<&str> = all.iter().map(|pod| pod.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    BTreeMap::from([
        ("podIps".to_owned(), Value::from(ips).into()),
        ("pods".to_owned(), Value::from(all.iter().map(pod).collect::<Vec<_>>()).into()),
    ])
}

/// Uids of the pods that an object selected before the change, so that new ones can be told from them: those that a
/// checkpoint of this step names under `step`, else those of now.
pub(crate) async fn pods_before(
    session: &Session,
    workload: &Workload,
    object: &Object,
    step: &str,
) -> Vec<String> {
    let history = session.cx.checkpoints.history();
    let known = history.iter().find_map(|c| c.state.get(step)?.get("pods")?.as_array().cloned());
    if let Some(known) = known {
        return known.iter().filter_map(|uid| uid.as_str().map(str::to_owned)).collect();
    }
    let Some(selector) = crate::steady::selector_of(&workload.reference.kind, &object.value) else {
        return Vec::new();
    };
    let Some(resource) = session.resource_of("", "Pod") else { return Vec::new() };
    let collection = resource.collection(workload.reference.namespace.as_deref());
    let query = format!("labelSelector={}", crate::rest::encode(&selector));
    // Only for the flag `newPod`; without the right to list pods every pod counts as new.
    let pods = session.api.list(&collection, &query).await.unwrap_or_default();
    pods.iter().filter_map(|pod| pod.pointer("/metadata/uid")?.as_str().map(str::to_owned)).collect()
}
