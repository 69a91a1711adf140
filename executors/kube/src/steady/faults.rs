//! What is wrong with a pod, read from its status alone.

use super::cause::{Cause, Limits};
use super::view::{ContainerStatus, Pod};
use std::time::Duration;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    /// Name of the pod, or of what was to make pods.
    pub(crate) pod: String,
    pub(crate) uid: String,
    /// Empty: the pod as a whole.
    pub(crate) container: String,
    /// One sentence without the pod's name, so that equal faults of many pods are told once.
    pub(crate) text: String,
    /// How long it must stand to be conclusive.
    pub(crate) needs: Duration,
    pub(crate) exit: Option<i32>,
    /// There are lines of an earlier run of the container.
    pub(crate) previous_log: bool,
}

impl Fault {
    fn of(pod: &Pod, cause: Cause, container: &str, text: String, needs: Duration) -> Fault {
        Fault {
            cause,
            pod: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            container: container.to_owned(),
            text,
            needs,
            exit: None,
            previous_log: false,
        }
    }
}

/// What is known beside the pod.
pub(crate) struct Around<'a> {
    pub(crate) limits: &'a Limits,
    /// Restarts of a container that happened before the wait.
    pub(crate) before: &'a dyn Fn(&str) -> u32,
    /// Messages of the pod's warnings.
    pub(crate) warnings: &'a [(&'a str, &'a str)],
    /// A Job counts its own failures.
    pub(crate) restarts_count: bool,
    /// Whether something may bring nodes; `None`: not known.
    pub(crate) autoscaler: Option<bool>,
}

/// Everything that is wrong with `pod` at the moment.
pub(crate) fn faults(pod: &Pod, around: &Around<'_>) -> Vec<Fault> {
    if pod.metadata.deletion_timestamp.is_some()
        || matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
    {
        return Vec::new();
    }
    let mut found: Vec<Fault> = pod.statuses().filter_map(|status| container(pod, status, around)).collect();
    found.extend(unschedulable(pod, around));
    if found.is_empty() {
        found.extend(not_mounted(pod, around));
    }
    found
}

fn container(pod: &Pod, status: &ContainerStatus, around: &Around<'_>) -> Option<Fault> {
    if around.restarts_count
        && let Some(fault) = crash(pod, status, around)
    {
        return Some(fault);
    }
    let waiting = status.state.waiting.as_ref()?;
    let limits = around.limits;
    let name = &status.name;
    let image = pod.spec.containers.iter().find(|c| c.name == *name).map_or("", |c| c.image.as_str());
    let fault = |cause, text, needs| Some(Fault::of(pod, cause, name, text, needs));
    match waiting.reason.as_str() {
        "InvalidImageName" | "ErrImageNeverPull" => {
            let text = format!("container {name}: {}: {}", waiting.reason, waiting.message);
            fault(Cause::ImagePull, text, Duration::ZERO)
        }
        "ErrImagePull" | "ImagePullBackOff" | "ImageInspectError" | "RegistryUnavailable" => {
            // Older nodes give the reason only as an event.
            let warned =
                around.warnings.iter().find(|(reason, text)| *reason == "Failed" && text.contains("pull"));
            let refused =
                does_not_pass(&waiting.message) || warned.is_some_and(|(_, text)| does_not_pass(text));
            let needs = if refused { limits.pull_refused } else { limits.pull_troubled };
            let why = pull_reason(&waiting.message)
                .or_else(|| warned.and_then(|(_, text)| pull_reason(text)))
                .unwrap_or(&waiting.reason);
            fault(Cause::ImagePull, format!("container {name}: image {image} cannot be pulled: {why}"), needs)
        }
        "CreateContainerConfigError" | "CreateContainerError" => {
            fault(Cause::Config, format!("container {name}: {}", waiting.message), limits.config)
        }
        _ => None,
    }
}

fn crash(pod: &Pod, status: &ContainerStatus, around: &Around<'_>) -> Option<Fault> {
    let between = status.state.terminated.is_some()
        || status.state.waiting.as_ref().is_some_and(|w| w.reason == "CrashLoopBackOff");
    if !between || pod.spec.restart_policy == "Never" {
        return None;
    }
    let last = status.state.terminated.as_ref().or(status.last_state.terminated.as_ref())?;
    let init = pod.status.init_container_statuses.iter().any(|s| s.name == status.name);
    // An init container that ends well is what it is for.
    if init && last.exit_code == 0 {
        return None;
    }
    let memory = last.reason == "OOMKilled";
    let enough = if memory { around.limits.memory_kills } else { around.limits.restarts };
    if status.restart_count < enough || status.restart_count <= (around.before)(&status.name) {
        return None;
    }
    let what = if init { "init container" } else { "container" };
    let name = &status.name;
    let (cause, how) = if memory {
        (Cause::OutOfMemory, "is killed because it uses more memory than its limit".to_owned())
    } else {
        let because =
            if last.message.is_empty() { String::new() } else { format!(": {}", last.message.trim()) };
        (
            Cause::Crash,
            format!("ends with exit code {} ({}) again and again{because}", last.exit_code, last.reason),
        )
    };
    let text = format!("{what} {name} {how}");
    let mut fault = Fault::of(pod, cause, name, text, Duration::ZERO);
    fault.exit = Some(last.exit_code);
    fault.previous_log = status.state.terminated.is_none();
    Some(fault)
}

fn unschedulable(pod: &Pod, around: &Around<'_>) -> Option<Fault> {
    let condition = pod.condition("PodScheduled")?;
    if condition.status != "False" || condition.reason != "Unschedulable" {
        return None;
    }
    let limits = around.limits;
    let refused_to_scale = around.warnings.iter().any(|(reason, _)| *reason == "NotTriggerScaleUp");
    let needs = if refused_to_scale {
        limits.never_fits
    } else if around.autoscaler != Some(false) && around.autoscaler.is_some() {
        limits.autoscaler
    } else if around.autoscaler == Some(false) && nothing_would_help(&condition.message) {
        limits.never_fits
    } else {
        limits.unschedulable
    };
    // The sentences after the first are about what would not help.
    let message = condition.message.split(". ").next().unwrap_or_default();
    Some(Fault::of(pod, Cause::Unschedulable, "", format!("no node takes it: {message}"), needs))
}

/// The scheduler says that on every node not even an eviction would make room: what the pod asks for is more than any
/// node has, or no node is of the kind it wants.
fn nothing_would_help(message: &str) -> bool {
    let Some((_, preemption)) = message.split_once("preemption: 0/") else { return false };
    let Some((nodes, rest)) = preemption.split_once(" nodes are available: ") else { return false };
    rest.starts_with(&format!("{nodes} Preemption is not helpful for scheduling"))
}

fn not_mounted(pod: &Pod, around: &Around<'_>) -> Option<Fault> {
    let creating = |s: &ContainerStatus| {
        s.state
            .waiting
            .as_ref()
            .is_some_and(|w| matches!(w.reason.as_str(), "ContainerCreating" | "PodInitializing"))
    };
    if pod.status.phase != "Pending" || !pod.statuses().all(creating) {
        return None;
    }
    let (_, text) = around.warnings.iter().find(|(reason, text)| {
        matches!(*reason, "FailedMount" | "FailedAttachVolume") && text.contains("not found")
    })?;
    Some(Fault::of(
        pod,
        Cause::Config,
        "",
        text.lines().next().unwrap_or_default().to_owned(),
        around.limits.config,
    ))
}

/// A registry's answer that another try will not change.
fn does_not_pass(message: &str) -> bool {
    const DEFINITE: [&str; 12] = [
        "not found",
        "notfound",
        "manifest unknown",
        "name unknown",
        "does not exist",
        "unauthorized",
        "denied",
        "forbidden",
        "authentication required",
        "invalid reference",
        "no match for platform",
        "no matching manifest",
    ];
    let message = message.to_lowercase();
    DEFINITE.iter().any(|text| message.contains(text))
}

/// The last part of the chain of errors, which is the registry's own.
fn pull_reason(message: &str) -> Option<&str> {
    let (_, reason) = message.rsplit_once(": ")?;
    (!reason.is_empty()).then_some(reason)
}

/// Whether a refusal of pods passes by itself. Quotas, policies and limits do not; a webhook that is not there may
/// come back.
pub(crate) fn refusal_stays(message: &str) -> bool {
    // The account of a new namespace comes a moment after the namespace.
    const PASSES: [&str; 2] = ["failed calling webhook", "error looking up service account"];
    let message = message.to_lowercase();
    !PASSES.iter().any(|text| message.contains(text))
        && ["forbidden", "denied", "exceeded quota", "violates", "is invalid", "being terminated"]
            .iter()
            .any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "uid": "u1"},
            "spec": {"restartPolicy": "Always", "containers": [{"name": "app", "image": "app:2"}]},
            "status": status,
        }))
        .unwrap()
    }

    fn look(pod: &Pod, before: u32, warnings: &[(&str, &str)], autoscaler: Option<bool>) -> Vec<Fault> {
        let limits = Limits::default();
        faults(
            pod,
            &Around { limits: &limits, before: &|_| before, warnings, restarts_count: true, autoscaler },
        )
    }

    fn crashing(restarts: u32, reason: &str) -> Pod {
        pod(
            json!({"phase": "Running", "containerStatuses": [{"name": "app", "ready": false, "restartCount": restarts,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 3, "reason": reason}}}]}),
        )
    }

    #[test]
    fn a_container_that_restarts_is_a_crash_loop_at_the_third_time_and_not_before() {
        assert_eq!(look(&crashing(2, "Error"), 0, &[], None), []);
        let found = look(&crashing(3, "Error"), 0, &[], None);
        assert_eq!((found[0].cause, found[0].needs, found[0].exit), (Cause::Crash, Duration::ZERO, Some(3)));
        assert_eq!(found[0].text, "container app ends with exit code 3 (Error) again and again");
        assert!(found[0].previous_log);
    }

    #[test]
    fn restarts_from_before_the_wait_do_not_count_until_there_is_one_more() {
        assert_eq!(look(&crashing(50, "Error"), 50, &[], None), []);
        assert_eq!(look(&crashing(51, "Error"), 50, &[], None).len(), 1);
    }

    #[test]
    fn memory_needs_two_kills() {
        assert_eq!(look(&crashing(1, "OOMKilled"), 0, &[], None), []);
        assert_eq!(look(&crashing(2, "OOMKilled"), 0, &[], None)[0].cause, Cause::OutOfMemory);
    }

    #[test]
    fn a_missing_image_is_conclusive_soon_and_a_registry_that_does_not_answer_is_not() {
        let waiting = |reason: &str, message: &str| {
            pod(json!({"phase": "Pending", "containerStatuses": [{"name": "app",
                "state": {"waiting": {"reason": reason, "message": message}}}]}))
        };
        let limits = Limits::default();
        let gone = "rpc error: code = NotFound desc = failed to pull and unpack image \"app:2\": not found";
        let found = look(&waiting("ErrImagePull", gone), 0, &[], None);
        assert_eq!(found[0].needs, limits.pull_refused);
        assert_eq!(found[0].text, "container app: image app:2 cannot be pulled: not found");
        let slow = "failed to do request: dial tcp 127.0.0.1:5000: i/o timeout";
        assert_eq!(look(&waiting("ImagePullBackOff", slow), 0, &[], None)[0].needs, limits.pull_troubled);
        // An older node: the reason stands in the event alone.
        let bare = waiting("ImagePullBackOff", "Back-off pulling image \"app:2\"");
        assert_eq!(look(&bare, 0, &[("Failed", gone)], None)[0].needs, limits.pull_refused);
        assert_eq!(look(&waiting("InvalidImageName", "bad"), 0, &[], None)[0].needs, Duration::ZERO);
        assert_eq!(look(&waiting("ContainerCreating", ""), 0, &[], None), []);
    }

    #[test]
    fn a_pod_larger_than_every_node_waits_only_for_an_autoscaler() {
        let message = "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: \
                       3 Preemption is not helpful for scheduling.";
        let full = "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: \
                    3 No preemption victims found for incoming pod.";
        let pending = |message: &str| {
            pod(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "message": message}]}))
        };
        let limits = Limits::default();
        let needs = |message, warnings: &[(&str, &str)], autoscaler| {
            look(&pending(message), 0, warnings, autoscaler)[0].needs
        };
        assert_eq!(needs(message, &[], Some(false)), limits.never_fits);
        assert_eq!(needs(message, &[], Some(true)), limits.autoscaler);
        assert_eq!(needs(message, &[], None), limits.unschedulable);
        assert_eq!(needs(full, &[], Some(false)), limits.unschedulable);
        assert_eq!(needs(full, &[("NotTriggerScaleUp", "no")], Some(true)), limits.never_fits);
        let text = &look(&pending(message), 0, &[], None)[0].text;
        assert_eq!(text, "no node takes it: 0/3 nodes are available: 3 Insufficient cpu");
    }

    #[test]
    fn a_volume_that_names_nothing_is_told_and_a_slow_one_is_not() {
        let creating = pod(json!({"phase": "Pending", "containerStatuses": [{"name": "app",
            "state": {"waiting": {"reason": "ContainerCreating"}}}]}));
        let missing =
            ("FailedMount", "MountVolume.SetUp failed for volume \"c\" : configmap \"c\" not found");
        assert_eq!(look(&creating, 0, &[missing], None)[0].cause, Cause::Config);
        assert_eq!(look(&creating, 0, &[("FailedMount", "timed out waiting for the condition")], None), []);
    }

    #[test]
    fn pods_on_their_way_out_and_pods_that_ended_have_no_faults() {
        let mut going = crashing(9, "Error");
        going.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
        assert_eq!(look(&going, 0, &[], None), []);
        let mut over = crashing(9, "Error");
        over.status.phase = "Failed".into();
        assert_eq!(look(&over, 0, &[], None), []);
    }

    #[test]
    fn quotas_stay_and_absent_webhooks_may_come_back() {
        assert!(refusal_stays("pods \"a\" is forbidden: exceeded quota: q, requested: pods=1"));
        assert!(refusal_stays("admission webhook \"w\" denied the request: no"));
        assert!(!refusal_stays(
            "pods \"a\" is forbidden: error looking up service account n/default: not found"
        ));
        assert!(!refusal_stays("Internal error occurred: failed calling webhook \"w\": connection refused"));
    }
}
