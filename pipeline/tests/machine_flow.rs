//! What people decide, barriers, and the rollback of whole executions: pipeline.md 2.5, 2.6, 2.10.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::machine::state::Status;
use pipeline::machine::{
    Actor, Event, Intervention, NothingToRollBack, Refusal, State, UserAction, accepts, rollback_of,
};
use pipeline::plan::RunFacts;
use pipeline::view::execution_view;
use proto::failure::{FailureKind, FailureType};
use proto::result::StepResult;
use serde_json::json;
use support::*;

const STEPS: &str = "pipeline.stages.s.spec.execution.steps";

fn strategy(errors: &str, action: &str) -> String {
    format!("failureStrategies: [{{onFailure: {{errors: [{errors}], action: {action}}}}}]")
}

fn manual(on_timeout: &str) -> String {
    let spec = format!("{{timeout: 1h, onTimeout: {{action: {{type: {on_timeout}}}}}}}");
    strategy("AllErrors", &format!("{{type: ManualIntervention, spec: {spec}}}"))
}

fn ann() -> Actor {
    Actor { name: "ann".into(), ..Actor::default() }
}

fn decide(world: &mut World, step: &str, action: Intervention) {
    act(world, step, UserAction::Intervene { action });
}

fn act(world: &mut World, step: &str, action: UserAction) {
    let node = format!("{STEPS}.{step}");
    accepts(&world.state, &node, &ann(), &action).unwrap();
    let attempt = world.state.runs[&node].attempt;
    world.event(|at| Event::UserActed { node, attempt, by: ann(), action, at });
}

/// Stages `s0`, `s1`, …, each with its steps and rollback steps.
fn stages(head: &str, stages: &[(&str, &str, &str)]) -> String {
    let mut text = format!("pipeline:\n  identifier: p\n  name: p\n{head}  stages:\n");
    for (id, steps, rollback) in stages {
        text.push_str(&format!(
            "    - stage:\n        identifier: {id}\n        name: {id}\n        type: Custom\n        spec:\n          execution:\n"
        ));
        for (key, list) in [("steps", steps), ("rollbackSteps", rollback)] {
            if !list.is_empty() {
                text.push_str(&format!("            {key}:\n"));
                for line in list.lines() {
                    text.push_str(&format!("              {line}\n"));
                }
            }
        }
    }
    text
}

fn with_undo(undo: &str) -> StepResult {
    StepResult { undo: Some(json!(undo)), ..success() }
}

#[test]
fn a_failed_step_waits_for_a_decision_and_each_decision_does_what_it_says() {
    let steps = noop("a", &manual("Abort")) + &noop("b", "");
    for (action, a, end) in [
        (Intervention::Ignore, "IgnoreFailed", "IgnoreFailed"),
        (Intervention::MarkAsSuccess, "Success", "Success"),
        (Intervention::MarkAsFailure, "Failed", "Failed"),
        (Intervention::Abort, "Failed", "Aborted"),
        (Intervention::StageRollback, "Failed", "Failed"),
        (Intervention::Retry, "Success", "Success"),
    ] {
        let mut world = World::start(&custom("", &steps, &noop("undo", "")));
        world.answer(failed(FailureKind::Connectivity));
        assert_eq!(world.step("a"), "InterventionWaiting", "{action:?}");
        assert!(world.tasks.is_empty(), "nothing starts before the decision");
        let view = execution_view(&world.state, None);
        assert_eq!(view.status, Status::InterventionWaiting);
        assert_eq!(view.stages[0].status, Status::InterventionWaiting);
        assert_eq!(view.stages[0].steps[0].decide_until, Some(world.now + 3_600_000));
        assert!(!view.stages[0].steps[0].interventions.contains(&Intervention::StepGroupRollback));
        decide(&mut world, "a", action);
        world.answer_all(|_| success());
        assert_eq!(world.step("a"), a, "{action:?}");
        assert_eq!(world.finished.as_deref(), Some(end), "{action:?}");
        assert_eq!(world.order.contains(&"undo".to_owned()), action == Intervention::StageRollback);
        let attempts = world.state.runs[&format!("{STEPS}.a")].attempt;
        assert_eq!(attempts, if action == Intervention::Retry { 2 } else { 1 });
        assert!(world.state.runs[&format!("{STEPS}.a")].notices.iter().any(|note| note.starts_with("ann")));
        assert!(world.timers.is_empty(), "{:?}", world.timers);
    }
}

#[test]
fn without_a_decision_the_written_action_follows() {
    let mut world = World::start(&custom("", &noop("a", &manual("Ignore")), ""));
    world.answer(failed(FailureKind::RemoteFailed));
    world.fire("intervene");
    assert_eq!(world.step("a"), "IgnoreFailed");
    assert_eq!(world.finished.as_deref(), Some("IgnoreFailed"));
}

#[test]
fn an_intervention_may_follow_retries_and_ends_with_an_abort() {
    let spec = "{timeout: 1h, onTimeout: {action: {type: MarkAsFailure}}}";
    let retry = format!(
        "{{type: Retry, spec: {{retryCount: 1, retryIntervals: [10s], onRetryFailure: {{action: {{type: ManualIntervention, spec: {spec}}}}}}}}}"
    );
    let mut world = World::start(&custom("", &noop("a", &strategy("AllErrors", &retry)), ""));
    world.answer(failed(FailureKind::RemoteFailed));
    world.fire("retry");
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(world.step("a"), "InterventionWaiting");
    decide(&mut world, "a", Intervention::Retry);
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(world.step("a"), "InterventionWaiting", "it is asked again");
    world.abort();
    assert_eq!(world.finished.as_deref(), Some("Aborted"));
    assert!(world.timers.is_empty(), "{:?}", world.timers);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut world = World::start(&custom("", &noop("a", &manual("Abort")), ""));
    let node = format!("{STEPS}.a");
    let retry = UserAction::Intervene { action: Intervention::Retry };
    let refused = accepts(&world.state, &node, &ann(), &retry);
    assert!(matches!(refused, Err(Refusal::NotWaiting { status: Status::Running, .. })), "{refused:?}");
    let without_effect = |world: &mut World| {
        let before = world.state.clone();
        let (node, action) = (node.clone(), retry.clone());
        world.event(|at| Event::UserActed { node, attempt: 1, by: ann(), action, at });
        assert_eq!(world.state, before);
    };
    let unknown = accepts(&world.state, "nowhere", &ann(), &retry);
    assert!(matches!(unknown, Err(Refusal::NoNode { .. })));
    without_effect(&mut world);
    world.answer(failed(FailureKind::RemoteFailed));
    let group = UserAction::Intervene { action: Intervention::StepGroupRollback };
    let refused = accepts(&world.state, &node, &ann(), &group).unwrap_err().to_string();
    assert!(refused.contains("possible are Retry, Ignore"), "{refused}");
    // A decision about an older attempt comes too late.
    decide(&mut world, "a", Intervention::Retry);
    world.answer(failed(FailureKind::RemoteFailed));
    without_effect(&mut world);
    decide(&mut world, "a", Intervention::Abort);
    assert!(matches!(accepts(&world.state, &node, &ann(), &retry), Err(Refusal::Ended { .. })));
}

#[test]
fn a_wait_is_ended_by_hand() {
    let wait = "- step: {identifier: w, name: w, type: Wait, spec: {duration: 1d}}\n".to_owned();
    let mut world = World::start(&custom("", &(wait.clone() + &noop("b", "")), ""));
    act(&mut world, "w", UserAction::MarkWait { success: true });
    assert_eq!((world.step("w"), world.tasks.len()), ("Success", 1));
    let mut world = World::start(&custom("", &(wait + &noop("b", "")), ""));
    act(&mut world, "w", UserAction::MarkWait { success: false });
    assert_eq!((world.step("w"), world.step("b")), ("Failed", "Skipped"));
    let run = &world.state.runs[&format!("{STEPS}.w")];
    assert_eq!(run.failure.as_ref().unwrap().class, FailureType::UserMarkedFailure);
    assert!(world.timers.is_empty(), "{:?}", world.timers);
}

#[test]
fn actions_are_read_where_they_may_stand() {
    for (action, what) in [
        ("{type: ManualIntervention}", "needs `spec"),
        ("{type: ManualIntervention, spec: {timeout: soon, onTimeout: {action: {type: Abort}}}}", "duration"),
        ("{type: ManualIntervention, spec: {timeout: 1h}}", "`onTimeout` is missing"),
        (
            "{type: ManualIntervention, spec: {timeout: 1h, onTimeout: {action: {type: Retry}}}}",
            "`onTimeout` cannot be `Retry`",
        ),
        ("{type: ProceedWithDefaultValues}", "only for the error `InputTimeoutError`"),
        (
            "{type: Retry, spec: {retryCount: 1, retryIntervals: [1s], onRetryFailure: {action: {type: ProceedWithDefaultValues}}}}",
            "`onRetryFailure` cannot be",
        ),
    ] {
        let found = faults(&custom("", &noop("a", &strategy("AllErrors", action)), ""));
        assert!(found.iter().any(|fault| fault.message.contains(what)), "{action}: {found:#?}");
    }
    let undo = noop("undo", &strategy("AllErrors", "{type: PipelineRollback}"));
    let found = faults(&custom("", &noop("a", ""), &undo));
    assert!(found[0].message.contains("cannot be rolled back"), "{found:#?}");
}

#[test]
fn a_retry_may_have_a_condition() {
    for (condition, attempts) in [("<+step.retryCount> < 2", 3), ("false", 1), ("<+nothing.there>", 1)] {
        let retry = format!(
            "{{type: Retry, spec: {{retryCount: 5, retryIntervals: [1s], condition: '{condition}'}}}}"
        );
        let mut world = World::start(&custom("", &noop("a", &strategy("AllErrors", &retry)), ""));
        while world.finished.is_none() {
            world.answer(failed(FailureKind::RemoteFailed));
            if world.finished.is_none() {
                world.fire("retry");
            }
        }
        assert_eq!(world.order.len(), attempts, "{condition}");
    }
}

fn barrier(id: &str, more: &str) -> String {
    let step = noop(id, more);
    step.replace("type: Noop", "type: Barrier").replace("{line: x}", "{barrierRef: meet}")
}

const MEET: &str = "flowControl: {barriers: [{identifier: meet, name: Meet}]}\n";

fn group(id: &str, steps: &str) -> String {
    let inner: String = steps.lines().map(|line| format!("      {line}\n")).collect();
    format!("- stepGroup:\n    identifier: {id}\n    name: {id}\n    steps:\n{inner}")
}

fn parallel(members: &str) -> String {
    let inner: String = members.lines().map(|line| format!("    {line}\n")).collect();
    format!("- parallel:\n{inner}")
}

fn two_branches(first: &str, second: &str) -> String {
    custom(MEET, &(parallel(&(group("g", first) + &group("h", second))) + &noop("end", "")), "")
}

#[test]
fn steps_of_a_barrier_go_on_together() {
    let yaml = two_branches(&(barrier("x", "") + &noop("c", "")), &(noop("slow", "") + &barrier("y", "")));
    let mut world = World::start(&yaml);
    assert_eq!(world.step("g.steps.x"), "Running");
    assert_eq!(world.tasks.len(), 1, "only `slow` is out");
    let view = execution_view(&world.state, None);
    let waiting = view.stages[0].steps[0].steps[0].waiting_for.clone();
    assert_eq!(waiting.as_deref(), Some("the other steps of the barrier `meet`"));
    world.answer(success());
    assert_eq!((world.step("g.steps.x"), world.step("h.steps.y")), ("Success", "Success"));
    world.answer_all(|_| success());
    assert_eq!(world.order, ["slow", "c", "end"]);
    assert_eq!(world.finished.as_deref(), Some("Success"));
    assert!(world.timers.is_empty(), "{:?}", world.timers);
}

#[test]
fn a_branch_that_cannot_arrive_fails_the_others_and_one_left_out_is_not_awaited() {
    let yaml = two_branches(&barrier("x", ""), &(noop("slow", "") + &barrier("y", "")));
    let mut world = World::start(&yaml);
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!((world.step("g.steps.x"), world.step("h.steps.y")), ("Failed", "Skipped"));
    let failure = world.state.runs[&format!("{STEPS}.g.steps.x")].failure.clone().unwrap();
    assert_eq!(failure.code, "PIPE-009");
    assert!(failure.message.contains("`h`"), "{}", failure.message);
    let yaml = two_branches(
        &barrier("x", ""),
        &(noop("slow", "") + &barrier("y", "when: {stageStatus: All, condition: 'false'}")),
    );
    let mut world = World::start(&yaml);
    world.answer(success());
    assert_eq!((world.step("g.steps.x"), world.step("h.steps.y")), ("Success", "Skipped"));
}

#[test]
fn a_barrier_expires_and_counts_each_iteration() {
    let yaml = two_branches(&barrier("x", "timeout: 1m"), &(noop("slow", "") + &barrier("y", "")));
    let mut world = World::start(&yaml);
    world.fire("timeout/1/pipeline.stages.s.spec.execution.steps.g.steps.x");
    assert_eq!(world.step("g.steps.x"), "Expired");
    world.answer(success());
    assert_eq!(world.step("h.steps.y"), "Skipped", "the stage broke");
    let looped = noop("slow", "")
        + &barrier("y", "").replace("type: Barrier\n", "type: Barrier\n    strategy: {repeat: {times: 3}}\n");
    let mut world = World::start(&two_branches(&barrier("x", ""), &looped));
    assert_eq!(world.step("g.steps.x"), "Running");
    world.answer(success());
    assert_eq!((world.step("g.steps.x"), world.step("h.steps.y_2")), ("Success", "Success"));
}

#[test]
fn iterations_that_can_never_meet_fail_instead_of_waiting() {
    let looped = |limit: &str| {
        let strategy = format!("type: Barrier\n    strategy: {{repeat: {{times: 3{limit}}}}}\n");
        barrier("y", "").replace("type: Barrier\n", &strategy)
    };
    // The third begins only when one of the first two has ended, and these wait for it.
    let world = World::start(&custom(MEET, &looped(", maxConcurrency: 2"), ""));
    assert_eq!(world.finished.as_deref(), Some("Failed"), "{:#?}", world.state.runs);
    let failures: Vec<_> = world.state.runs.values().filter_map(|run| run.failure.as_ref()).collect();
    let own = failures.iter().find(|failure| failure.code == "PIPE-009").unwrap();
    assert!(own.message.contains("the iterations of `y` wait for each other"), "{own:?}");
    assert!(own.hint.as_deref().unwrap_or_default().contains("maxConcurrency"), "{own:?}");
    // All at once they meet.
    let world = World::start(&custom(MEET, &looped(""), ""));
    assert_eq!(world.finished.as_deref(), Some("Success"), "{:#?}", world.state.runs);
    // One that is still on its way keeps nobody from waiting.
    let slow = format!(
        "- stepGroup:\n    identifier: g\n    name: g\n    strategy: {{repeat: {{times: 3, maxConcurrency: 2}}}}\n    steps:\n{}",
        indented(&(noop("a", "") + &barrier("y", "")), 6)
    );
    let mut world = World::start(&custom(MEET, &slow, ""));
    world.answer(success());
    assert_eq!(world.finished, None, "the second iteration has not arrived");
    world.answer(success());
    assert_eq!(world.finished.as_deref(), Some("Failed"));
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

#[test]
fn copies_of_a_stage_that_take_turns_cannot_meet() {
    let step = "{step: {identifier: b, name: b, type: Barrier, spec: {barrierRef: meet}}}";
    let yaml = |parallel: bool| {
        format!(
            "pipeline:\n  identifier: p\n  name: p\n  {MEET}  stages:\n    - stage: {{identifier: s, name: s, type: Deployment, spec: {{deploymentType: Ssh, services: {{metadata: {{parallel: {parallel}}}, values: [{{serviceRef: web}}, {{serviceRef: web}}]}}, environment: {{environmentRef: prod, infrastructureDefinitions: [{{identifier: farm}}]}}, execution: {{steps: [{step}]}}}}}}\n"
        )
    };
    let found = faults(&yaml(false));
    assert!(found[0].message.contains("neither could ever go on"), "{found:?}");
    planned(&yaml(true));
}

#[test]
fn a_barrier_must_be_declared() {
    let found = faults(&custom("", &barrier("x", ""), ""));
    assert!(found[0].message.contains("`meet` is not declared"), "{found:#?}");
    let notices = planned(&custom(MEET, &noop("a", ""), ""));
    assert!(codes(&notices).contains(&"barrier-unused"));
    assert_eq!(planned(&custom(MEET, &barrier("x", ""), "")).barriers, ["meet"]);
}

#[test]
fn a_pipeline_rollback_undoes_every_stage_that_ran_the_latest_first() {
    let back = strategy("AllErrors", "{type: PipelineRollback}");
    let yaml = stages(
        "",
        &[
            (
                "s0",
                &noop("a", ""),
                &(noop("undo_a", "")
                    + &noop(
                        "mode",
                        "when: {stageStatus: All, condition: '<+pipeline.executionMode> == \"PIPELINE_ROLLBACK\"'}",
                    )),
            ),
            ("s1", &noop("b", ""), &noop("undo_b", "")),
            ("s2", &noop("c", &back), &noop("undo_c", "")),
            ("s3", &noop("d", ""), &noop("undo_d", "")),
        ],
    );
    let mut world = World::start(&yaml);
    world.answer_all(|task| match task.task.step.identifier.as_str() {
        "c" => failed(FailureKind::RemoteFailed),
        // A rollback that fails does not keep the others from running.
        "undo_b" => failed(FailureKind::Connectivity),
        _ => success(),
    });
    assert_eq!(world.order, ["a", "b", "c", "undo_c", "undo_b", "undo_a", "mode"]);
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    assert_eq!(world.status("pipeline.stages.s0"), "Success", "the status of its forward part");
    assert_eq!(world.status("pipeline.stages.s2"), "Failed");
    let view = execution_view(&world.state, None);
    assert!(!view.rolled_back, "one of them failed");
    assert!(world.timers.is_empty(), "{:?}", world.timers);
}

#[test]
fn an_abort_in_the_middle_of_a_pipeline_rollback_ends_it() {
    let back = strategy("AllErrors", "{type: PipelineRollback}");
    let yaml = stages("", &[("s0", &noop("a", ""), &noop("undo", "")), ("s1", &noop("b", &back), "")]);
    let mut world = World::start(&yaml);
    world.answer(success());
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(world.order, ["a", "b", "undo"]);
    world.abort();
    assert_eq!(world.cancelled.len(), 1);
    world.answer_all(|_| failed(FailureKind::UserMarkedFailure));
    assert_eq!(world.finished.as_deref(), Some("Aborted"));
}

fn facts(id: &str) -> RunFacts {
    RunFacts { execution_id: id.into(), pipeline: "p".into(), sequence_id: 2, ..RunFacts::default() }
}

#[test]
fn a_finished_execution_is_rolled_back_by_what_it_recorded() {
    let mode =
        "when: {stageStatus: All, condition: '<+pipeline.executionMode> == \"POST_EXECUTION_ROLLBACK\"'}";
    let yaml = stages(
        "",
        &[
            ("s0", &noop("a", ""), &noop("undo_a", mode)),
            ("s1", &noop("b", ""), ""),
            ("s2", &noop("c", ""), &noop("undo_c", "")),
        ],
    );
    let mut world = World::start(&yaml);
    assert_eq!(rollback_of(&world.state, facts("r")).unwrap_err(), NothingToRollBack::Running);
    world.answer_all(|task| with_undo(&task.task.step.identifier));
    assert_eq!(world.finished.as_deref(), Some("Success"));
    let first = rollback_of(&world.state, facts("r")).unwrap();
    // It is stored before it starts.
    let first: State = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    let mut back = World::start(&yaml);
    back.state = first;
    back.tasks.clear();
    back.timers.clear();
    back.order.clear();
    back.event(|at| Event::Started { at });
    assert_eq!(back.order, ["undo_c"], "the latest first");
    assert_eq!(back.tasks[0].abstractions.iter().find(|(key, _)| key == "runSequence").unwrap().1, "2");
    back.answer_all(|_| success());
    assert_eq!(back.order, ["undo_c", "undo_a"]);
    assert_eq!(back.finished.as_deref(), Some("Success"));
    let view = execution_view(&back.state, None);
    assert!(view.rolled_back);
    assert_eq!(view.execution_id, "r");
    assert_eq!(view.stages[0].rollback_steps[0].status, Status::Success);
    assert!(back.timers.is_empty(), "{:?}", back.timers);
    let again = rollback_of(&back.state, facts("r2")).unwrap_err();
    assert!(matches!(again, NothingToRollBack::Rollback(_)), "{again:?}");
}

#[test]
fn an_execution_without_rollback_steps_cannot_be_rolled_back() {
    let mut world = World::start(&custom("", &noop("a", ""), ""));
    world.answer_all(|_| success());
    assert_eq!(rollback_of(&world.state, facts("r")).unwrap_err(), NothingToRollBack::NoStage);
}
