//! Inputs that a step asks for when it is reached: `<+input>.executionInput()` (pipeline.md 2.8).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::machine::{Actor, Event, Refusal, State, UserAction, accepts};
use pipeline::view::execution_view;
use proto::failure::{FailureKind, FailureType};
use proto::task::StepSpec;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::*;

const NODE: &str = "pipeline.stages.s.spec.execution.steps.a";

fn ann() -> Actor {
    Actor { name: "ann".into(), principal: "ann".into(), ..Actor::default() }
}

fn inputs(values: &[(&str, Value)]) -> UserAction {
    let values: BTreeMap<String, Value> =
        values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    UserAction::GiveInputs { values }
}

/// Acts as the manager does. What is refused must leave the state as it was, and the event agrees with the question.
fn give_to(world: &mut World, node: &str, values: &[(&str, Value)]) -> Result<(), Refusal> {
    let action = inputs(values);
    let asked = accepts(&world.state, node, &ann(), &action);
    let before = world.state.clone();
    let (node, attempt) = (node.to_owned(), world.state.runs.get(node).map_or(0, |run| run.attempt));
    world.event(|at| Event::UserActed { node, attempt, by: ann(), action, at });
    assert_eq!(asked.is_err(), before == world.state, "the event and the question must agree: {asked:?}");
    asked
}

fn give(world: &mut World, values: &[(&str, Value)]) -> Result<(), Refusal> {
    give_to(world, NODE, values)
}

fn why(refused: Result<(), Refusal>) -> String {
    refused.unwrap_err().to_string()
}

/// A Noop step `a` that asks for its line, then `b`.
fn asks(suffixes: &str, more: &str) -> String {
    let a = noop("a", more).replace("line: x", &format!("line: \"<+input>.executionInput(){suffixes}\""));
    custom("variables: [{name: color, type: String, value: blue}]", &(a + &noop("b", "")), "")
}

fn line(world: &World) -> String {
    match &world.tasks.back().unwrap().task.step.spec {
        StepSpec::Noop(noop) => noop.line.clone(),
        other => panic!("{other:?}"),
    }
}

fn with_strategy(action: &str) -> String {
    format!("failureStrategies: [{{onFailure: {{errors: [InputTimeoutError], action: {{type: {action}}}}}}}]")
}

#[test]
fn a_step_waits_for_its_inputs_and_goes_on_with_them() {
    let mut world = World::start(&asks("", "timeout: 10m"));
    assert_eq!(world.step("a"), "InputWaiting");
    assert!(world.tasks.is_empty());
    let view = execution_view(&world.state, None);
    assert_eq!(view.status.name(), "InputWaiting");
    let step = &view.stages[0].steps[0];
    assert_eq!(step.inputs.as_ref().unwrap().inputs[0].name, "line");
    assert_eq!(step.waiting_for.as_deref(), Some("somebody's inputs: line"));
    assert_eq!(step.decide_until, Some(world.timers[&format!("timeout/1/{NODE}")]));
    assert!(why(give(&mut world, &[])).contains("`line`: a value is required"));
    assert!(why(give(&mut world, &[("lin", json!("x"))])).contains("did you mean `line`"), "no such input");
    assert!(why(give(&mut world, &[("line", json!({"a": 1}))])).contains("expected a text"));
    give(&mut world, &[("line", json!("hello <+pipeline.variables.color>"))]).unwrap();
    assert_eq!(world.step("a"), "Running");
    assert_eq!(line(&world), "hello blue", "an input may be an expression");
    assert!(why(give(&mut world, &[("line", json!("again"))])).contains("does not wait for inputs"));
    world.answer_all(|_| success());
    assert_eq!(world.finished.as_deref(), Some("Success"));
    assert!(world.timers.keys().all(|timer| !timer.contains(NODE)), "{:?}", world.timers);
    let given = execution_view(&world.state, None).stages[0].steps[0].inputs.clone().unwrap().given.unwrap();
    assert_eq!(
        (given.by.as_str(), &given.values["line"]),
        ("ann", &json!("hello <+pipeline.variables.color>"))
    );
}

#[test]
fn rules_are_checked_and_their_expressions_are_known_when_the_step_is_reached() {
    let first = noop("first", "");
    let a = noop("a", "").replace(
        "line: x",
        "line: \"<+input>.executionInput().allowedValues(<+pipeline.variables.color>,<+execution.steps.first.output.word>)\"",
    );
    let mut world =
        World::start(&custom("variables: [{name: color, type: String, value: blue}]", &(first + &a), ""));
    world.answer(output("word", "green"));
    let asked = world.state.runs[NODE].inputs.clone().unwrap();
    assert_eq!(asked.inputs[0].allowed.as_deref().unwrap(), ["blue", "green"]);
    assert_eq!(
        why(give(&mut world, &[("line", json!("red"))])),
        "`line`: `red` is not allowed; allowed are blue, green"
    );
    assert!(why(give(&mut world, &[("line", json!("<+pipeline.variables.nope>"))])).contains("nope"));
    give(&mut world, &[("line", json!("<+pipeline.variables.color>"))]).unwrap();
    assert_eq!(line(&world), "blue");

    let mut world = World::start(&asks(".regex(v\\\\d+)", ""));
    assert_eq!(why(give(&mut world, &[("line", json!("v"))])), "`line`: `v` does not match `v\\d+`");
    give(&mut world, &[("line", json!("v12"))]).unwrap();
}

#[test]
fn what_nobody_gives_in_time_is_an_input_timeout() {
    let mut world = World::start(&asks("", "timeout: 10m"));
    world.fire("timeout/1");
    assert_eq!(world.step("a"), "Expired");
    let failure = world.state.runs[NODE].failure.clone().unwrap();
    assert_eq!((failure.class, failure.code.as_str()), (FailureType::InputTimeoutError, "PIPE-010"));
    assert_eq!(failure.message, "nobody gave line within 10m");

    let more = format!("timeout: 10m\n{}", with_strategy("ProceedWithDefaultValues"));
    let mut world = World::start(&asks(".default(calm)", &more));
    world.fire("timeout/1");
    assert_eq!((world.step("a"), line(&world).as_str()), ("Running", "calm"));
    assert!(world.state.runs[NODE].failure.is_none());
    world.answer_all(|_| success());
    assert_eq!(world.finished.as_deref(), Some("Success"));

    // Without a default there is nothing to proceed with.
    let mut world = World::start(&asks("", &more));
    world.fire("timeout/1");
    assert_eq!(world.step("a"), "Expired");
    assert!(world.state.runs[NODE].notices[0].contains("`line`: a value is required"));

    // A default may also be left to somebody who answers.
    let mut world = World::start(&asks(".default(calm)", ""));
    give(&mut world, &[]).unwrap();
    assert_eq!(line(&world), "calm");
}

#[test]
fn a_later_attempt_does_not_ask_again_but_a_retry_of_the_question_does() {
    let retry = "failureStrategies: [{onFailure: {errors: [AllErrors], action: {type: Retry, spec: {retryCount: 2, retryIntervals: [1s], onRetryFailure: {action: {type: MarkAsFailure}}}}}}]";
    let mut world = World::start(&asks("", &format!("timeout: 10m\n{retry}")));
    world.fire("timeout/1");
    world.fire("retry/1");
    assert_eq!((world.step("a"), world.state.runs[NODE].attempt), ("InputWaiting", 2));
    give(&mut world, &[("line", json!("once"))]).unwrap();
    world.answer(failed(FailureKind::RemoteFailed));
    world.fire("retry/2");
    assert_eq!((world.step("a"), line(&world).as_str()), ("Running", "once"));
}

#[test]
fn an_abort_and_a_skipped_step_ask_nobody() {
    let mut world = World::start(&asks("", ""));
    world.abort();
    assert_eq!((world.step("a"), world.finished.as_deref()), ("Aborted", Some("Aborted")));
    assert!(world.timers.is_empty(), "{:?}", world.timers);
    let mut world = World::start(&asks("", "when: {stageStatus: Success, condition: 'false'}"));
    assert_eq!(world.step("a"), "Skipped");
    world.answer_all(|_| success());
    assert_eq!(world.finished.as_deref(), Some("Success"));
}

#[test]
fn a_step_on_several_hosts_asks_once_and_an_iteration_for_itself() {
    let script = script("a", "<+input>.executionInput()", "");
    let mut world = World::start(&deployment(&script, ""));
    assert_eq!(world.step("a"), "InputWaiting");
    give(&mut world, &[("script", json!("echo <+instance.name>"))]).unwrap();
    assert_eq!(world.tasks.len(), 2, "one task for each host");
    world.answer_all(|_| success());
    assert_eq!((world.step("a"), world.finished.as_deref()), ("Success", Some("Success")));
    assert!(world.timers.is_empty(), "{:?}", world.timers);

    let mut world = World::start(&asks("", "strategy: {repeat: {times: 2}}"));
    for (index, word) in ["one", "two"].into_iter().enumerate() {
        give_to(&mut world, &format!("{NODE}_{index}"), &[("line", json!(word))]).unwrap();
        assert_eq!(line(&world), word);
    }
}

#[test]
fn names_are_those_of_the_document_and_a_crash_forgets_nothing() {
    let step = r#"- step:
    identifier: a
    name: a
    type: ShellScript
    spec:
      shell: Bash
      onDelegate: true
      source: {type: Inline, spec: {script: "<+input>.executionInput()"}}
      environmentVariables:
        - {name: LEVEL, type: String, value: "<+input>.executionInput().default(info)"}
"#;
    let mut world = World::start(&custom("", step, ""));
    let names: Vec<String> =
        world.state.runs[NODE].inputs.clone().unwrap().inputs.into_iter().map(|input| input.name).collect();
    assert_eq!(names, ["source.spec.script", "environmentVariables.LEVEL"]);
    let stored = serde_json::to_string(&world.state).unwrap();
    world.state = serde_json::from_str::<State>(&stored).unwrap();
    give(&mut world, &[("script", json!("make")), ("LEVEL", json!("debug"))]).unwrap();
    let task = &world.tasks[0].task;
    assert!(matches!(&task.step.spec, StepSpec::ShellScript(spec) if spec.script.0 == "make"), "{task:?}");
    assert_eq!(task.env["LEVEL"].0, "debug");
}

#[test]
fn elsewhere_than_in_a_step_it_is_refused_and_an_input_file_answers_it_ahead() {
    let stage = custom("delegateSelectors: \"<+input>.executionInput()\"", &noop("a", ""), "");
    let found = faults(&stage);
    assert!(found[0].message.contains("must be known before the run"), "{found:?}");
    assert_eq!(found[0].path, "pipeline.delegateSelectors");
    let found = faults(&asks("", "timeout: \"<+input>.executionInput()\""));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].path.ends_with("steps[0].step.timeout"), "{found:?}");

    let file = "pipeline: {stages: [{stage: {identifier: s, spec: {execution: {steps: [{step: {identifier: a, spec: {line: early}}}]}}}}]}";
    let options = pipeline::planner::PlanOptions {
        inputs_file: Some(("inputs.yaml".into(), file.into())),
        ..options()
    };
    let world = World::start_with(planned_with(&asks("", ""), &options));
    assert_eq!((world.step("a"), line(&world).as_str()), ("Running", "early"));
}

#[test]
fn variables_of_a_stage_are_asked_for_when_it_is_reached() {
    let more = "          failureStrategies: [{onFailure: {errors: [InputTimeoutError], action: {type: ProceedWithDefaultValues}}}]\n".replace("          ", "        ");
    let head = "        type: Deployment\n        timeout: 10m\n        variables: [{name: tag, type: String, value: '<+input>.executionInput().default(v1).regex(v\\d)'}]\n";
    let a = noop("a", "")
        .replace("line: x", "line: 'tag <+stage.variables.tag> <+pipeline.stages.s.variables.tag>'");
    let yaml = deployment(&a, "").replace("        type: Deployment\n", &format!("{head}{more}"));
    let stage = "pipeline.stages.s";
    let mut world = World::start_claiming(planned(&yaml), Some(Vec::new()));
    assert_eq!(world.status(stage), "InputWaiting");
    assert!(world.claims.as_ref().unwrap().is_empty(), "nobody else is kept waiting meanwhile");
    let view = execution_view(&world.state, None);
    assert_eq!(view.stages[0].inputs.as_ref().unwrap().inputs[0].name, "variables.tag");
    assert_eq!(view.stages[0].waiting_for.as_deref(), Some("somebody's inputs: variables.tag"));
    assert!(why(give_to(&mut world, stage, &[("tag", json!("latest"))])).contains("does not match"));
    give_to(&mut world, stage, &[("tag", json!("v2"))]).unwrap();
    assert_eq!(world.status(stage), "ResourceWaiting");
    world.event(|at| Event::Granted { node: stage.to_owned(), at });
    assert_eq!(line(&world), "tag v2 v2");
    assert_eq!(
        world.timers[&format!("timeout/0/{stage}")],
        world.now + 600_000 - 1,
        "the stage has its time to itself"
    );
    world.answer_all(|_| success());
    assert_eq!(world.finished.as_deref(), Some("Success"));
    assert!(world.timers.is_empty(), "{:?}", world.timers);

    let mut world = World::start(&yaml);
    world.fire(&format!("timeout/0/{stage}"));
    assert_eq!(line(&world), "tag v1 v1");
    let mut world = World::start(&yaml);
    world.abort();
    assert_eq!((world.status(stage), world.finished.as_deref()), ("Aborted", Some("Aborted")));

    // What is deployed where must be known before the run.
    let named = yaml.replace("serviceRef: web", "serviceRef: <+stage.variables.tag>");
    assert!(
        faults(&named)[0].message.contains("names an input that is asked for when the stage is reached"),
        "{:?}",
        faults(&named)
    );
}
