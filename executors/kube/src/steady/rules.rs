//! When an object has reached what it was asked for: rules per kind, functions of the object alone.
//!
//! They are kstatus' rules with three differences: a Job counts only when it is complete, a Service of type
//! LoadBalancer needs its address, and a paused Deployment with something to do cannot succeed.

use super::cause::Cause;
use serde_json::Value;

/// What an object says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it was asked to be.
    Ready(String),
    /// It is on its way; the text says how far.
    Progress(String),
    /// It says itself that it has failed.
    Failed(Cause, String),
}

use Verdict::{Failed, Progress, Ready};

/// Judges `object` by the rules of its kind; kinds without rules of their own by their conditions.
///
/// **Errors**: none; what is missing in an object counts as not there yet.
pub fn judge(object: &Value) -> Verdict {
    if object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null()) {
        return Progress("it is being deleted".into());
    }
    let generation = number(object, "/metadata/generation");
    let observed = number(object, "/status/observedGeneration");
    if let (Some(generation), Some(observed)) = (generation, observed)
        && observed < generation
    {
        return Progress("its controller has not seen the change yet".into());
    }
    let group = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let group = group.rsplit_once('/').map_or("", |(group, _)| group);
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let seen = observed.is_some();
    match (group, kind) {
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("", "ReplicationController")
            if !seen =>
        {
            Progress("its controller has not seen it yet".into())
        }
        ("apps", "Deployment") => deployment(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => replica_set(object),
        ("apps.openshift.io", "DeploymentConfig") => deployment_config(object),
        ("batch", "Job") => job(object),
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "Service") => service(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        ("apiregistration.k8s.io", "APIService") => {
            by_condition(object, "Available", "the API is not available yet")
        }
        _ => generic(object),
    }
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// A count of the status; controllers leave zeros out.
fn count(object: &Value, name: &str) -> i64 {
    object.get("status").and_then(|s| s.get(name)).and_then(Value::as_i64).unwrap_or(0)
}

/// A condition's status, reason and message.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(kind))?;
    let text = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default();
    Some((text("status"), text("reason"), text("message")))
}

fn strategy(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("RollingUpdate").to_owned()
}

fn deployment(object: &Value) -> Verdict {
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let [total, updated, ready, available] =
        ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"].map(|name| count(object, name));
    if let Some((_, "ProgressDeadlineExceeded", message)) = condition(object, "Progressing") {
        return Failed(Cause::ProgressDeadline, message.to_owned());
    }
    let paused = object.pointer("/spec/paused").and_then(Value::as_bool).unwrap_or(false);
    if updated < wanted {
        if paused {
            return Failed(Cause::Paused, format!("it is paused with {updated} of {wanted} pods updated"));
        }
        return Progress(format!("{updated} of {wanted} pods are made, {ready} ready"));
    }
    if total > updated {
        return Progress(format!(
            "{} old pods are still to go, {available} of {wanted} available",
            total - updated
        ));
    }
    // Of the same revision: those of a deployment that becomes smaller, which counts as complete before they have gone.
    if total > wanted {
        return Progress(format!("{} pods too many are still to go", total - wanted));
    }
    if available < updated || ready < wanted {
        return Progress(format!("{ready} of {wanted} new pods ready, {available} available"));
    }
    Ready(format!("{available} of {wanted} pods available"))
}

fn stateful_set(object: &Value) -> Verdict {
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let [total, updated, ready] =
        ["replicas", "updatedReplicas", "readyReplicas"].map(|name| count(object, name));
    if strategy(object, "/spec/updateStrategy/type") == "OnDelete" {
        return Ready(format!(
            "{ready} of {wanted} pods ready; they change when somebody deletes them (OnDelete)"
        ));
    }
    let available = object.pointer("/status/availableReplicas").and_then(Value::as_i64).unwrap_or(ready);
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
    let revision =
        |name: &str| object.pointer(&format!("/status/{name}")).and_then(Value::as_str).unwrap_or_default();
    let current = revision("currentRevision") == revision("updateRevision");
    let to_update = (wanted - partition).max(0);
    // After a complete roll-out the controller counts all of them as of the current revision, none as updated.
    let updated = if current { wanted } else { updated };
    if total != wanted || updated < to_update || ready < wanted {
        return Progress(format!(
            "{} of {to_update} pods updated, {ready} of {wanted} ready",
            updated.min(to_update)
        ));
    }
    if available < wanted {
        return Progress(format!("{available} of {wanted} pods available"));
    }
    if partition == 0 && !current {
        return Progress("all pods are updated; the controller has not closed the revision yet".into());
    }
    Ready(match partition {
        0 => format!("{ready} of {wanted} pods ready"),
        _ => {
            format!("{ready} of {wanted} pods ready, {to_update} of the new revision (partition {partition})")
        }
    })
}

fn daemon_set(object: &Value) -> Verdict {
    let [wanted, updated, available, ready] =
        ["desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady"]
            .map(|name| count(object, name));
    if strategy(object, "/spec/updateStrategy/type") == "OnDelete" {
        return Ready(format!(
            "{ready} of {wanted} pods ready; they change when somebody deletes them (OnDelete)"
        ));
    }
    if updated < wanted || available < wanted || ready < wanted {
        return Progress(format!("{updated} of {wanted} pods updated, {ready} ready, {available} available"));
    }
    Ready(format!("{available} of {wanted} pods available"))
}

fn replica_set(object: &Value) -> Verdict {
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let [total, ready, available] =
        ["replicas", "readyReplicas", "availableReplicas"].map(|name| count(object, name));
    if total != wanted || ready < wanted || available < wanted {
        return Progress(format!("{ready} of {wanted} pods ready"));
    }
    Ready(format!("{available} of {wanted} pods available"))
}

fn deployment_config(object: &Value) -> Verdict {
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let [total, updated, available] =
        ["replicas", "updatedReplicas", "availableReplicas"].map(|name| count(object, name));
    match condition(object, "Progressing") {
        Some(("False", _, message)) => Failed(Cause::ProgressDeadline, message.to_owned()),
        Some((_, "NewReplicationControllerAvailable", _)) if total > wanted => {
            Progress(format!("{} pods too many are still to go", total - wanted))
        }
        Some((_, "NewReplicationControllerAvailable", _)) if updated >= wanted && available >= wanted => {
            Ready(format!("{available} of {wanted} pods available"))
        }
        _ => Progress(format!("{updated} of {wanted} pods updated, {available} available")),
    }
}

fn job(object: &Value) -> Verdict {
    let [active, succeeded, failed] = ["active", "succeeded", "failed"].map(|name| count(object, name));
    if let Some(("True", _, _)) = condition(object, "Complete") {
        return Ready(format!("complete, {succeeded} pods succeeded"));
    }
    // `FailureTarget` comes first, `Failed` when the last pod has gone; the decision is the same.
    for kind in ["Failed", "FailureTarget"] {
        if let Some(("True", reason, message)) = condition(object, kind) {
            return Failed(Cause::Job, format!("{reason}: {message}"));
        }
    }
    if object.pointer("/spec/suspend").and_then(Value::as_bool).unwrap_or(false) {
        return Ready("suspended: it runs when somebody resumes it".into());
    }
    let wanted = number(object, "/spec/completions").unwrap_or(1);
    Progress(format!("{succeeded} of {wanted} pods succeeded, {active} running, {failed} failed"))
}

fn pod(object: &Value) -> Verdict {
    let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending");
    let message = object.pointer("/status/message").and_then(Value::as_str).unwrap_or_default();
    let reason = object.pointer("/status/reason").and_then(Value::as_str).unwrap_or_default();
    match (phase, condition(object, "Ready")) {
        ("Succeeded", _) => Ready("it has ended with success".into()),
        ("Failed", _) => {
            Failed(Cause::Crash, format!("the pod failed: {reason} {message}").trim_end().to_owned())
        }
        ("Running", Some(("True", _, _))) => Ready("it is ready".into()),
        ("Running", _) => Progress("it runs and is not ready yet".into()),
        _ => Progress(format!("it is {}", phase.to_lowercase())),
    }
}

fn claim(object: &Value) -> Verdict {
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Bound") => Ready("it is bound".into()),
        Some("Lost") => Failed(Cause::Failed, "its volume is lost".into()),
        _ => Progress("it has no volume yet".into()),
    }
}

fn service(object: &Value) -> Verdict {
    if object.pointer("/spec/type").and_then(Value::as_str) != Some("LoadBalancer") {
        return Ready("it is there".into());
    }
    let address = object.pointer("/status/loadBalancer/ingress/0");
    match address.and_then(|a| a.get("hostname").or_else(|| a.get("ip"))).and_then(Value::as_str) {
        Some(address) => Ready(format!("its address is {address}")),
        None => Progress("its load balancer has no address yet".into()),
    }
}

fn definition(object: &Value) -> Verdict {
    if let Some(("False", _, message)) = condition(object, "NamesAccepted") {
        return Failed(Cause::Failed, format!("its names are not accepted: {message}"));
    }
    match condition(object, "Established") {
        Some(("True", _, _)) => Ready("it is established".into()),
        Some(("False", reason, message)) if reason != "Installing" => {
            Failed(Cause::Failed, format!("{reason}: {message}"))
        }
        _ => Progress("it is not established yet".into()),
    }
}

fn by_condition(object: &Value, kind: &str, otherwise: &str) -> Verdict {
    match condition(object, kind) {
        Some(("True", _, _)) => Ready("it is available".into()),
        Some((_, reason, message)) if !reason.is_empty() => Progress(format!("{reason}: {message}")),
        _ => Progress(otherwise.to_owned()),
    }
}

/// The conditions that controllers agreed on: `Stalled`, `Reconciling`, `Ready`. An object without any is what it is.
fn generic(object: &Value) -> Verdict {
    if let Some(("True", reason, message)) = condition(object, "Stalled") {
        return Failed(Cause::Failed, format!("{reason}: {message}"));
    }
    if let Some(("True", reason, message)) = condition(object, "Reconciling") {
        return Progress(said(reason, message, "its controller works on it"));
    }
    match condition(object, "Ready") {
        Some(("True", _, _)) => Ready("its condition Ready is true".into()),
        Some((_, reason, message)) => Progress(said(reason, message, "it is not ready yet")),
        None => Ready("it is there".into()),
    }
}

fn said(reason: &str, message: &str, otherwise: &str) -> String {
    match (reason, message) {
        ("", "") => otherwise.to_owned(),
        ("", text) | (text, "") => text.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
