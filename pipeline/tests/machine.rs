//! The machine, case by case: pipeline.md 2.2–2.7.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use pipeline::machine::state::Status;
use pipeline::machine::{Event, Holdup, stage_records};
use pipeline::plan::RecordedValue;
use pipeline::planner::PlanOptions;
use pipeline::view::execution_view;
use proto::failure::{FailureKind, FailureType};
use proto::result::Output;
use proto::task::{CopySource, StepSpec, UnitKind};
use serde_json::json;
use support::*;

fn strategy(errors: &str, action: &str) -> String {
    format!("failureStrategies: [{{onFailure: {{errors: [{errors}], action: {action}}}}}]")
}

#[test]
fn without_a_strategy_the_next_step_is_skipped_unless_its_when_says_otherwise() {
    let steps = noop("a", "")
        + &noop("b", "")
        + &noop("c", "when: {stageStatus: All}")
        + &noop("d", "when: {stageStatus: Failure}");
    let mut world = World::start(&custom("", &steps, ""));
    world.answer(failed(FailureKind::RemoteFailed));
    world.answer_all(|_| success());
    assert_eq!(world.order, ["a", "c", "d"]);
    assert_eq!(world.step("b"), "Skipped");
    assert_eq!(world.finished.as_deref(), Some("Failed"));
}

#[test]
fn ignore_goes_on_and_parents_are_ignore_failed() {
    let steps = noop("a", &strategy("AllErrors", "{type: Ignore}")) + &noop("b", "");
    let mut world = World::start(&custom("", &steps, ""));
    world.answer(failed(FailureKind::RemoteFailed));
    world.answer(success());
    assert_eq!(world.step("a"), "IgnoreFailed");
    assert_eq!(world.finished.as_deref(), Some("IgnoreFailed"));
}

#[test]
fn mark_as_success_and_mark_as_failure() {
    let steps = noop("a", &strategy("AllErrors", "{type: MarkAsSuccess}"))
        + &noop("b", &strategy("AllErrors", "{type: MarkAsFailure}"))
        + &noop("c", "");
    let mut world = World::start(&custom("", &steps, ""));
    world.answer(failed(FailureKind::RemoteFailed));
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!((world.step("a"), world.step("b"), world.step("c")), ("Success", "Failed", "Skipped"));
}

#[test]
fn strategies_are_merged_per_kind() {
    let stage = strategy("AllErrors", "{type: StageRollback}");
    let own = strategy("Timeout", "{type: Abort}");
    let yaml = custom("", &noop("a", &own), &noop("undo", ""));
    let yaml = yaml.replace("        type: Custom\n", &format!("        type: Custom\n        {stage}\n"));
    let mut world = World::start(&yaml);
    world.answer(failed(FailureKind::Timeout));
    assert_eq!(world.finished.as_deref(), Some("Aborted"));
    assert!(!world.order.contains(&"undo".to_owned()), "an abort runs no rollback");
    let mut world = World::start(&yaml);
    world.answer(failed(FailureKind::Connectivity));
    assert_eq!(world.order, ["a", "undo"]);
    world.answer(success());
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    assert!(execution_view(&world.state, None).rolled_back);
}

#[test]
fn retry_waits_its_intervals_and_then_does_what_it_says() {
    let retry = "{type: Retry, spec: {retryCount: 2, retryIntervals: [10s, 1m], onRetryFailure: {action: {type: Ignore}}}}";
    let mut world = World::start(&custom("", &noop("a", &strategy("AllErrors", retry)), ""));
    world.answer(failed(FailureKind::Connectivity));
    let (timer, due) = world.timers.iter().find(|(timer, _)| timer.starts_with("retry")).unwrap();
    assert_eq!(
        (timer.as_str(), *due),
        ("retry/1/pipeline.stages.s.spec.execution.steps.a", world.now + 10_000)
    );
    assert_eq!(world.tasks.len(), 0);
    world.fire("retry");
    assert_eq!(world.tasks[0].attempt, 2);
    assert_eq!(world.tasks[0].abstractions.last().unwrap().1, "a_1");
    world.answer(failed(FailureKind::Connectivity));
    let due = world.timers.iter().find(|(timer, _)| timer.starts_with("retry")).unwrap().1;
    assert_eq!(*due, world.now + 60_000);
    world.fire("retry");
    world.answer(failed(FailureKind::Connectivity));
    assert_eq!(world.finished.as_deref(), Some("IgnoreFailed"));
}

#[test]
fn retry_pauses_and_waits_are_divided_in_a_rehearsal_and_timeouts_are_not() {
    let retry = "{type: Retry, spec: {retryCount: 1, retryIntervals: [60s]}}";
    let steps = noop("a", &(strategy("AllErrors", retry) + "\ntimeout: 1h"))
        + "- step: {identifier: w, name: w, type: Wait, spec: {duration: 10m}}\n";
    let options = PlanOptions { rehearsal: Some(60), ..options() };
    let mut world = World::start_with(planned_with(&custom("", &steps, ""), &options));
    let due =
        |world: &World, kind: &str| world.timers.iter().find(|(t, _)| t.starts_with(kind)).map(|(_, at)| *at);
    assert_eq!(due(&world, "timeout/1"), Some(world.now + 3_600_000));
    world.answer(failed(FailureKind::Connectivity));
    assert_eq!(due(&world, "retry"), Some(world.now + 1_000));
    world.fire("retry");
    world.answer(success());
    assert_eq!(due(&world, "wait"), Some(world.now + 10_000));
    world.fire("wait");
    assert_eq!(world.finished.as_deref(), Some("Success"));
}

#[test]
fn a_timeout_cancels_waits_for_the_end_and_expires() {
    let mut world = World::start(&custom("", &(noop("a", "timeout: 1m") + &noop("b", "")), ""));
    world.fire("timeout/1");
    assert_eq!(
        world.cancelled,
        [("pipeline.stages.s.spec.execution.steps.a".to_owned(), "Deadline".to_owned())]
    );
    assert_eq!(world.step("a"), "Running");
    world.answer(success());
    assert_eq!(world.step("a"), "Expired");
    assert_eq!(world.finished.as_deref(), Some("Expired"));
    let run = &world.state.runs["pipeline.stages.s.spec.execution.steps.a"];
    assert_eq!(run.failure.as_ref().unwrap().class, FailureType::Timeout);
}

#[test]
fn an_agent_that_says_nothing_is_given_up() {
    let mut world = World::start(&custom("", &noop("a", "timeout: 1m"), ""));
    world.fire("timeout/1");
    world.fire("grace");
    assert_eq!(world.finished.as_deref(), Some("Expired"));
    let run = &world.state.runs["pipeline.stages.s.spec.execution.steps.a"];
    assert!(run.notices[0].contains("unknown"));
    // The answer that comes after all changes nothing.
    let before = world.state.clone();
    world.answer(success());
    assert_eq!(world.state, before);
}

#[test]
fn the_step_of_a_lost_agent_fails_at_its_timeout_without_waiting_for_it() {
    let mut world = World::start(&custom("", &noop("a", "timeout: 10m"), ""));
    let task = world.tasks.pop_front().unwrap();
    let (node, attempt) = (task.node.clone(), task.attempt);
    let since = world.now + 60_000;
    world.fire_with("timeout/1", Some(Holdup::Lost { agent: "zone-a".into(), since, undo: None }));
    assert_eq!(world.cancelled, [(node.clone(), "Deadline".to_owned())]);
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    let failure = world.state.runs[&node].failure.clone().unwrap();
    assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::DelegateRestart, "PIPE-007"));
    assert!(failure.message.contains("the agent zone-a that runs it has been silent for 9m"), "{failure:?}");
    // Its late result changes nothing.
    let before = world.state.clone();
    world.event(|at| Event::TaskEnded { node, attempt, result: Box::new(success()), at });
    assert_eq!(world.state, before);
}

#[test]
fn a_lost_agent_is_a_failure_of_its_own_class_that_a_strategy_may_repeat() {
    let retry = "timeout: 10m
failureStrategies:
  - onFailure: {errors: [DelegateRestart], action: {type: Retry, spec: {retryCount: 1, retryIntervals: [10s], onRetryFailure: {action: {type: Ignore}}}}}";
    let mut world = World::start(&custom("", &noop("a", retry), ""));
    let first = world.tasks.pop_front().unwrap();
    world.fire_with("timeout/1", Some(Holdup::Lost { agent: "zone-a".into(), since: 1, undo: None }));
    world.fire("retry/1");
    let (node, attempt) = (first.node.clone(), first.attempt);
    world.event(|at| Event::TaskEnded { node, attempt, result: Box::new(success()), at });
    assert_eq!(world.step("a"), "Running", "the late result of the first attempt is not the second's");
    world.answer(success());
    assert_eq!(world.step("a"), "Success");
}

#[test]
fn a_step_that_waits_for_busy_agents_times_out_and_says_so() {
    let mut world = World::start(&custom("", &noop("a", "timeout: 10m"), ""));
    let node = world.tasks[0].node.clone();
    world.fire_with("timeout/1", Some(Holdup::Waiting { why: "all 2 fitting agents are busy".into() }));
    // The queue drops what nobody had taken and says so.
    world.answer(failed(FailureKind::Timeout));
    let failure = world.state.runs[&node].failure.clone().unwrap();
    assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::Timeout, "PIPE-004"));
    assert!(failure.message.contains("all 2 fitting agents are busy"), "{failure:?}");
    assert_eq!(world.step("a"), "Expired");
}

#[test]
fn a_stage_timeout_expires_what_is_inside_and_rolls_back() {
    let yaml = deployment(&(noop("a", "") + &noop("b", "")), &noop("undo", ""));
    let yaml = yaml.replace("        type: Deployment\n", "        type: Deployment\n        timeout: 5m\n");
    let mut world = World::start(&yaml);
    world.fire("timeout/0/pipeline.stages.s");
    world.answer(failed(FailureKind::Timeout));
    assert_eq!(world.step("a"), "Expired");
    assert_eq!(world.order, ["a", "undo"]);
    world.answer(success());
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    assert!(execution_view(&world.state, None).rolled_back);
}

#[test]
fn a_pipeline_timeout_ends_everything_without_rollback() {
    let yaml = custom("timeout: 1h", &noop("a", ""), &noop("undo", ""));
    let mut world = World::start(&yaml);
    world.fire("timeout/0/pipeline");
    world.answer(success());
    assert_eq!(world.finished.as_deref(), Some("Expired"));
    assert_eq!(world.order, ["a"]);
}

#[test]
fn an_abort_cancels_runs_no_rollback_and_a_second_one_changes_nothing() {
    let mut world = World::start(&deployment(&(script("a", "x", "") + &noop("b", "")), &noop("undo", "")));
    assert_eq!(world.order, ["a_0", "a_1"]);
    let actions = world.abort();
    assert_eq!(actions.len(), 4, "two cancels, two grace timers: {actions:?}");
    assert!(world.abort().is_empty());
    world.answer(failed(FailureKind::RemoteFailed));
    world.answer(success());
    assert_eq!(world.finished.as_deref(), Some("Aborted"));
    assert_eq!(world.order, ["a_0", "a_1"]);
    let view = execution_view(&world.state, None);
    let hosts: Vec<Status> = view.stages[0].steps[0].hosts.iter().map(|host| host.status).collect();
    assert_eq!(hosts, [Status::Aborted, Status::Success], "what was done before the abort is told as it is");
    assert_eq!(view.stages[0].steps[1].status, Status::NotStarted);
    assert_eq!(view.aborted_by.as_deref(), Some("me"));
}

#[test]
fn an_abort_before_the_start_starts_nothing() {
    let mut state = pipeline::machine::State::new(planned(&custom("", &noop("a", ""), "")));
    let actions = pipeline::machine::apply(&mut state, &Event::AbortRequested { by: "me".into(), at: 1 });
    assert_eq!(state.status(), Status::Aborted);
    assert_eq!(actions.len(), 2, "{actions:?}");
}

#[test]
fn parallel_members_start_together_and_the_join_waits() {
    let mut members = String::from("- parallel:\n");
    for line in (noop("a", "") + &noop("b", "")).lines() {
        members.push_str(&format!("    {line}\n"));
    }
    let mut world = World::start(&custom("", &(members + &noop("c", "")), ""));
    assert_eq!(world.order, ["a", "b"]);
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(world.order, ["a", "b"]);
    world.answer(success());
    assert_eq!(world.step("c"), "Skipped");
    let view = execution_view(&world.state, None);
    let ids: Vec<&str> = view.stages[0].steps.iter().map(|step| step.identifier.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
}

#[test]
fn a_step_group_rolls_back_by_itself() {
    let mut group = String::from("- stepGroup:\n    identifier: g\n    name: g\n    steps:\n");
    let inner = noop("a", &strategy("AllErrors", "{type: StepGroupRollback}")) + &noop("b", "");
    inner.lines().for_each(|line| group.push_str(&format!("      {line}\n")));
    group.push_str("    rollbackSteps:\n");
    noop("undo", "").lines().for_each(|line| group.push_str(&format!("      {line}\n")));
    let mut world = World::start(&custom("", &(group + &noop("c", "when: {stageStatus: All}")), ""));
    world.answer(failed(FailureKind::RemoteFailed));
    assert_eq!(world.order, ["a", "undo"]);
    world.answer(success());
    assert_eq!(world.order, ["a", "undo", "c"]);
    world.answer(success());
    assert_eq!(world.step("g"), "Failed");
    assert_eq!(world.step("g.steps.b"), "NotStarted");
    assert_eq!(world.step("g.rollbackSteps.undo"), "Success");
}

#[test]
fn rollback_steps_stop_at_a_failure_unless_a_strategy_goes_on() {
    let rollback = |more: &str| noop("u1", more) + &noop("u2", "");
    let mut world = World::start(&deployment(&noop("a", ""), &rollback("")));
    world.answer_all(|_| failed(FailureKind::RemoteFailed));
    assert_eq!(world.order, ["a", "u1"]);
    let mut world =
        World::start(&deployment(&noop("a", ""), &rollback(&strategy("AllErrors", "{type: MarkAsFailure}"))));
    world.answer_all(|_| failed(FailureKind::RemoteFailed));
    assert_eq!(world.order, ["a", "u1", "u2"]);
}

#[test]
fn a_written_repeat_limits_how_many_run_at_once() {
    let step = noop("a", "strategy: {repeat: {items: [x, y, z], maxConcurrency: 2}}")
        .replace("{line: x}", "{line: '<+repeat.item>-<+strategy.iteration>/<+strategy.iterations>'}");
    let mut world = World::start(&custom("", &step, ""));
    assert_eq!(world.order, ["a_0", "a_1"]);
    let first = world.answer(success());
    let StepSpec::Noop(spec) = &first.task.step.spec else { panic!() };
    assert_eq!(spec.line, "x-0/3");
    assert_eq!(world.order, ["a_0", "a_1", "a_2"]);
    world.answer_all(|_| success());
    assert_eq!(world.finished.as_deref(), Some("Success"));
    let view = execution_view(&world.state, None);
    let ids: Vec<&str> = view.stages[0].steps[0].steps.iter().map(|step| step.identifier.as_str()).collect();
    assert_eq!(ids, ["a_0", "a_1", "a_2"]);
}

#[test]
fn a_loop_over_hosts_needs_no_host_key() {
    let step = script("a", "x", "strategy: {repeat: {items: <+stage.output.hosts>, maxConcurrency: 1}}");
    let mut world = World::start(&deployment(&step, ""));
    let task = world.answer(success());
    let StepSpec::Command(command) = &task.task.step.spec else { panic!() };
    let target = command.target.as_ref().unwrap();
    assert_eq!((target.host.as_str(), target.port, target.user.as_str()), ("h1", 2022, "deploy"));
    assert_eq!(world.order, ["a_0", "a_1"]);
}

#[test]
fn an_empty_loop_is_skipped() {
    let mut world = World::start(&custom("", &noop("a", "strategy: {repeat: {times: 0}}"), ""));
    assert_eq!(world.step("a"), "Skipped");
    assert_eq!(world.finished.as_deref(), Some("Success"));
    assert!(world.abort().is_empty());
}

#[test]
fn a_loop_of_more_than_ten_thousand_is_refused_and_ten_thousand_run() {
    // The count is an output, so only the machine can see it.
    let items = "strategy: {repeat: {times: <+execution.steps.n.output.outputVariables.n>}}";
    let mut world = World::start(&custom("", &(noop("n", "") + &noop("a", items)), ""));
    world.answer(output("outputVariables.n", "10001"));
    assert_eq!(world.finished.as_deref(), Some("Failed"));
    let mut world =
        World::start(&custom("", &noop("a", "strategy: {repeat: {times: 10000, maxConcurrency: 5}}"), ""));
    world.answer_all(|_| success());
    assert_eq!(world.order.len(), 10_000);
    assert_eq!(world.finished.as_deref(), Some("Success"));
}

#[test]
fn conditions_are_evaluated_when_the_node_starts() {
    let when = |condition: &str| format!("when: {{stageStatus: Success, condition: '{condition}'}}");
    let steps = noop("a", &when("<+pipeline.variables.color> == \"blue\""))
        + &noop("b", &when("<+pipeline.variables.color> == \"red\""))
        + &noop("c", &when("<+pipeline.variables.color>"));
    let yaml = custom("variables: [{name: color, type: String, value: blue}]", &steps, "");
    let mut world = World::start(&yaml);
    world.answer_all(|_| success());
    assert_eq!((world.step("a"), world.step("b"), world.step("c")), ("Success", "Skipped", "Failed"));
    let failure = world.state.runs["pipeline.stages.s.spec.execution.steps.c"].failure.clone().unwrap();
    assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::BadSpec, "PIPE-002"));
}

#[test]
fn outputs_feed_later_steps_and_are_never_resolved_again() {
    let use_it = "echo <+execution.steps.a.output.outputVariables.v> <+steps.a.output.outputVariables.v>";
    let first = script("a", "x", "").replace(
        "onDelegate: false",
        "onDelegate: false\n      outputVariables: [{name: v, type: String, value: v}]",
    );
    let mut world = World::start(&deployment(&(first + &script("b", use_it, "")), ""));
    world.answer_all(|_| output("outputVariables.v", "<+secrets.getValue(\"pem\")>"));
    let task = world.state.runs.len();
    assert!(task > 0);
    // The text came from outside: it stays as it is, and names no secret.
    let mut world = World::start(&deployment(&(script("a", "x", "") + &script("b", use_it, "")), ""));
    world.answer(output("outputVariables.v", "<+secrets.getValue(\"pem\")>"));
    world.answer(success());
    let task = world.tasks[0].clone();
    let StepSpec::Command(command) = &task.task.step.spec else { panic!() };
    let UnitKind::Script { script, .. } = &command.units[0].kind else { panic!() };
    assert_eq!(script.as_str(), "echo <+secrets.getValue(\"pem\")> <+secrets.getValue(\"pem\")>");
    assert_eq!(task.secrets.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["api_token", "pem"]);
}

#[test]
fn a_secret_output_is_a_placeholder_that_the_manager_resolves() {
    let use_it = "echo <+execution.steps.a.output.outputVariables.v>";
    let mut world = World::start(&deployment(&(script("a", "x", "") + &script("b", use_it, "")), ""));
    let mut result = success();
    result.outputs.insert("outputVariables.v".into(), Output { value: json!("sealed"), secret: true });
    world.answer(result.clone());
    world.answer(result);
    let task = world.tasks[0].clone();
    let names: Vec<&str> = task.secrets.iter().map(|s| s.0.as_str()).collect();
    assert!(
        names.contains(&"output/pipeline.stages.s.spec.execution.steps.a/outputVariables.v"),
        "{names:?}"
    );
    assert!(!serde_json::to_string(&task).unwrap().contains("sealed"));
    let view = serde_json::to_string(&execution_view(&world.state, None)).unwrap();
    assert!(!view.contains("sealed"));
}

#[test]
fn env_and_secrets_of_a_script() {
    let mut world = World::start(&deployment(&script("a", "echo <+secrets.getValue(\"pem\")>", ""), ""));
    let task = world.answer(success());
    assert_eq!(task.task.env["color"].as_str(), "blue");
    assert_eq!(task.task.env["LEVEL"].as_str(), "info");
    assert_eq!(task.task.env["TOKEN"].as_str(), "${ngSecretManager.obtain(\"api_token\", 99)}");
    assert_eq!(task.task.secret_token, 99);
    assert_eq!(task.task.service.as_ref().unwrap().name, "Web App");
}

#[test]
fn selectors_come_from_the_nearest_level() {
    let mut world =
        World::start(&deployment(&(noop("a", "") + &noop("b", "delegateSelectors: [' Own ', X]")), ""));
    let task = world.answer(success());
    assert_eq!(
        (task.selectors[0].origin.as_str(), task.selectors[0].selectors.clone()),
        ("infrastructure", vec!["zone-b".to_owned()])
    );
    let task = world.answer(success());
    assert_eq!(
        (task.selectors[0].origin.as_str(), task.selectors[0].selectors.clone()),
        ("step", vec!["own".to_owned(), "x".to_owned()])
    );
}

#[test]
fn config_files_travel_only_with_the_units_that_copy_them() {
    let copy = script("a", "x", "").replace(
        "commandUnits:\n",
        "commandUnits:\n        - {identifier: c, name: c, type: Copy, spec: {sourceType: Config, destinationPath: /etc/app/}}\n",
    );
    let mut world = World::start(&deployment(&(copy + &script("b", "x", "")), ""));
    let task = world.answer(success());
    let json = serde_json::to_value(&task.task.config_files).unwrap();
    assert_eq!(json[0]["store"]["spec"]["connector"]["url"], "https://git.example.com/acme/conf");
    assert!(task.secrets.iter().any(|secret| secret.0 == "git_token"));
    let StepSpec::Command(command) = &task.task.step.spec else { panic!() };
    assert!(matches!(command.units[0].kind, UnitKind::Copy { source_type: CopySource::Config, .. }));
    world.answer(success());
    let task = world.answer(success());
    assert!(task.task.config_files.is_empty());
    assert!(!task.secrets.iter().any(|secret| secret.0 == "git_token"));
}

#[test]
fn a_rollback_command_takes_what_was_deployed_before() {
    let yaml = deployment(&script("a", "x", ""), &script("undo", "echo <+serviceVariables.LEVEL>", ""));
    let mut world = World::start(&yaml);
    world.answer_all(|_| success());
    let mut records = stage_records(&world.state);
    assert_eq!(records.len(), 1);
    records[0].1.variables.insert("LEVEL".into(), RecordedValue { text: "old".into(), expression: false });
    let options = PlanOptions { last_successful: records.into_iter().collect(), ..options() };
    let undo = |options: &PlanOptions| {
        let mut world = World::start_with(planned_with(&yaml, options));
        world.answer(failed(FailureKind::RemoteFailed));
        world.answer(success());
        assert!(!world.tasks.is_empty(), "{:#?}", world.state.runs);
        let task = world.tasks[0].clone();
        let StepSpec::Command(command) = &task.task.step.spec else { panic!() };
        let UnitKind::Script { script, .. } = &command.units[0].kind else { panic!() };
        (
            script.as_str().to_owned(),
            task.task.env["LEVEL"].as_str().to_owned(),
            world.state.runs[&task.node].notices.clone(),
        )
    };
    assert_eq!(undo(&options), ("echo old".to_owned(), "old".to_owned(), vec![]));
    let (script, env, notices) = undo(&support::options());
    assert_eq!((script.as_str(), env.as_str()), ("echo info", "info"));
    assert!(notices[0].contains("no earlier successful deployment"));
}

#[test]
fn one_failed_host_fails_the_step_and_the_others_are_told() {
    let mut world = World::start(&deployment(&(script("a", "x", "") + &noop("b", "")), &noop("undo", "")));
    world.answer(failed(FailureKind::Connectivity));
    world.answer(success());
    world.answer(success());
    assert_eq!(world.order, ["a_0", "a_1", "undo"]);
    let view = execution_view(&world.state, None);
    let step = &view.stages[0].steps[0];
    assert_eq!(step.status, Status::Failed);
    assert_eq!(step.failure.as_ref().unwrap().class, FailureType::Connectivity);
    let hosts: Vec<(&str, Status)> =
        step.hosts.iter().map(|host| (host.host.as_str(), host.status)).collect();
    assert_eq!(hosts, [("h1", Status::Failed), ("h2", Status::Success)]);
    assert!(step.steps.is_empty());
}

#[test]
fn the_assertion_travels_with_what_it_names() {
    let step = "- step:
    identifier: h
    name: h
    type: Http
    timeout: 5m
    spec:
      url: http://h1:8080/<+service.name>
      method: GET
      headers: [{key: X, value: <+env.name>}]
      assertion: <+httpResponseCode> == 200 && <+pipeline.variables.color> == \"blue\"
";
    let mut world = World::start(&deployment(step, ""));
    let task = world.answer(success());
    let StepSpec::Http(http) = &task.task.step.spec else { panic!() };
    assert_eq!(http.url.as_str(), "http://h1:8080/Web App");
    assert_eq!(http.context, json!({"pipeline": {"variables": {"color": "blue"}}}));
    assert_eq!(http.timeout_ms, Some(300_000));
    assert_eq!(task.timeout_ms, 300_000);
}

#[test]
fn stages_follow_the_status_of_the_pipeline() {
    let one = custom("", &noop("a", ""), "");
    let second = one.split("  stages:\n").nth(1).unwrap().replace("identifier: s\n", "identifier: t\n");
    let third = second.replace("identifier: t\n", "identifier: u\n        when: {pipelineStatus: Failure}\n");
    let mut world = World::start(&format!("{one}{second}{third}"));
    world.answer(failed(FailureKind::RemoteFailed));
    world.answer_all(|_| success());
    assert_eq!(world.status("pipeline.stages.t"), "Skipped");
    assert_eq!(world.status("pipeline.stages.u"), "Success");
    assert_eq!(world.finished.as_deref(), Some("Failed"));
}

#[test]
fn after_a_rollback_was_advised_nothing_more_of_the_stage_starts() {
    let steps =
        noop("a", "") + &noop("b", "when: {stageStatus: All}") + &noop("c", "when: {stageStatus: Failure}");
    let mut world = World::start(&deployment(&steps, &noop("undo", "")));
    world.answer(failed(FailureKind::RemoteFailed));
    world.answer_all(|_| success());
    assert_eq!(world.order, ["a", "undo"]);
    assert_eq!((world.step("b"), world.step("c")), ("NotStarted", "NotStarted"));
}
