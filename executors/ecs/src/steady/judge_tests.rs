use super::*;
use crate::steady::view::Event;
use proptest::prelude::*;
use serde_json::{Value, json};

const OLD: &str = "arn:aws:ecs:eu-west-1:1:task-definition/web:1";
const NEW: &str = "arn:aws:ecs:eu-west-1:1:task-definition/web:2";
const OTHER: &str = "arn:aws:ecs:eu-west-1:1:task-definition/web:3";

fn target() -> Target {
    Target {
        cluster: "c".into(),
        service: "web".into(),
        deployment: Some("ecs-svc/2".into()),
        created: Some(2_000),
        task_definition: NEW.into(),
        previous_task_definition: Some(OLD.into()),
        desired: Some(2),
        ..Target::default()
    }
}

/// id, status, revision, state, desired, running, second of its birth.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, u32, u32, u32);

fn ours(state: &'static str, desired: u32, running: u32) -> Row<'static> {
    ("ecs-svc/2", "PRIMARY", NEW, state, desired, running, 2)
}

const DRAINING: Row<'static> = ("ecs-svc/1", "ACTIVE", OLD, "COMPLETED", 2, 2, 1);

fn described(rows: &[Row<'_>], rolls_back: bool) -> Value {
    let deployments: Vec<Value> = rows
        .iter()
        .map(|(id, status, revision, state, desired, running, born)| {
            json!({"id": id, "status": status, "taskDefinition": revision, "rolloutState": state, "desiredCount": desired,
                "runningCount": running, "pendingCount": desired.saturating_sub(*running), "createdAt": born, "updatedAt": born,
                "rolloutStateReason": format!("{id} is {state}")})
        })
        .collect();
    let first = rows.first();
    let running: u32 = rows.iter().map(|row| row.5).sum();
    json!({"serviceName": "web", "status": "ACTIVE", "desiredCount": first.map_or(0, |row| row.4), "runningCount": running,
        "pendingCount": 0, "deployments": deployments, "events": [],
        "deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": rolls_back, "rollback": rolls_back}}})
}

fn service(rows: &[Row<'_>]) -> Service {
    Service::read(&described(rows, false))
}

fn breaking(rows: &[Row<'_>]) -> Service {
    Service::read(&described(rows, true))
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn judge() -> Judge {
    Judge::new(target(), Patience::default())
}

fn tasks(revision: &str, started_by: &str, number: u32) -> Vec<Task> {
    let task = |id| Task {
        arn: format!("arn:task/{id}"),
        task_definition: revision.into(),
        started_by: started_by.into(),
        last_status: "RUNNING".into(),
        ..Task::default()
    };
    (0..number).map(task).collect()
}

fn crashed(from: u32, number: u32) -> Vec<Task> {
    let task = |id| {
        Task::read(
            &json!({"taskArn": format!("arn:task/x{id}"), "taskDefinitionArn": NEW, "startedBy": "ecs-svc/2",
        "lastStatus": "STOPPED", "stopCode": "EssentialContainerExited", "createdAt": 3, "startedAt": 4, "stoppedAt": 5,
        "containers": [{"name": "app", "exitCode": 7}]}),
        )
    };
    (from..from + number).map(task).collect()
}

fn going(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Going(words) => words,
        other => panic!("over: {other:?}"),
    }
}

fn failure(verdict: Verdict) -> Failure {
    match verdict {
        Verdict::Failed(failure) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

#[test]
fn a_rollout_succeeds_when_it_is_complete_and_its_tasks_are_found() {
    let mut judge = judge();
    let (verdict, wants) =
        judge.apply(News::Service(Some(&service(&[ours("IN_PROGRESS", 2, 1), DRAINING]))), at(2));
    assert_eq!(going(&verdict), "1 of 2 tasks of web:2 run, 1 pending");
    assert_eq!(wants, Wants::default());
    let (verdict, _) =
        judge.apply(News::Service(Some(&service(&[ours("IN_PROGRESS", 2, 2), DRAINING]))), at(4));
    assert!(going(&verdict).contains("still replaces others"), "{verdict:?}");
    // Old tasks that drain are no obstacle.
    let (verdict, wants) =
        judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 2, 2), DRAINING]))), at(6));
    assert!(wants.running, "{verdict:?}");
    let (verdict, _) = judge.apply(News::Running(&tasks(OLD, "ecs-svc/1", 2)), at(6));
    assert!(going(&verdict).contains("0 of 2"), "{verdict:?}");
    let (_, wants) = judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 2, 2)]))), at(8));
    assert!(wants.running);
    let (verdict, _) = judge.apply(News::Running(&tasks(NEW, "ecs-svc/2", 2)), at(8));
    assert_eq!(verdict, Verdict::Succeeded);
}

#[test]
fn completed_without_running_tasks_is_no_success() {
    let (verdict, wants) = judge().apply(News::Service(Some(&service(&[ours("COMPLETED", 2, 0)]))), at(2));
    assert!(going(&verdict).starts_with("0 of 2"));
    assert!(!wants.running);
}

#[test]
fn answers_from_before_our_write_are_not_judged() {
    let before = service(&[("ecs-svc/1", "PRIMARY", OLD, "COMPLETED", 2, 2, 1)]);
    let mut judge = judge();
    for second in [1, 30, 59] {
        let (verdict, _) = judge.apply(News::Service(Some(&before)), at(second));
        assert!(going(&verdict).contains("does not show the change"), "{second}");
    }
    // Later on it is the truth.
    let (verdict, _) = judge.apply(News::Service(Some(&before)), at(60));
    assert!(matches!(failure(verdict), Failure::Superseded { .. }));
}

#[test]
fn an_answer_that_shows_something_younger_is_not_from_before() {
    let mut after = service(&[("ecs-svc/3", "PRIMARY", OTHER, "IN_PROGRESS", 2, 0, 3)]);
    let (verdict, _) = judge().apply(News::Service(Some(&after)), at(1));
    let expected = Failure::Superseded {
        deployment: "ecs-svc/3".into(),
        task_definition: OTHER.into(),
        ours_failed: None,
    };
    assert_eq!(failure(verdict), expected);
    after = service(&[("ecs-svc/1", "PRIMARY", OLD, "COMPLETED", 2, 2, 1)]);
    after.events = vec![Event { id: "e".into(), at: Some(2_500), message: "m".into() }];
    assert!(matches!(judge().apply(News::Service(Some(&after)), at(1)).0, Verdict::Failed(_)));
}

#[test]
fn a_rollback_by_aws_is_followed_to_its_end_and_told_as_one() {
    let mut judge = judge();
    let failed = ("ecs-svc/2", "PRIMARY", NEW, "FAILED", 0, 0, 2);
    let (verdict, _) = judge.apply(News::Service(Some(&breaking(&[failed, DRAINING]))), at(2));
    assert!(going(&verdict).contains("is to roll it back"));
    let failed = ("ecs-svc/2", "ACTIVE", NEW, "FAILED", 0, 0, 2);
    let back = ("ecs-svc/1", "PRIMARY", OLD, "IN_PROGRESS", 2, 1, 1);
    let (verdict, _) = judge.apply(News::Service(Some(&breaking(&[back, failed]))), at(4));
    assert_eq!(going(&verdict), "AWS rolls back to web:1: 1 of 2 tasks run");
    let running = judge.failing().unwrap();
    assert!(matches!(running, Failure::RolledBack { state: Rollback::Running, .. }));
    let back = ("ecs-svc/1", "PRIMARY", OLD, "COMPLETED", 2, 2, 1);
    let (verdict, _) = judge.apply(News::Service(Some(&breaking(&[back, failed]))), at(6));
    let expected =
        Failure::RolledBack { to: OLD.into(), reason: "ecs-svc/2 is FAILED".into(), state: Rollback::Done };
    assert_eq!(failure(verdict), expected);
}

#[test]
fn a_rollback_that_was_over_before_the_first_look_is_recognised() {
    let back = ("ecs-svc/9", "PRIMARY", OLD, "COMPLETED", 2, 2, 3);
    let (verdict, _) = judge().apply(News::Service(Some(&breaking(&[back]))), at(2));
    assert!(matches!(failure(verdict), Failure::RolledBack { state: Rollback::Done, .. }));
}

#[test]
fn somebody_who_deploys_the_old_revision_by_hand_supersedes_us() {
    let back = ("ecs-svc/3", "PRIMARY", OLD, "IN_PROGRESS", 2, 0, 3);
    let stopped = ("ecs-svc/2", "ACTIVE", NEW, "IN_PROGRESS", 2, 1, 2);
    for service in [service(&[back]), breaking(&[back, stopped])] {
        let (verdict, _) = judge().apply(News::Service(Some(&service)), at(2));
        assert!(matches!(failure(verdict), Failure::Superseded { ours_failed: None, .. }));
    }
}

#[test]
fn a_deployment_after_our_failure_is_nobody_s_rollback() {
    let mut judge = judge();
    let failed = ("ecs-svc/2", "PRIMARY", NEW, "FAILED", 0, 0, 2);
    judge.apply(News::Service(Some(&breaking(&[failed, DRAINING]))), at(2));
    let other = ("ecs-svc/3", "PRIMARY", OTHER, "COMPLETED", 2, 2, 9);
    let (verdict, _) = judge.apply(News::Service(Some(&breaking(&[other]))), at(4));
    assert!(matches!(failure(verdict), Failure::Superseded { ours_failed: Some(_), .. }));
}

#[test]
fn the_service_deployment_tells_why_another_took_over() {
    let asked = Target { service_deployment: Some("arn:sd".into()), ..target() };
    let back = ("ecs-svc/3", "PRIMARY", OLD, "COMPLETED", 2, 2, 3);
    let told = |rollback: Option<&str>| ServiceDeployment {
        status: if rollback.is_some() { "ROLLBACK_SUCCESSFUL" } else { "STOPPED" }.into(),
        rollback: rollback.map(str::to_owned),
        ..ServiceDeployment::default()
    };
    for (rollback, by_aws) in [(Some("alarm"), true), (None, false)] {
        let mut judge = Judge::new(asked.clone(), Patience::default());
        let (_, wants) = judge.apply(News::Service(Some(&service(&[back]))), at(2));
        assert!(wants.service_deployment);
        let (verdict, _) = judge.apply(News::ServiceDeployment(Some(told(rollback))), at(2));
        assert_eq!(matches!(failure(verdict), Failure::RolledBack { .. }), by_aws);
    }
}

#[test]
fn failed_without_a_rollback_fails_at_once() {
    let failed = ("ecs-svc/2", "PRIMARY", NEW, "FAILED", 2, 0, 2);
    let (verdict, _) = judge().apply(News::Service(Some(&service(&[failed, DRAINING]))), at(2));
    let expected = Failure::Broken { reason: "ecs-svc/2 is FAILED".into(), rollback_expected: false };
    assert_eq!(failure(verdict), expected);
    // The first deployment of a service has nothing to go back to.
    let first = Target { previous_task_definition: None, ..target() };
    let (verdict, _) =
        Judge::new(first, Patience::default()).apply(News::Service(Some(&breaking(&[failed]))), at(2));
    assert!(matches!(failure(verdict), Failure::Broken { rollback_expected: false, .. }));
    // One that is set and does not come.
    let mut judge = judge();
    judge.apply(News::Service(Some(&breaking(&[failed, DRAINING]))), at(2));
    let (verdict, _) = judge.apply(News::Stopped(&[]), at(32));
    assert!(matches!(failure(verdict), Failure::Broken { rollback_expected: true, .. }));
}

#[test]
fn an_autoscaler_may_change_the_count_while_we_wait() {
    for (desired, running) in [(10, 2), (1, 1), (4, 4)] {
        let mut judge = judge();
        judge.apply(News::Service(Some(&service(&[ours("IN_PROGRESS", 2, 0)]))), at(1));
        judge.apply(News::Service(Some(&service(&[ours("COMPLETED", desired, running)]))), at(2));
        let (verdict, _) = judge.apply(News::Running(&tasks(NEW, "ecs-svc/2", running)), at(2));
        assert_eq!(verdict, Verdict::Succeeded, "{desired}");
    }
}

#[test]
fn a_new_count_must_be_seen_before_it_counts_as_reached() {
    let mut judge = Judge::new(Target { desired: Some(4), ..target() }, Patience::default());
    let (verdict, wants) = judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 2, 2)]))), at(1));
    assert!(going(&verdict).contains("new count") && !wants.running);
    let (verdict, _) = judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 4, 2)]))), at(3));
    assert!(going(&verdict).starts_with("2 of 4"));
    let (_, wants) = judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 4, 4)]))), at(5));
    assert!(wants.running);
}

#[test]
fn fewer_tasks_are_reached_when_the_surplus_has_gone() {
    let mut judge = Judge::new(Target { desired: Some(1), ..target() }, Patience::default());
    let (verdict, _) = judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 1, 3)]))), at(1));
    assert!(going(&verdict).starts_with("3 of 1"));
    let (_, wants) = judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 1, 1)]))), at(2));
    assert!(wants.running);
}

#[test]
fn nothing_is_reached_when_nothing_runs() {
    let none = Target { desired: Some(0), ..target() };
    let mut judge = Judge::new(none.clone(), Patience::default());
    let (verdict, _) =
        judge.apply(News::Service(Some(&service(&[ours("IN_PROGRESS", 0, 0), DRAINING]))), at(1));
    assert_eq!(going(&verdict), "2 tasks still run, 0 are pending");
    let (verdict, _) = judge.apply(News::Service(Some(&service(&[ours("IN_PROGRESS", 0, 0)]))), at(2));
    assert_eq!(verdict, Verdict::Succeeded);
    // An autoscaler that raises it again is waited for like any other count.
    let mut judge = Judge::new(none, Patience::default());
    judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 0, 1)]))), at(1));
    let (verdict, _) = judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 2, 1)]))), at(2));
    assert!(going(&verdict).starts_with("1 of 2"));
}

#[test]
fn a_daemon_has_the_count_that_ecs_gives_it() {
    let mut judge = Judge::new(Target { desired: None, ..target() }, Patience::default());
    let (verdict, _) = judge.apply(News::Service(Some(&service(&[ours("IN_PROGRESS", 0, 0)]))), at(1));
    assert!(matches!(verdict, Verdict::Going(_)));
    judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 3, 3)]))), at(9));
    let (verdict, _) = judge.apply(News::Running(&tasks(NEW, "ecs-svc/2", 3)), at(9));
    assert_eq!(verdict, Verdict::Succeeded);
}

#[test]
fn without_rollout_states_a_service_must_stand_still_or_say_that_it_is_steady() {
    let stateless = ("ecs-svc/2", "PRIMARY", NEW, "", 2, 2, 2);
    let mut judge = judge();
    let (verdict, _) = judge.apply(News::Service(Some(&service(&[stateless, DRAINING]))), at(1));
    assert!(matches!(verdict, Verdict::Going(_)));
    let (_, wants) = judge.apply(News::Service(Some(&service(&[stateless]))), at(2));
    assert!(!wants.running);
    let (_, wants) = judge.apply(News::Service(Some(&service(&[stateless]))), at(33));
    assert!(wants.running);
    let mut told = service(&[stateless]);
    let message = "(service web) has reached a steady state.".to_owned();
    told.events = vec![Event { id: "e".into(), at: Some(1_999), message: message.clone() }];
    let mut judge = Judge::new(target(), Patience::default());
    assert!(!judge.apply(News::Service(Some(&told)), at(1)).1.running);
    told.events = vec![Event { id: "e".into(), at: Some(2_000), message }];
    assert!(judge.apply(News::Service(Some(&told)), at(2)).1.running);
}

#[test]
fn a_service_that_is_no_longer_active_fails_and_a_missing_one_after_a_while() {
    let mut draining = service(&[ours("IN_PROGRESS", 2, 0)]);
    draining.status = "DRAINING".into();
    let (verdict, _) = judge().apply(News::Service(Some(&draining)), at(2));
    assert_eq!(failure(verdict), Failure::NotActive { status: "DRAINING".into() });
    let mut judge = judge();
    assert!(matches!(judge.apply(News::Service(None), at(59)).0, Verdict::Going(_)));
    let (verdict, _) = judge.apply(News::Service(None), at(60));
    assert_eq!(failure(verdict), Failure::NotActive { status: "MISSING".into() });
}

#[test]
fn a_deleted_namesake_right_after_creation_is_from_before() {
    let mut before = service(&[("ecs-svc/1", "PRIMARY", OLD, "COMPLETED", 0, 0, 1)]);
    before.status = "INACTIVE".into();
    let (verdict, _) = judge().apply(News::Service(Some(&before)), at(1));
    assert!(going(&verdict).contains("does not show the change"));
}

#[test]
fn the_same_unrecoverable_reason_thrice_ends_the_wait() {
    let mut judge = judge();
    let mut now = service(&[ours("IN_PROGRESS", 2, 0), DRAINING]);
    now.deployments[0].failed = 1;
    let (_, wants) = judge.apply(News::Service(Some(&now)), at(2));
    assert!(wants.stopped, "a growing count of failed tasks is looked into");
    let (verdict, _) = judge.apply(News::Stopped(&crashed(0, 2)), at(2));
    assert!(going(&verdict).contains("exit code 7 (2 tasks)"), "{verdict:?}");
    let (verdict, _) = judge.apply(News::Stopped(&crashed(1, 2)), at(3));
    let expected = Failure::Unrecoverable {
        cause: Cause::Exit,
        words: "container app ended with exit code 7".into(),
        times: 3,
        exit: Some(7),
    };
    assert_eq!(failure(verdict), expected);
}

#[test]
fn crashes_are_no_rule_while_a_task_lives_through_them() {
    let mut judge = judge();
    judge.apply(News::Service(Some(&service(&[ours("IN_PROGRESS", 2, 1)]))), at(2));
    let (_, wants) = judge.apply(News::Stopped(&crashed(0, 5)), at(3));
    assert!(wants.running);
    let mut alive = tasks(NEW, "ecs-svc/2", 1);
    alive[0].started = Some(3_000);
    alive[0].created = Some(60_000);
    let (verdict, _) = judge.apply(News::Running(&alive), at(3));
    assert!(matches!(verdict, Verdict::Going(_)), "{verdict:?}");
}

#[test]
fn a_breaker_that_is_about_to_trip_goes_first() {
    let mut judge = judge();
    judge.apply(News::Service(Some(&breaking(&[ours("IN_PROGRESS", 2, 0), DRAINING]))), at(2));
    assert!(matches!(judge.apply(News::Stopped(&crashed(0, 3)), at(3)).0, Verdict::Going(_)));
    let (verdict, _) = judge.apply(News::Stopped(&[]), at(63));
    assert!(matches!(failure(verdict), Failure::Unrecoverable { .. }));
    // One that needs fifty failures is not waited for.
    let mut judge = Judge::new(Target { desired: Some(100), ..target() }, Patience::default());
    judge.apply(News::Service(Some(&breaking(&[ours("IN_PROGRESS", 100, 0), DRAINING]))), at(2));
    assert!(matches!(judge.apply(News::Stopped(&crashed(0, 3)), at(3)).0, Verdict::Failed(_)));
}

#[test]
fn a_rollout_that_does_not_move_is_looked_into_from_time_to_time() {
    let mut judge = judge();
    let now = service(&[ours("IN_PROGRESS", 2, 0), DRAINING]);
    let mut looks = Vec::new();
    for second in 0..200 {
        if judge.apply(News::Service(Some(&now)), at(second)).1.stopped {
            looks.push(second);
        }
    }
    assert_eq!(looks, [15, 30, 60, 120, 180]);
}

#[test]
fn baking_begins_anew_when_it_was_not_steady() {
    let patience = Patience { bake: at(10), ..Patience::default() };
    let mut judge = Judge::new(target(), patience);
    let steady = service(&[ours("COMPLETED", 2, 2)]);
    for second in [1, 5, 10] {
        assert!(!judge.apply(News::Service(Some(&steady)), at(second)).1.running);
    }
    judge.apply(News::Service(Some(&service(&[ours("COMPLETED", 2, 1)]))), at(11));
    assert!(!judge.apply(News::Service(Some(&steady)), at(12)).1.running);
    assert!(!judge.apply(News::Service(Some(&steady)), at(21)).1.running);
    assert!(judge.apply(News::Service(Some(&steady)), at(22)).1.running);
    // An alarm that ends it while it bakes is a failure.
    let failed = ("ecs-svc/2", "PRIMARY", NEW, "FAILED", 2, 2, 2);
    assert!(matches!(judge.apply(News::Service(Some(&service(&[failed]))), at(23)).0, Verdict::Failed(_)));
}

#[test]
fn another_strategy_is_judged_by_its_service_deployment() {
    let native = |rows: &[Row<'_>]| Service { native: true, ..service(rows) };
    let asked = Target { service_deployment: Some("arn:sd".into()), ..target() };
    let told = |status: &str| {
        News::ServiceDeployment(Some(ServiceDeployment {
            status: status.into(),
            ..ServiceDeployment::default()
        }))
    };
    let mut judge = Judge::new(asked.clone(), Patience::default());
    let now = native(&[ours("COMPLETED", 2, 2), DRAINING]);
    assert!(judge.apply(News::Service(Some(&now)), at(1)).1.service_deployment);
    assert!(matches!(judge.apply(told("IN_PROGRESS"), at(1)).0, Verdict::Going(_)));
    assert!(judge.apply(News::Service(Some(&now)), at(3)).1.service_deployment);
    assert!(judge.apply(told("SUCCESSFUL"), at(3)).1.running);
    for (status, expected) in [("ROLLBACK_SUCCESSFUL", Rollback::Done), ("ROLLBACK_FAILED", Rollback::Failed)]
    {
        let mut judge = Judge::new(asked.clone(), Patience::default());
        judge.apply(News::Service(Some(&now)), at(1));
        let failed = failure(judge.apply(told(status), at(1)).0);
        assert!(matches!(failed, Failure::RolledBack { state, .. } if state == expected));
    }
}

#[test]
fn what_others_control_is_counted() {
    let scaled = Target {
        desired: Some(3),
        deployment: None,
        created: None,
        task_definition: String::new(),
        previous_task_definition: None,
        ..target()
    };
    let mut judge = Judge::new(scaled, Patience::default());
    let of = |running: u32| {
        Service::read(
            &json!({"status": "ACTIVE", "desiredCount": 3, "runningCount": running, "pendingCount": 0}),
        )
    };
    assert!(matches!(judge.apply(News::Service(Some(&of(1))), at(1)).0, Verdict::Going(_)));
    assert!(!judge.apply(News::Service(Some(&of(3))), at(2)).1.running);
    assert!(judge.apply(News::Service(Some(&of(3))), at(40)).1.running);
}

/// One answer out of anything that ECS might show.
fn any_answer() -> impl Strategy<Value = Option<Service>> {
    let deployment = (
        prop::sample::select(vec!["ecs-svc/1", "ecs-svc/2", "ecs-svc/3"]),
        prop::sample::select(vec!["PRIMARY", "ACTIVE", "INACTIVE"]),
        prop::sample::select(vec!["COMPLETED", "IN_PROGRESS", "FAILED", ""]),
        (0u32..4, 0u32..4, 0u32..4),
    );
    let rows = prop::collection::vec(deployment, 0..4);
    let service =
        (rows, 0u32..4, any::<bool>(), prop::sample::select(vec!["ACTIVE", "DRAINING", "INACTIVE"]));
    prop::option::weighted(0.9, service).prop_map(|found| {
        let (rows, desired, rolls_back, status) = found?;
        let rows: Vec<Row<'_>> = rows
            .iter()
            .map(|(id, place, state, (desired, running, born))| {
                let revision = match *id {
                    "ecs-svc/1" => OLD,
                    "ecs-svc/2" => NEW,
                    _ => OTHER,
                };
                (*id, *place, revision, *state, *desired, *running, *born)
            })
            .collect();
        let mut service = Service::read(&described(&rows, rolls_back));
        service.desired = desired;
        service.status = status.into();
        Some(service)
    })
}

fn any_tasks() -> impl Strategy<Value = Vec<Task>> {
    let one = (
        prop::sample::select(vec![OLD, NEW, OTHER]),
        prop::sample::select(vec!["ecs-svc/1", "ecs-svc/2"]),
        0u32..3,
    );
    prop::collection::vec(one, 0..3).prop_map(|groups| {
        groups.into_iter().flat_map(|(revision, by, number)| tasks(revision, by, number)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever ECS shows in whatever order: success is said only of our own deployment of our own revision, primary and
    /// not failed, whose running tasks were found.
    #[test]
    fn no_order_of_answers_makes_another_revision_a_success(
        answers in prop::collection::vec((any_answer(), any_tasks(), 1u64..40), 1..25),
        desired in prop::option::of(0u32..4),
        rolls_back in any::<bool>(),
    ) {
        let asked = Target { desired, ..target() };
        let mut judge = Judge::new(asked, Patience::default());
        let mut now = 0;
        for (answer, found, pause) in answers {
            now += pause;
            let answer = answer.map(|service| Service { alarms_roll_back: rolls_back, ..service });
            let (mut verdict, wants) = judge.apply(News::Service(answer.as_ref()), at(now));
            if wants.running {
                verdict = judge.apply(News::Running(&found), at(now)).0;
            }
            match verdict {
                Verdict::Going(words) => prop_assert!(!words.is_empty()),
                Verdict::Failed(_) => return Ok(()),
                Verdict::Succeeded => {
                    let service = answer.expect("a success follows from an answer");
                    prop_assert_eq!(&service.status, "ACTIVE");
                    // Two entries of one id cannot be in a real answer; the first is the one that was judged.
                    let ours = service.deployments.iter().find(|d| d.id == "ecs-svc/2").expect("ours is there");
                    prop_assert!(ours.primary && ours.rollout != Some(Rollout::Failed));
                    prop_assert!(ours.running <= ours.desired);
                    let need = match desired { Some(n) if n > 0 => n.min(ours.desired), _ => ours.desired };
                    prop_assert!(ours.running >= need);
                    let ours = found.iter().filter(|t| t.task_definition == NEW && t.started_by == "ecs-svc/2").count();
                    prop_assert!(need == 0 || ours >= need as usize);
                    return Ok(());
                }
            }
        }
    }

    /// Time alone never makes a success, and a failure is final for the same state.
    #[test]
    fn time_alone_makes_no_success(answer in any_answer(), spans in prop::collection::vec(1u64..100, 1..10)) {
        let mut judge = Judge::new(target(), Patience::default());
        let mut now = 1;
        let (first, _) = judge.apply(News::Service(answer.as_ref()), at(now));
        // Of nothing that stands still there is nothing more to see.
        let something = answer.as_ref().is_none_or(|service| service.deployments.iter().all(|d| d.desired > 0));
        if !something || !matches!(first, Verdict::Going(_)) {
            return Ok(());
        }
        for span in spans {
            now += span;
            let (verdict, _) = judge.apply(News::Stopped(&[]), at(now));
            prop_assert!(verdict != Verdict::Succeeded);
        }
    }
}
