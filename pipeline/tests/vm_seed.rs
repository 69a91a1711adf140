//! The seed's VM pipeline, byte for byte, with its entities: planned, run in the machine, and shown.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "A test that finds nothing must fail.")]

use pipeline::entities::{CatalogEntity, Snapshot, parse_entities};
use pipeline::machine::state::Status;
use pipeline::machine::{Action, Event, State, TaskRequest, apply};
use pipeline::planner::{PlanOptions, plan, preflight, validate};
use pipeline::view::execution_view;
use pipeline::{Mode, Plan};
use proto::failure::{Failure, FailureKind};
use proto::result::{LearnedHostKey, Output, StepResult, StepStatus};
use proto::task::{ArtifactSource, StepSpec, UnitKind};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/seeds");

fn seed(name: &str) -> String {
    std::fs::read_to_string(format!("{SEEDS}/{name}")).unwrap()
}

fn catalog() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for name in [
        "ssh-connector.yaml",
        "vm-service.yaml",
        "vm-service-detailed.yaml",
        "vm-infrastructure.yaml",
        "vm-entities/connectors.yaml",
        "vm-entities/environment.yaml",
        "vm-entities/secrets.yaml",
    ] {
        let entities =
            parse_entities(name, &seed(name)).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
        snapshot.entities.extend(entities.into_iter().map(CatalogEntity::from));
    }
    snapshot.secrets = ["vm-ssh-key", "artifactory_password", "git_token"].map(str::to_owned).to_vec();
    snapshot
}

fn options() -> PlanOptions {
    PlanOptions {
        account: "default".into(),
        execution_id: "ex1".into(),
        sequence_id: 7,
        started_by: "dev@corp.io".into(),
        started_at: 1_000,
        secret_token: 4711,
        ..PlanOptions::default()
    }
}

fn planned() -> Plan {
    plan("vm.yaml", &seed("vm-deployment-pipeline.yaml"), &catalog(), &options())
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(|f| format!("{f}\n")).collect::<String>()))
}

fn success() -> StepResult {
    StepResult { agent: "agent-1".into(), fence: 1, ..StepResult::bare(StepStatus::Success, None) }
}

fn failed(kind: FailureKind) -> StepResult {
    let failure = Failure::new(kind, "SSH-001", "exit code 1");
    StepResult { status: StepStatus::Failed, failure: Some(failure), ..success() }
}

/// Drives a run: `answer` says what becomes of each task.
fn drive(
    state: &mut State,
    mut answer: impl FnMut(&TaskRequest) -> StepResult,
) -> (Vec<String>, Option<String>) {
    let mut order = Vec::new();
    let mut finished = None;
    let mut at = 2_000;
    let mut open: std::collections::VecDeque<Action> = apply(state, &Event::Started { at }).into();
    while let Some(action) = open.pop_front() {
        match action {
            Action::Enqueue(task) => {
                order.push(task.task.step.identifier.clone());
                at += 10;
                let result = Box::new(answer(&task));
                let event = Event::TaskEnded { node: task.node.clone(), attempt: task.attempt, result, at };
                open.extend(apply(state, &event));
            }
            Action::Claim { node, .. } => open.extend(apply(state, &Event::Granted { node, at })),
            Action::Finish { status } => finished = Some(status),
            _ => {}
        }
    }
    (order, finished)
}

#[test]
fn the_seeds_are_those_of_the_checksums() {
    use sha2::{Digest, Sha256};
    for line in seed("SHA256SUMS").lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        let digest = Sha256::digest(seed(name).as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, sum, "{name}");
    }
}

#[test]
fn the_plan_names_every_applied_rule() {
    let plan = planned();
    let mut codes: Vec<&str> = plan.notices.iter().map(|notice| notice.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(
        codes,
        [
            "R10.inline-verify",
            "R11.flat-duration",
            "R15.expression",
            "R16.default-strategy",
            "R18.http-timeout",
            "R2.type-alias",
            "R24.config-file-id",
            "R3.overlay",
            "R6.unit-name",
            "R7.implicit-hosts",
            "R8.artifactory-download",
        ]
    );
    for notice in &plan.notices {
        assert!(notice.line > 0 && !notice.yaml_path.is_empty(), "{notice:?}");
    }
    let strict = plan_strict();
    assert!(strict.iter().any(|fault| fault.contains("R7.implicit-hosts")), "{strict:?}");
}

fn plan_strict() -> Vec<String> {
    let options = PlanOptions { mode: Mode::Strict, ..options() };
    let faults = plan("vm.yaml", &seed("vm-deployment-pipeline.yaml"), &catalog(), &options).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn the_plan_survives_storage() {
    let plan = planned();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    assert!(text.len() < 200_000, "{}", text.len());
}

#[test]
fn success_runs_every_step_once_in_order() {
    let mut state = State::new(planned());
    let mut tasks = Vec::new();
    let (order, finished) = drive(&mut state, |task| {
        tasks.push(task.clone());
        let mut result = success();
        if let StepSpec::ResolveArtifact(_) = task.task.step.spec {
            result.outputs.insert("tag".into(), Output::from(serde_json::json!("7")));
            result.outputs.insert("digest".into(), Output::from(serde_json::json!("sha256:ab")));
        }
        if task.task.step.identifier == "Backup_Current_Application_0" {
            result.learned_host_keys.push(LearnedHostKey {
                host: "production-vm-01.example.com:22".into(),
                key: "ssh-ed25519 AAAA".into(),
                fingerprint: "SHA256:x".into(),
            });
        }
        result
    });
    assert_eq!(
        order,
        [
            "artifact",
            "Backup_Current_Application_0",
            "Stop_Services_0",
            "Download_Artifacts_0",
            "Extract_and_Install_0",
            "Update_Configuration_0",
            "Start_Services_0",
            "Health_Check",
            "Run_Smoke_Tests_0",
            "Continuous_Verification",
        ]
    );
    assert_eq!(finished.as_deref(), Some("Success"));
    let view = execution_view(&state, None);
    assert_eq!(view.status, Status::Success);
    assert!(!view.rolled_back);
    assert_eq!(view.stages[0].steps.len(), 9);
    assert_eq!(view.stages[0].steps[0].hosts[0].host, "production-vm-01.example.com");
    assert_eq!(view.stages[0].steps[0].hosts[0].status, Status::Success);
    assert_eq!(view.stages[0].rollback_steps[0].status, Status::NotStarted);

    // The tasks themselves.
    let task = |name: &str| tasks.iter().find(|task| task.task.step.identifier == name).unwrap();
    let backup = task("Backup_Current_Application_0");
    assert_eq!(backup.task_type, "COMMAND_TASK_NG");
    assert_eq!(backup.affinity, "ex1/production-vm-01.example.com");
    assert_eq!(backup.secrets.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["vm-ssh-key"]);
    let StepSpec::Command(command) = &backup.task.step.spec else { panic!() };
    let target = command.target.as_ref().unwrap();
    assert_eq!(
        (target.host.as_str(), target.port, target.user.as_str()),
        ("production-vm-01.example.com", 22, "root")
    );
    assert!(target.host_keys.known.is_empty());
    let UnitKind::Script { script, .. } = &command.units[0].kind else { panic!() };
    assert!(script.as_str().starts_with("#!/bin/bash\necho \"Creating backup...\"\n"));
    let levels: Vec<&str> = backup.abstractions.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(
        levels,
        [
            "default",
            "default",
            "default_project",
            "vm_deployment_pipeline",
            "7",
            "pipeline",
            "stages",
            "Deploy_to_VM",
            "spec",
            "execution",
            "steps",
            "Backup_Current_Application_0"
        ]
    );

    let stop = task("Stop_Services_0");
    let StepSpec::Command(command) = &stop.task.step.spec else { panic!() };
    assert_eq!(command.target.as_ref().unwrap().host_keys.known, ["ssh-ed25519 AAAA"], "learned on the way");

    let download = task("Download_Artifacts_0");
    let StepSpec::Command(command) = &download.task.step.spec else { panic!() };
    let UnitKind::DownloadArtifact { destination_path, source } = &command.units[0].kind else { panic!() };
    let source = source.as_ref().unwrap();
    assert_eq!(destination_path.as_str(), "/opt/myapp/");
    assert_eq!((source.repository.as_str(), source.path.as_str()), ("myapp-releases", "myapp-7.tar.gz"));
    let secrets: Vec<&str> = download.secrets.iter().map(|s| s.0.as_str()).collect();
    assert_eq!(secrets, ["artifactory_password", "vm-ssh-key"]);

    let lookup = &tasks[0];
    let StepSpec::ResolveArtifact(spec) = &lookup.task.step.spec else { panic!() };
    assert_eq!(spec.artifact.tag, "7");
    assert!(
        matches!(&spec.artifact.source, ArtifactSource::DockerRegistry { image_path, .. } if image_path == "myapp")
    );
    assert_eq!(backup.task.artifact.as_ref().unwrap().digest.as_deref(), Some("sha256:ab"));

    let health = task("Health_Check");
    let StepSpec::Http(http) = &health.task.step.spec else { panic!() };
    assert_eq!(
        http.assertion.as_deref(),
        Some("<+json.select(\"status\", <+httpResponseBody>)> == \"UP\"\n")
    );
    assert_eq!((http.timeout_ms, health.timeout_ms), (Some(30_000), 30_000));
    assert!(health.secrets.is_empty());

    let verify = task("Continuous_Verification");
    let StepSpec::Verify(spec) = &verify.task.step.spec else { panic!() };
    assert_eq!(spec.duration_ms, 600_000);
    assert_eq!(spec.metric_name, "http_requests_total");
    assert_eq!(spec.variables["baseline"], "7");
    assert_eq!(spec.query, "sum(rate(http_requests_total[5m]))");
}

/// Every task of the seed, field by field: a change of any of them is read by a person.
#[test]
fn the_tasks_of_the_seed() {
    let mut state = State::new(planned());
    let mut tasks = Vec::new();
    drive(&mut state, |task| {
        tasks.push(serde_json::to_value(task).unwrap());
        match task.task.step.identifier.as_str() {
            "Run_Smoke_Tests_0" => failed(FailureKind::RemoteFailed),
            _ => success(),
        }
    });
    insta::assert_snapshot!(serde_json::to_string_pretty(&tasks).unwrap());
}

#[test]
fn a_failing_health_check_rolls_back_once() {
    let mut state = State::new(planned());
    let (order, finished) = drive(&mut state, |task| match task.task.step.identifier.as_str() {
        "Health_Check" => failed(FailureKind::RemoteFailed),
        _ => success(),
    });
    assert_eq!(order[7..], ["Health_Check", "Rollback_Application_0"]);
    assert_eq!(finished.as_deref(), Some("Failed"));
    let view = execution_view(&state, None);
    assert!(view.rolled_back);
    let stage = &view.stages[0];
    assert_eq!(stage.status, Status::Failed);
    assert_eq!(stage.steps[6].status, Status::Failed);
    assert_eq!(stage.steps[7].status, Status::NotStarted);
    assert_eq!(stage.rollback_steps[0].status, Status::Success);
    assert!(stage.rollback_steps[0].rollback);
}

#[test]
fn a_missing_artifact_fails_the_stage_before_its_first_step() {
    let mut state = State::new(planned());
    let (order, finished) = drive(&mut state, |_| failed(FailureKind::RemoteFailed));
    assert_eq!(order, ["artifact"]);
    assert_eq!(finished.as_deref(), Some("Failed"));
    let view = execution_view(&state, None);
    assert!(!view.rolled_back);
    assert_eq!(view.stages[0].steps[0].kind, "ResolveArtifact");
    assert_eq!(view.stages[0].steps[1].status, Status::NotStarted);
    assert_eq!(view.stages[0].failure.as_ref().unwrap().code, "SSH-001");
}

#[test]
fn a_failed_rollback_is_not_called_rolled_back() {
    let mut state = State::new(planned());
    let (_, finished) = drive(&mut state, |task| match task.task.step.identifier.as_str() {
        "Start_Services_0" | "Rollback_Application_0" => failed(FailureKind::RemoteFailed),
        _ => success(),
    });
    assert_eq!(finished.as_deref(), Some("Failed"));
    assert!(!execution_view(&state, None).rolled_back);
}

#[test]
fn the_preflight_knows_hosts_and_secrets() {
    let needs = preflight(&planned());
    let backup = needs.iter().find(|need| need.step == "Backup_Current_Application").unwrap();
    assert_eq!(backup.hosts[0].host, "production-vm-01.example.com:22");
    assert!(!backup.hosts[0].known);
    assert_eq!(backup.secrets, ["vm-ssh-key"]);
    assert!(needs.iter().all(|need| need.selectors.is_empty()));
}

#[test]
fn validation_without_a_manager_finds_no_fault() {
    let validation = validate("vm.yaml", &seed("vm-deployment-pipeline.yaml"), None, Mode::Lenient);
    assert!(validation.faults.is_empty(), "{:?}", validation.faults);
    assert_eq!(validation.pipeline.as_deref(), Some("vm_deployment_pipeline"));
    assert!(validation.notices.iter().any(|notice| notice.code == "R7.implicit-hosts"));
}
