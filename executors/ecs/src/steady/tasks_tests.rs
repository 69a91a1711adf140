use super::*;
use serde_json::json;

fn target() -> Target {
    Target {
        deployment: Some("ecs-svc/2".into()),
        task_definition: "arn:aws:ecs:eu-west-1:1:task-definition/web:2".into(),
        created: Some(1_000_000),
        ..Target::default()
    }
}

fn stopped(id: &str, code: &str, why: &str, exit: Option<i32>) -> Task {
    Task::read(&json!({
        "taskArn": format!("arn:aws:ecs:eu-west-1:1:task/c/{id}"), "taskDefinitionArn": target().task_definition,
        "startedBy": "ecs-svc/2", "lastStatus": "STOPPED", "stopCode": code, "stoppedReason": why,
        "createdAt": 1001, "startedAt": 1002, "stoppedAt": 1003, "containers": [{"name": "app", "exitCode": exit}],
    }))
}

fn cause(code: &str, why: &str, exit: Option<i32>) -> Option<Option<Cause>> {
    reason(&stopped("1", code, why, exit)).map(|reason| reason.cause)
}

#[test]
fn what_says_nothing_about_the_deployment_does_not_count() {
    for (code, why) in [
        ("SpotInterruption", "Spot interruption"),
        ("UserInitiated", "stopped by hand"),
        ("TerminationNotice", ""),
        ("ServiceSchedulerInitiated", "Scaling activity initiated by (deployment ecs-svc/2)"),
    ] {
        assert_eq!(cause(code, why, Some(137)), None, "{code}");
    }
    assert_eq!(cause("InfrastructureHealth", "host retired", None), Some(None));
    let why = "Task failed ELB health checks in (target-group arn:aws:…)";
    assert_eq!(cause("ServiceSchedulerInitiated", why, Some(143)), Some(None));
}

#[test]
fn reasons_that_cannot_pass_are_told_from_those_that_may() {
    let pull = "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref x/y:9:";
    for (why, expected) in [
        (format!("{pull} x/y:9: not found"), Some(Cause::Image)),
        (format!("{pull} pull access denied"), Some(Cause::Image)),
        (format!("{pull} dial tcp 10.0.0.1:443: i/o timeout"), None),
        (format!("{pull} toomanyrequests: denied for now"), None),
        (
            "ResourceInitializationError: unable to pull secrets or registry auth: AccessDeniedException"
                .into(),
            Some(Cause::Resources),
        ),
        ("ResourceInitializationError: unable to pull secrets: context deadline exceeded".into(), None),
        ("ResourceInitializationError: failed to mount EFS".into(), None),
        (
            "ECS was unable to assume the role 'arn:aws:iam::1:role/x' that was provided for this task"
                .into(),
            Some(Cause::Resources),
        ),
        ("CannotStartContainerError: exec: \"nope\": executable file not found".into(), Some(Cause::Exit)),
        ("InternalError: try again".into(), None),
    ] {
        assert_eq!(cause("TaskFailedToStart", &why, None), Some(expected), "{why}");
    }
    assert_eq!(
        cause("EssentialContainerExited", "Essential container in task exited", Some(0)),
        Some(Some(Cause::Exit))
    );
}

#[test]
fn equal_reasons_are_one_group_whatever_their_ids() {
    let mut all = Stopped::default();
    let why = |id: &str, ip: &str| format!("Task failed container health checks: task {id} at {ip} took 1s");
    let tasks = [
        stopped("a", "ServiceSchedulerInitiated", &why("0123456789abcdef0123456789abcdef", "10.0.0.7"), None),
        stopped("b", "ServiceSchedulerInitiated", &why("ffff456789abcdef0123456789abcdef", "10.0.0.8"), None),
        stopped("c", "EssentialContainerExited", "", Some(3)),
    ];
    all.take(&target(), &tasks);
    all.take(&target(), &tasks);
    let groups: Vec<(u32, Option<i32>)> = all.groups().iter().map(|g| (g.times, g.reason.exit)).collect();
    assert_eq!(groups, [(2, None), (1, Some(3))]);
    assert_eq!(all.worst().unwrap().reason.words, "container app ended with exit code 3");
}

#[test]
fn tasks_of_other_deployments_and_revisions_are_nobody_s_evidence() {
    let ours = stopped("a", "EssentialContainerExited", "", Some(1));
    let mut other = ours.clone();
    other.started_by = "ecs-svc/1".into();
    assert!(ours.is_of(&target()) && !other.is_of(&target()));
    let mut revision = ours.clone();
    revision.task_definition = "arn:aws:ecs:eu-west-1:1:task-definition/web:1".into();
    assert!(!revision.is_of(&target()));
    // An emulator that names no deployment: revision and time.
    let mut unnamed = ours.clone();
    unnamed.started_by = "web".into();
    assert!(unnamed.is_of(&target()));
    unnamed.created = Some(999_000);
    assert!(!unnamed.is_of(&target()));
}

#[test]
fn a_task_that_lives_on_tells_that_the_others_ends_are_not_the_rule() {
    let mut all = Stopped::default();
    all.take(&target(), &[stopped("a", "EssentialContainerExited", "", Some(1))]);
    let running = |started: i64| Task { started: Some(started), ..Task::default() };
    // By AWS' own clock it is 1003 s; the task that crashed lived for one second.
    assert!(!all.outlived(&[running(1_003_000)]));
    assert!(!all.outlived(&[running(995_000)]));
    assert!(all.outlived(&[running(991_000)]));
    assert!(!all.outlived(&[]));
}

#[test]
fn ids_and_addresses_are_not_part_of_a_reason() {
    for (words, is) in [
        ("task 0123456789abcdef0123456789abcdef ended", "task … ended"),
        ("10.0.3.17:8080 refused", "…:8080 refused"),
        ("image web:7 of repo v1.2", "image web:7 of repo v1.2"),
        ("deadbeefdeadbeef", "deadbeefdeadbeef"),
    ] {
        assert_eq!(general(words), is);
    }
}
