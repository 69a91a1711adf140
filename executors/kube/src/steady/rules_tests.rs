//! Objects as controllers write them, and what they mean.

use super::Verdict::{Failed, Progress, Ready};
use super::*;
use serde_json::json;

fn is(object: Value, wanted: &str) {
    let verdict = judge(&object);
    let name = match &verdict {
        Ready(_) => "ready",
        Progress(_) => "progress",
        Failed(cause, _) => cause.code(),
    };
    assert_eq!(name, wanted, "{verdict:?} of {object}");
}

/// A Deployment of three; `status` over a status where all is well.
fn deployment(status: Value, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"generation": 2},
        "spec": {"replicas": 3},
        "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3}});
    merge(&mut object["status"], status);
    merge(&mut object["spec"], spec);
    object
}

fn merge(into: &mut Value, from: Value) {
    for (name, value) in from.as_object().cloned().unwrap_or_default() {
        into[name] = value;
    }
}

#[test]
fn a_deployment_is_ready_when_all_pods_are_new_and_available_and_no_old_one_is_left() {
    is(deployment(json!({}), json!({})), "ready");
    is(deployment(json!({"observedGeneration": 1}), json!({})), "progress");
    is(deployment(json!({"updatedReplicas": 1}), json!({})), "progress");
    is(deployment(json!({"replicas": 4}), json!({})), "progress");
    // All pods are of the revision, and there are too many: it becomes smaller, or goes altogether.
    is(deployment(json!({}), json!({"replicas": 2})), "progress");
    is(deployment(json!({}), json!({"replicas": 0})), "progress");
    is(deployment(json!({"availableReplicas": 2}), json!({})), "progress");
    is(deployment(json!({"readyReplicas": 2}), json!({})), "progress");
    is(
        deployment(
            json!({"replicas": 0, "updatedReplicas": 0, "readyReplicas": 0, "availableReplicas": 0}),
            json!({"replicas": 0}),
        ),
        "ready",
    );
    let stuck = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}]);
    is(deployment(json!({"conditions": stuck, "updatedReplicas": 1}), json!({})), "KUBE-045");
    // A condition that stands there from before the change is not about it.
    is(deployment(json!({"conditions": stuck, "observedGeneration": 1}), json!({})), "progress");
    is(deployment(json!({"updatedReplicas": 1}), json!({"paused": true})), "KUBE-051");
    is(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"generation": 1}, "spec": {}}),
        "progress",
    );
    let mut going = deployment(json!({}), json!({}));
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    is(going, "progress");
}

#[test]
fn a_deployment_config_is_ready_when_its_controller_says_so_and_its_pods_are_as_many_as_wanted() {
    let config = |status: Value, spec: Value| {
        let mut object = json!({"apiVersion": "apps.openshift.io/v1", "kind": "DeploymentConfig",
            "metadata": {"generation": 1}, "spec": {"replicas": 3},
            "status": {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "conditions": [
                {"type": "Progressing", "status": "True", "reason": "NewReplicationControllerAvailable"}]}});
        merge(&mut object["status"], status);
        merge(&mut object["spec"], spec);
        object
    };
    is(config(json!({}), json!({})), "ready");
    is(config(json!({"updatedReplicas": 2}), json!({})), "progress");
    is(config(json!({}), json!({"replicas": 2})), "progress");
    is(config(json!({"conditions": []}), json!({})), "progress");
    let failed = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}]);
    is(config(json!({"conditions": failed}), json!({})), "KUBE-045");
}

#[test]
fn a_stateful_set_is_ready_when_its_revision_is_closed_or_its_partition_reached() {
    let set = |status: Value, spec: Value| {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"generation": 1},
            "spec": {"replicas": 3},
            "status": {"observedGeneration": 1, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 3,
                "currentRevision": "a", "updateRevision": "a"}});
        merge(&mut object["status"], status);
        merge(&mut object["spec"], spec);
        object
    };
    is(set(json!({}), json!({})), "ready");
    is(set(json!({"updatedReplicas": 0}), json!({})), "ready");
    is(set(json!({"readyReplicas": 2}), json!({})), "progress");
    is(set(json!({"replicas": 4}), json!({})), "progress");
    is(set(json!({"updateRevision": "b", "updatedReplicas": 2}), json!({})), "progress");
    is(set(json!({"updateRevision": "b"}), json!({})), "progress");
    let partition = json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}});
    is(set(json!({"updateRevision": "b", "updatedReplicas": 1}), partition.clone()), "ready");
    is(set(json!({"updateRevision": "b", "updatedReplicas": 0}), partition), "progress");
    is(set(json!({"readyReplicas": 0}), json!({"updateStrategy": {"type": "OnDelete"}})), "ready");
}

#[test]
fn a_daemon_set_is_ready_when_every_wanted_node_has_its_new_pod() {
    let set = |updated: i64, available: i64| {
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"generation": 1},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": updated,
                "numberAvailable": available, "numberReady": available}})
    };
    is(set(3, 3), "ready");
    is(set(2, 3), "progress");
    is(set(3, 2), "progress");
}

#[test]
fn a_job_is_ready_only_when_it_is_complete() {
    let job = |status: Value, spec: Value| json!({"apiVersion": "batch/v1", "kind": "Job", "spec": spec, "status": status});
    is(job(json!({"active": 1}), json!({})), "progress");
    is(
        job(json!({"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}), json!({})),
        "ready",
    );
    is(
        job(
            json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}),
            json!({}),
        ),
        "KUBE-046",
    );
    is(job(json!({"conditions": [{"type": "FailureTarget", "status": "True"}]}), json!({})), "KUBE-046");
    is(job(json!({}), json!({"suspend": true})), "ready");
}

#[test]
fn other_kinds_by_their_own_words() {
    let object = |api: &str, kind: &str, spec: Value, status: Value| json!({"apiVersion": api, "kind": kind, "spec": spec, "status": status});
    let condition = |kind: &str, status: &str| json!({"conditions": [{"type": kind, "status": status, "reason": "R", "message": "m"}]});
    is(object("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Pending"})), "progress");
    is(object("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Bound"})), "ready");
    is(object("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Lost"})), "KUBE-050");
    is(object("v1", "Service", json!({"type": "ClusterIP"}), json!({"loadBalancer": {}})), "ready");
    is(object("v1", "Service", json!({"type": "LoadBalancer"}), json!({"loadBalancer": {}})), "progress");
    is(
        object(
            "v1",
            "Service",
            json!({"type": "LoadBalancer"}),
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}),
        ),
        "ready",
    );
    let crd = |status| object("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({}), status);
    is(crd(condition("Established", "True")), "ready");
    is(crd(json!({})), "progress");
    is(crd(condition("NamesAccepted", "False")), "KUBE-050");
    is(
        object(
            "v1",
            "Pod",
            json!({}),
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
        ),
        "ready",
    );
    is(object("v1", "Pod", json!({}), json!({"phase": "Pending"})), "progress");
    is(object("v1", "Pod", json!({}), json!({"phase": "Failed", "reason": "Evicted"})), "KUBE-041");
    is(object("batch/v1", "CronJob", json!({}), json!({})), "ready");
    is(object("v1", "ConfigMap", json!({}), Value::Null), "ready");
    is(object("example.com/v1", "Thing", json!({}), condition("Ready", "False")), "progress");
    is(object("example.com/v1", "Thing", json!({}), condition("Ready", "True")), "ready");
    is(object("example.com/v1", "Thing", json!({}), condition("Stalled", "True")), "KUBE-050");
    is(object("example.com/v1", "Thing", json!({}), condition("Reconciling", "True")), "progress");
    is(Value::Null, "ready");
    is(json!({"metadata": {"generation": 3}, "status": {"observedGeneration": 2}}), "progress");
}
