//! Conclusions over time, without a cluster: the time is a number.

use super::*;
use serde_json::json;

const START: &str = "2026-01-01T00:10:00Z";

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn target() -> Target {
    Target {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        namespace: "n".into(),
        name: "web".into(),
    }
}

fn picture() -> Picture {
    picture_with(Limits::default())
}

fn picture_with(limits: Limits) -> Picture {
    let mut picture = Picture::new(&[target()], limits, START.into());
    picture.pods_known(&[0]);
    picture.sets_known(&[0]);
    picture
}

fn deployment(updated: u64, ready: u64) -> Value {
    json!({"metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 2,
            "annotations": {"deployment.kubernetes.io/revision": "2"}},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": updated, "readyReplicas": ready,
            "availableReplicas": ready}})
}

fn set(uid: &str, revision: &str, conditions: Value) -> ReplicaSet {
    serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "n", "uid": uid,
        "annotations": {"deployment.kubernetes.io/revision": revision},
        "ownerReferences": [{"uid": "d", "controller": true}]}, "status": {"conditions": conditions}}))
    .unwrap()
}

fn pod(uid: &str, owner: &str, made: &str, status: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "n", "uid": uid, "creationTimestamp": made,
            "ownerReferences": [{"uid": owner, "controller": true}]},
        "spec": {"restartPolicy": "Always", "containers": [{"name": "app", "image": "app:2"}]}, "status": status}))
    .unwrap()
}

fn pull_error() -> Value {
    json!({"phase": "Pending", "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "ErrImagePull",
        "message": "failed to pull: not found"}}}]})
}

fn one(picture: &mut Picture, now: Duration) -> Assessment {
    picture.assess(now).remove(0)
}

fn cause(assessment: &Assessment) -> Option<Cause> {
    match &assessment.conclusion {
        Conclusion::Failed { cause, .. } => Some(*cause),
        _ => None,
    }
}

#[test]
fn evidence_counts_when_it_has_stood_long_enough_and_not_when_it_went_away_in_between() {
    let mut picture = picture();
    picture.all_objects(&[0], vec![deployment(1, 1)]);
    picture.put_set(1, set("new", "2", json!([])));
    picture.put_pod(2, pod("p", "new", "2026-01-01T00:10:01Z", pull_error()));
    let first = one(&mut picture, at(10));
    assert_eq!((cause(&first), first.again), (None, Some(at(15))));
    picture.put_pod(2, pod("p", "new", "2026-01-01T00:10:01Z", json!({"phase": "Running"})));
    assert_eq!(cause(&one(&mut picture, at(14))), None);
    picture.put_pod(2, pod("p", "new", "2026-01-01T00:10:01Z", pull_error()));
    assert_eq!(cause(&one(&mut picture, at(15))), None, "it began anew");
    assert_eq!(cause(&one(&mut picture, at(20))), Some(Cause::ImagePull));
}

#[test]
fn pods_of_an_older_revision_are_no_evidence() {
    let mut picture = picture();
    picture.all_objects(&[0], vec![deployment(1, 1)]);
    picture.put_set(1, set("old", "1", json!([])));
    picture.put_set(1, set("new", "2", json!([])));
    picture.put_pod(2, pod("p", "old", "2026-01-01T00:10:01Z", pull_error()));
    assert_eq!(cause(&one(&mut picture, at(0))), None);
    assert_eq!(cause(&one(&mut picture, at(600))), None);
}

#[test]
fn the_revision_of_a_change_that_nobody_has_seen_is_that_of_before() {
    let mut picture = picture();
    let mut changed = deployment(1, 1);
    changed["metadata"]["generation"] = json!(3);
    changed["status"]["observedGeneration"] = json!(2);
    picture.all_objects(&[0], vec![changed.clone()]);
    picture.put_set(1, set("failing", "2", json!([])));
    picture.put_pod(2, pod("p", "failing", "2026-01-01T00:10:01Z", pull_error()));
    assert_eq!(cause(&one(&mut picture, at(0))), None);
    assert_eq!(
        cause(&one(&mut picture, at(600))),
        None,
        "the pods of a rollback's predecessor are no evidence"
    );
    changed["status"]["observedGeneration"] = json!(3);
    picture.all_objects(&[0], vec![changed]);
    assert_eq!(cause(&one(&mut picture, at(600))), None);
    assert_eq!(cause(&one(&mut picture, at(700))), Some(Cause::ImagePull), "it is the revision after all");
}

#[test]
fn a_container_that_has_ended_must_prove_itself_before_its_pod_counts() {
    let mut picture = picture();
    picture.all_objects(&[0], vec![deployment(2, 2)]);
    picture.put_set(1, set("new", "2", json!([])));
    let running = |restarts: u32, since: &str| {
        json!({"phase": "Running", "containerStatuses": [{"name": "app", "ready": true, "restartCount": restarts,
            "state": {"running": {"startedAt": since}}, "lastState": {"terminated": {"exitCode": 1}}}]})
    };
    picture.put_pod(2, pod("p", "new", "2026-01-01T00:10:01Z", running(1, "a")));
    let first = one(&mut picture, at(3));
    assert!(matches!(first.conclusion, Conclusion::Waiting(_)), "{first:?}");
    assert_eq!(first.again, Some(at(13)));
    // It ended again: the time begins anew.
    picture.put_pod(2, pod("p", "new", "2026-01-01T00:10:01Z", running(2, "b")));
    assert!(matches!(one(&mut picture, at(13)).conclusion, Conclusion::Waiting(_)));
    assert!(matches!(one(&mut picture, at(23)).conclusion, Conclusion::Ready(_)));
    // Restarts from long ago say nothing about this change.
    let mut other = picture_with(Limits::default());
    other.all_objects(&[0], vec![deployment(2, 2)]);
    other.put_set(1, set("new", "2", json!([])));
    other.put_pod(2, pod("p", "new", "2025-12-31T00:00:00Z", running(7, "a")));
    assert!(matches!(one(&mut other, at(0)).conclusion, Conclusion::Ready(_)));
}

#[test]
fn refused_pods_are_conclusive_only_while_nothing_moves() {
    let mut picture = picture();
    let quota = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "pods \"web-1\" is forbidden: exceeded quota: q"}]);
    picture.all_objects(&[0], vec![deployment(1, 1)]);
    picture.put_set(1, set("new", "2", quota));
    assert_eq!(cause(&one(&mut picture, at(0))), None);
    // Something moved.
    picture.put_object(&[0], {
        let mut object = deployment(1, 1);
        object["metadata"]["name"] = json!("web");
        object["status"]["replicas"] = json!(3);
        object
    });
    assert_eq!(cause(&one(&mut picture, at(6))), None);
    assert_eq!(cause(&one(&mut picture, at(12))), Some(Cause::Refused));
    // A pod that goes away may free the quota.
    let mut leaving = pod("old-1", "old", "2026-01-01T00:00:00Z", json!({"phase": "Running"}));
    leaving.metadata.deletion_timestamp = Some("2026-01-01T00:10:05Z".into());
    picture.put_pod(2, leaving);
    assert_eq!(cause(&one(&mut picture, at(13))), None);
}

#[test]
fn a_deadline_that_was_exceeded_before_gets_its_time_once_more() {
    let stuck = |updated: &str| {
        let mut object = deployment(1, 1);
        object["spec"]["progressDeadlineSeconds"] = json!(30);
        object["status"]["conditions"] = json!([{"type": "Progressing", "status": "False",
            "reason": "ProgressDeadlineExceeded", "message": "m", "lastUpdateTime": updated}]);
        object
    };
    let mut old = picture();
    old.all_objects(&[0], vec![stuck("2026-01-01T00:00:00Z")]);
    let first = one(&mut old, at(0));
    assert_eq!((cause(&first), first.again), (None, Some(at(30))));
    assert_eq!(cause(&one(&mut old, at(30))), Some(Cause::ProgressDeadline));
    // Written anew while waiting: it is about now.
    let mut new = picture();
    new.all_objects(&[0], vec![stuck("2026-01-01T00:00:00Z")]);
    new.put_object(&[0], stuck("2026-01-01T00:10:20Z"));
    assert_eq!(cause(&one(&mut new, at(20))), Some(Cause::ProgressDeadline));
    let mut trusting = picture_with(Limits { trust_old_deadline: true, ..Limits::default() });
    trusting.all_objects(&[0], vec![stuck("2026-01-01T00:00:00Z")]);
    assert_eq!(cause(&one(&mut trusting, at(0))), Some(Cause::ProgressDeadline));
}

#[test]
fn absence_is_known_only_after_the_list() {
    let mut picture = picture();
    assert_eq!(cause(&one(&mut picture, at(0))), None);
    picture.all_objects(&[0], Vec::new());
    assert_eq!(cause(&one(&mut picture, at(0))), Some(Cause::Missing));
    picture.put_object(&[0], deployment(2, 2));
    assert!(matches!(one(&mut picture, at(0)).conclusion, Conclusion::Ready(_)));
    picture.gone_object(&[0], &deployment(2, 2));
    let Conclusion::Failed { text, .. } = one(&mut picture, at(0)).conclusion else { panic!("not failed") };
    assert!(text.contains("deleted"), "{text}");
}

#[test]
fn three_pods_thrown_out_are_a_pattern() {
    let mut picture = picture();
    picture.all_objects(&[0], vec![deployment(1, 1)]);
    picture.put_set(1, set("new", "2", json!([])));
    for n in 0..3 {
        assert_eq!(cause(&one(&mut picture, at(n))), None);
        let out = json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
        picture.put_pod(2, pod(&format!("p{n}"), "new", &format!("2026-01-01T00:10:0{n}Z"), out));
    }
    assert_eq!(cause(&one(&mut picture, at(3))), Some(Cause::Rejected));
}

#[test]
fn a_workload_is_not_ready_before_its_pods_were_looked_at() {
    let mut picture = Picture::new(&[target()], Limits::default(), START.into());
    picture.all_objects(&[0], vec![deployment(2, 2)]);
    assert!(matches!(one(&mut picture, at(0)).conclusion, Conclusion::Waiting(_)));
    picture.pods_known(&[0]);
    assert!(matches!(one(&mut picture, at(0)).conclusion, Conclusion::Waiting(_)));
    picture.sets_known(&[0]);
    assert!(matches!(one(&mut picture, at(0)).conclusion, Conclusion::Ready(_)));
}
