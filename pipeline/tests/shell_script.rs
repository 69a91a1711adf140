//! The ShellScript step: what is read, where it is routed, what reaches the agent.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

mod support;

use proto::task::{Shell, StepSpec, UnitKind};
use support::*;

/// A ShellScript step with further keys in its spec.
fn step(id: &str, script: &str, more: &str) -> String {
    let mut text = format!(
        "- step:
    identifier: {id}
    name: {id}
    type: ShellScript
    spec:
      source: {{type: Inline, spec: {{script: '{script}'}}}}
"
    );
    for line in more.lines() {
        text.push_str(&format!("      {line}\n"));
    }
    text
}

#[test]
fn it_runs_on_the_agent_with_its_variables() {
    let more = "shell: Python
onDelegate: true
metadata: {}
executionTarget: {workingDirectory: /srv/<+pipeline.name>}
environmentVariables:
  - {name: LEVEL, type: String, value: <+execution.steps.first.output.outputVariables.level>}
  - {name: PW, type: Secret, value: '<+secrets.getValue(\"api_token\")>'}
outputVariables:
  - {name: out, type: String, value: OUT}
  - {name: token, type: Secret, value: TOKEN}";
    let steps = step("first", "x", "outputVariables: [{name: level, type: String, value: L}]")
        + &step("second", "print(1)", more);
    let mut world = World::start(&custom("", &steps, ""));
    let first = world.answer(output("outputVariables.level", "loud"));
    assert_eq!(first.task_type, "SHELL_SCRIPT_TASK_NG");
    let StepSpec::ShellScript(spec) = &first.task.step.spec else { panic!() };
    assert_eq!((spec.shell, &spec.working_directory), (Shell::Bash, &None));
    let second = world.answer(success());
    let StepSpec::ShellScript(spec) = &second.task.step.spec else { panic!() };
    assert_eq!((spec.shell, spec.script.as_str()), (Shell::Python, "print(1)"));
    assert_eq!(spec.working_directory.as_ref().unwrap().as_str(), "/srv/p");
    assert_eq!(second.task.env["LEVEL"].as_str(), "loud");
    assert_eq!(second.task.env["PW"].as_str(), "${ngSecretManager.obtain(\"api_token\", 99)}");
    assert_eq!(second.secrets.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["api_token"]);
    let outputs: Vec<_> =
        spec.output_variables.iter().map(|o| (o.name.as_str(), o.value.as_str(), o.secret)).collect();
    assert_eq!(outputs, [("out", "OUT", false), ("token", "TOKEN", true)]);
    assert_eq!(world.finished.as_deref(), Some("Success"));
    // The document survives the wire.
    let json = serde_json::to_string(&*second.task).unwrap();
    assert_eq!(serde_json::from_str::<proto::task::StepTask>(&json).unwrap(), *second.task);
}

#[test]
fn on_a_host_it_is_a_command_step_with_one_unit() {
    let more = "shell: Sh
onDelegate: false
executionTarget: {host: 'h9:2200', connectorRef: key, workingDirectory: /opt}
outputVariables: [{name: out, type: String, value: OUT}]";
    // The credential is the step's own, so a stage without infrastructure will do.
    let mut world = World::start(&custom("", &step("a", "echo", more), ""));
    let task = world.answer(success());
    assert_eq!(task.task_type, "COMMAND_TASK_NG");
    let StepSpec::Command(command) = &task.task.step.spec else { panic!() };
    let target = command.target.as_ref().unwrap();
    assert_eq!((target.host.as_str(), target.port, target.user.as_str()), ("h9", 2200, "deploy"));
    assert!(task.secrets.iter().any(|secret| secret.0 == "pem"));
    assert_eq!(command.output_variables[0].name, "out");
    let UnitKind::Script { shell, script, working_directory } = &command.units[0].kind else { panic!() };
    assert_eq!((*shell, script.as_str()), (Shell::Sh, "echo"));
    assert_eq!(working_directory.as_ref().unwrap().as_str(), "/opt");

    // Without a credential of its own it takes that of the infrastructure.
    let more = "onDelegate: false\nexecutionTarget: {host: h1}";
    let mut world = World::start(&deployment(&step("a", "echo", more), ""));
    let task = world.answer(success());
    let StepSpec::Command(command) = &task.task.step.spec else { panic!("{:?}", task.task.step.spec) };
    assert_eq!(command.target.as_ref().unwrap().port, 2022);
}

#[test]
fn without_a_host_it_runs_on_the_agent_and_says_so() {
    let yaml = custom("", &step("a", "echo", "onDelegate: false\nexecutionTarget: {}"), "");
    let mut world = World::start(&yaml);
    assert!(codes(&planned(&yaml)).contains(&"shell-script.no-host"));
    assert_eq!(world.answer(success()).task_type, "SHELL_SCRIPT_TASK_NG");
    // `onDelegate: true` leaves a host that was typed in alone.
    let yaml = custom(
        "",
        &step("a", "echo", "onDelegate: true\nexecutionTarget: {host: h9, connectorRef: no-such}"),
        "",
    );
    assert_eq!(World::start(&yaml).answer(success()).task_type, "SHELL_SCRIPT_TASK_NG");
}

#[test]
fn faults_name_their_place() {
    let only = |more: &str| {
        let faults = faults(&custom("", &step("a", "echo", more), ""));
        assert_eq!(faults.len(), 1, "{faults:#?}");
        faults[0].to_string()
    };
    let fault = only("onDelegate: false\nexecutionTarget: {host: h9, connectorRef: kye}");
    assert!(
        fault.contains("spec.executionTarget.connectorRef") && fault.contains("`kye` is neither"),
        "{fault}"
    );
    assert!(fault.contains("did you mean `key`?"), "{fault}");
    assert!(only("shell: Bsh").contains("Bash"), "{}", only("shell: Bsh"));
    assert!(only("outputAlias: {key: k, scope: Stage}").contains("not supported yet"));
    let file = custom("", &step("a", "echo", "").replace("type: Inline", "type: Harness"), "");
    let faults = faults(&file);
    assert!(faults[0].to_string().contains("supported is Inline"), "{faults:#?}");
}

#[test]
fn an_unresolved_variable_fails_the_step() {
    let more = "environmentVariables: [{name: X, type: String, value: <+pipeline.variables.nope>}]";
    let faulty =
        pipeline::planner::plan("p.yaml", &custom("", &step("a", "echo", more), ""), &catalog(), &options());
    match faulty {
        Err(faults) => assert!(faults.iter().any(|f| f.to_string().contains("nope")), "{faults:#?}"),
        Ok(plan) => {
            let world = World::start_with(plan);
            assert_eq!((world.step("a"), world.finished.as_deref()), ("Failed", Some("Failed")));
        }
    }
}
