//! RetryStepGroup: a failed group runs again from its beginning.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::machine::{Action, State};
use pipeline::view::execution_view;
use proto::failure::FailureKind;
use std::collections::BTreeSet;
use support::*;

const GROUP: &str = "pipeline.stages.s.spec.execution.steps.g";
const STRATEGY: &str = "failureStrategies: [{onFailure: {errors: [AllErrors], action: {type: RetryStepGroup, spec: {retryCount: 2, retryIntervals: [10s, 20s]}}}}]";

fn group(more: &str, steps: &str) -> String {
    let mut text = "- stepGroup:\n    identifier: g\n    name: g\n".to_owned();
    for line in more.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text.push_str("    steps:\n");
    for line in steps.lines() {
        text.push_str(&format!("      {line}\n"));
    }
    text
}

fn world(more: &str, steps: &str) -> World {
    World::start(&custom("", &(group(more, steps) + &noop("after", "")), ""))
}

fn inner(world: &World, id: &str) -> &'static str {
    world.status(&format!("{GROUP}.steps.{id}"))
}

#[test]
fn a_group_runs_again_from_its_beginning_until_it_succeeds() {
    let mut world = world(STRATEGY, &(noop("a", "") + &noop("b", "") + &noop("c", "")));
    world.answer(success());
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(
        (inner(&world, "b"), inner(&world, "c"), world.step("g")),
        ("Failed", "NotStarted", "Running")
    );
    assert!(world.tasks.is_empty());
    let due = world.timers[&format!("retry/0/{GROUP}")];
    assert_eq!(due - world.now, 10_000);
    // A crash in the pause.
    world.state = serde_json::from_str::<State>(&serde_json::to_string(&world.state).unwrap()).unwrap();
    world.fire("retry/0");
    assert_eq!((inner(&world, "a"), inner(&world, "b")), ("Running", "NotStarted"));
    let first = world.answer(success());
    assert_eq!(
        (first.task.step.identifier.as_str(), first.attempt),
        ("a", 2),
        "no task is taken for an older one"
    );
    world.answer(failed(FailureKind::RemoteFailed));
    world.fire("retry/0");
    assert_eq!(world.now - due, 20_000 + 4, "the second pause, and four events");
    world.answer_all(|_| success());
    assert_eq!(world.finished.as_deref(), Some("Success"));
    assert_eq!(world.order, ["a", "b", "a", "b", "a", "b", "c", "after"]);
    let notices = &execution_view(&world.state, None).stages[0].steps[0].notices;
    assert_eq!(notices[0], "begun again (1 of 2): `b` failed: exit code 1");
    assert!(world.timers.is_empty(), "{:?}", world.timers);
}

#[test]
fn after_the_last_round_the_group_has_failed() {
    let mut world = world(STRATEGY, &noop("a", ""));
    for round in 0..3 {
        world.answer(failed(FailureKind::RemoteFailed));
        if round < 2 {
            world.fire("retry/0");
        }
    }
    assert_eq!((world.step("g"), world.step("after")), ("Failed", "Skipped"));
    assert_eq!(world.finished.as_deref(), Some("Failed"));

    let ignore = STRATEGY.replace("[10s, 20s]", "[10s], onRetryFailure: {action: {type: Ignore}}");
    let mut world = World::start(&custom(
        "",
        &(group(&ignore.replace("retryCount: 2", "retryCount: 1"), &noop("a", "")) + &noop("after", "")),
        "",
    ));
    world.answer(failed(FailureKind::RemoteFailed));
    world.fire("retry/0");
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!((world.step("g"), world.step("after")), ("IgnoreFailed", "Running"));
}

#[test]
fn parallel_members_end_first_and_their_group_runs_again_once() {
    let parallel = "- parallel:\n".to_owned()
        + &[noop("a", ""), noop("b", "")].concat().lines().map(|l| format!("    {l}\n")).collect::<String>();
    let mut world = world(STRATEGY, &parallel);
    world.answer(failed(FailureKind::RemoteFailed));
    assert!(world.timers.keys().all(|timer| !timer.starts_with("retry")), "b still runs");
    world.answer(failed(FailureKind::RemoteFailed));
    world.fire("retry/0");
    assert_eq!(world.tasks.len(), 2);
    world.answer_all(|_| success());
    assert_eq!(world.finished.as_deref(), Some("Success"));
    assert_eq!(world.state.runs[GROUP].rounds.as_ref().unwrap().restarts, 1);
}

#[test]
fn the_own_retries_of_a_step_count_anew_and_a_group_timeout_begins_again_too() {
    let retry = "failureStrategies: [{onFailure: {errors: [Connectivity], action: {type: Retry, spec: {retryCount: 1, retryIntervals: [1s], onRetryFailure: {action: {type: MarkAsFailure}}}}}}]";
    let mut world = world(&format!("timeout: 5m\n{STRATEGY}"), &noop("a", retry));
    world.answer(failed(FailureKind::RemoteFailed));
    world.fire("retry/0");
    world.answer(failed(FailureKind::Connectivity));
    world.fire("retry/2");
    let task = world.answer(success());
    assert_eq!(task.attempt, 3);
    world.answer_all(|_| success());
    assert_eq!(world.finished.as_deref(), Some("Success"));

    let mut world =
        World::start(&custom("", &group(&format!("timeout: 5m\n{STRATEGY}"), &noop("a", "")), ""));
    world.fire(&format!("timeout/0/{GROUP}"));
    assert_eq!(world.cancelled.len(), 1);
    world.answer(failed(FailureKind::Timeout));
    world.fire("retry/0");
    assert!(world.timers.contains_key(&format!("timeout/0/{GROUP}")), "a fresh timer for each round");
    world.answer_all(|_| success());
    assert_eq!(world.finished.as_deref(), Some("Success"));
}

#[test]
fn loops_inside_begin_with_all_their_iterations_and_an_abort_ends_the_pause() {
    let looped = noop("a", "strategy: {repeat: {times: 3, maxConcurrency: 1}}") + &noop("b", "");
    let mut world = world(STRATEGY, &looped);
    world.answer(success());
    world.answer(failed(FailureKind::RemoteFailed));
    assert!(world.tasks.is_empty(), "queued iterations do not start any more");
    world.fire("retry/0");
    let view = execution_view(&world.state, None);
    assert_eq!(view.stages[0].steps[0].steps[0].steps.len(), 1, "nothing of the first round is left");
    world.answer_all(|_| success());
    assert_eq!(world.finished.as_deref(), Some("Success"));
    assert_eq!(world.order, ["a_0", "a_1", "a_0", "a_1", "a_2", "b", "after"]);

    let mut world = World::start(&custom("", &group(STRATEGY, &noop("a", "")), ""));
    world.answer(failed(FailureKind::RemoteFailed));
    let actions = world.abort();
    assert!(actions.iter().any(|action| matches!(action, Action::ClearTimer { .. })));
    assert_eq!(world.finished.as_deref(), Some("Aborted"));
    assert!(world.timers.is_empty(), "{:?}", world.timers);
}

#[test]
fn it_stands_in_groups_only() {
    let message = |yaml: &str| faults(yaml)[0].message.clone();
    let outside = message(&custom("", &noop("a", STRATEGY), ""));
    assert!(outside.contains("only allowed inside a step group"), "{outside}");
    let undo = message(&custom("", &noop("a", ""), &group(STRATEGY, &noop("u", ""))));
    assert!(undo.contains("not in rollback steps"), "{undo}");
    let bare = STRATEGY.replace(", spec: {retryCount: 2, retryIntervals: [10s, 20s]}", "");
    assert!(message(&custom("", &group(&bare, &noop("a", "")), "")).contains("`RetryStepGroup` needs `spec"));
}

/// Barriers and variables that no run could ever get past.
mod never {
    use super::*;

    fn barrier(id: &str) -> String {
        format!("- step: {{identifier: {id}, name: {id}, type: Barrier, spec: {{barrierRef: meet}}}}\n")
    }

    #[test]
    fn two_barriers_of_one_name_in_one_sequence_are_refused() {
        let head = "flowControl: {barriers: [{identifier: meet, name: meet}]}";
        let found = faults(&custom(head, &(barrier("a") + &noop("b", "") + &group("", &barrier("c"))), ""));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].message.contains("for `a`, which stands before it in the same sequence"),
            "{found:?}"
        );
        let indent = |text: String| text.lines().map(|l| format!("    {l}\n")).collect::<String>();
        let parallel = "- parallel:\n".to_owned() + &indent(barrier("a") + &group("", &barrier("c")));
        planned(&custom(head, &parallel, ""));
        // A rollback step waits for rollback steps only.
        planned(&custom(head, &barrier("a"), &barrier("c")));
    }

    #[test]
    fn variables_in_a_circle_are_shown() {
        let head = "variables:\n  - {name: a, type: String, value: x<+pipeline.variables.b>}\n  - {name: b, type: String, value: <+pipeline.variables.c>}\n  - {name: c, type: String, value: <+pipeline.variables.a>}\n  - {name: d, type: String, value: <+pipeline.variables.a>}\n";
        let found = faults(&custom(head, &noop("a", ""), ""));
        let circles: Vec<&str> =
            found.iter().map(|fault| fault.message.as_str()).filter(|m| m.contains("circle")).collect();
        assert_eq!(
            circles,
            [
                "the variables refer to each other in a circle: `pipeline.variables.a` → `pipeline.variables.b` → `pipeline.variables.c` → `pipeline.variables.a`"
            ],
            "{found:?}"
        );
        let own = "variables: [{name: a, type: String, value: <+pipeline.variables.a>}]";
        let found = faults(&custom(own, &noop("a", ""), ""));
        assert!(
            found.iter().any(|f| f.message.contains("`pipeline.variables.a` refers to itself")),
            "{found:?}"
        );
        // Across stage and pipeline.
        let stage = custom("variables: [{name: p, type: String, value: fine}]", &noop("a", ""), "").replace(
            "        type: Custom\n",
            "        type: Custom\n        variables: [{name: x, type: String, value: <+stage.variables.y>}, {name: y, type: String, value: <+pipeline.stages.s.variables.x>}]\n",
        );
        let found = faults(&stage);
        assert!(
            found.iter().any(|f| f
                .message
                .contains("`stage.variables.x` → `stage.variables.y` → `stage.variables.x`")),
            "{found:?}"
        );
        let fine: BTreeSet<&str> = BTreeSet::new();
        let straight = "variables:\n  - {name: a, type: String, value: <+pipeline.variables.b>}\n  - {name: b, type: String, value: x}\n";
        assert!(
            codes(&planned(&custom(straight, &noop("a", ""), ""))).iter().all(|code| !fine.contains(code))
        );
    }
}
