//! HarnessApproval as people meet it: four users with their own keys at the command line, and a manager that is killed.

use e2e::wait::until;
use e2e::world::{AgentProcess, Manager};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Ann belongs to a group by its document, Bob by his own entry, Run starts executions and may approve others' ones, Eve
/// belongs elsewhere.
const GROUPS: &str = "userGroup:
  identifier: payments_team
  name: Payments
  users: [ann@example.com, run@example.com]
";

const PIPELINE: &str = r#"pipeline:
  name: Release
  identifier: release
  variables:
    - {name: tag, type: String, value: v2.3.1}
    - {name: patience, type: String, value: <+input>.default(1d)}
  stages:
    - stage:
        name: Approve
        identifier: approve
        type: Approval
        spec:
          execution:
            steps:
              - step:
                  type: HarnessApproval
                  name: Go live
                  identifier: go_live
                  timeout: <+pipeline.variables.patience>
                  spec:
                    approvalMessage: |
                      Deploy <+pipeline.variables.tag> of run <+pipeline.sequenceId>?
                    isAutoRejectEnabled: true
                    callbackId: gate-<+pipeline.sequenceId>
                    approvers:
                      userGroups: [payments_team, platform_team]
                      minimumCount: 2
                      disallowPipelineExecutor: true
                    approverInputs:
                      - {name: change_ticket, label: Ticket, required: true, regex: "CHG-[0-9]+"}
                      - {name: zone, defaultValue: eu, allowedValues: "eu,us"}
    - stage:
        name: Deploy
        identifier: deploy
        type: Custom
        spec:
          execution:
            steps:
              - step:
                  type: ShellScript
                  name: Say
                  identifier: say
                  timeout: 1m
                  spec:
                    shell: Bash
                    onDelegate: true
                    source:
                      type: Inline
                      spec:
                        script: |
                          echo "ticket <+pipeline.stages.approve.spec.execution.steps.go_live.output.approverInputs.change_ticket>"
                          echo "first by <+approval.approvalActivities[0].user.email>: <+approval.approvalActivities[0].comments>"
"#;

struct World {
    manager: Manager,
    _agent: AgentProcess,
    keys: BTreeMap<&'static str, String>,
    _dir: tempfile::TempDir,
}

impl World {
    fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let manager = Manager::start(dir.path());
        let agent = AgentProcess::start(&manager, dir.path(), "zone-a", &[]);
        let mut keys = BTreeMap::new();
        for (name, groups) in [("ann", ""), ("bob", "platform_team"), ("run", ""), ("eve", "sales")] {
            keys.insert(name, manager.add_user(&format!("{name}@example.com"), groups));
        }
        manager.apply("groups", GROUPS);
        manager.apply("release", PIPELINE);
        World { manager, _agent: agent, keys, _dir: dir }
    }

    /// A command with the key of one of the four.
    fn by(&self, who: &str, args: &[&str]) -> Output {
        self.manager.cli(args).env("DELEGATE_API_KEY", &self.keys[who]).output().unwrap()
    }

    fn run(&self, inputs: &[&str]) -> String {
        let mut args = vec!["pipeline", "run", "release", "--detach", "--output", "json"];
        args.extend_from_slice(inputs);
        let output = self.by("run", &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let view: Value = serde_json::from_slice(&output.stdout).unwrap();
        view["executionId"].as_str().unwrap().to_owned()
    }

    async fn waiting(&self, execution: &str) -> Value {
        until("it waits for approval", LIMIT, || async {
            let list = self.manager.json(&["approval", "list", "--output", "json"]);
            list.as_array().unwrap().iter().find(|one| one["executionId"] == execution).cloned()
        })
        .await
    }

    /// A decision that must be refused with this in its message.
    fn refused(&self, who: &str, args: &[&str], part: &str) {
        let output = self.by(who, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{who} {args:?} went through");
        assert!(said.contains(part), "{who} {args:?}: `{part}` is not in:\n{said}");
    }

    fn approved(&self, who: &str, args: &[&str]) -> Value {
        let mut all = vec!["approval", "approve"];
        all.extend_from_slice(args);
        all.extend(["--output", "json"]);
        let output = self.by(who, &all);
        assert!(output.status.success(), "{who} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn step(view: &Value, stage: usize, step: usize) -> &Value {
    &view["stages"][stage]["steps"][step]
}

#[tokio::test(flavor = "multi_thread")]
async fn four_users_decide_by_the_rules_of_the_step() {
    let world = World::start();
    let execution = world.run(&[]);
    let asked = world.waiting(&execution).await;
    let id = asked["id"].as_str().unwrap();
    assert_eq!(asked["message"], "Deploy v2.3.1 of run 1?\n", "{asked:#}");
    assert_eq!(asked["status"], "WAITING");
    assert_eq!(world.manager.show(&execution)["status"], "ApprovalWaiting");
    assert_eq!(step(&world.manager.show(&execution), 0, 0)["approval"]["id"], id, "execution show names it");
    let text = world.manager.ok(&["execution", "show", &execution]);
    assert!(text.contains(&format!("delegate approval approve {id}")), "{text}");
    assert!(world.manager.ok(&["approval", "list"]).contains(id));

    let ticket = ["--input", "change_ticket=CHG-7"];
    let approve = |more: &[&'static str]| -> Vec<String> {
        ["approval", "approve", id].iter().chain(more).map(|part| (*part).to_owned()).collect()
    };
    for (who, inputs, part) in [
        ("run", &ticket[..], "they started this execution"),
        ("eve", &ticket[..], "none of the user groups payments_team, platform_team"),
        ("ann", &[][..], "`change_ticket`"),
        ("ann", &["--input", "change_ticket="][..], "a value is required"),
        ("ann", &["--input", "change_ticket=seven"][..], "`seven` does not match `CHG-[0-9]+`"),
        ("ann", &["--input", "change_ticket=CHG-7", "--input", "zone=moon"][..], "`moon` is not allowed"),
        (
            "ann",
            &["--input", "change_ticket=CHG-7", "--input", "zona=eu"][..],
            "declares no such approver input",
        ),
    ] {
        let args = approve(inputs);
        world.refused(who, &args.iter().map(String::as_str).collect::<Vec<_>>(), part);
    }
    // The key that made everything belongs to nobody.
    let own = world.manager.run(&["approval", "approve", id]);
    assert_eq!(own.status.code(), Some(77), "{}", String::from_utf8_lossy(&own.stderr));

    let first = world.approved("ann", &[id, "--input", "change_ticket=CHG-7", "--comment", "looks good"]);
    assert_eq!(first["status"], "WAITING", "one of two: {first:#}");
    world.refused(
        "ann",
        &["approval", "approve", id, "--input", "change_ticket=CHG-7"],
        "acted on this approval",
    );
    let second = world.approved("bob", &[id, "--input", "change_ticket=CHG-8", "--input", "zone=us"]);
    assert_eq!(second["status"], "APPROVED", "{second:#}");

    let view = world.manager.finished(&execution, LIMIT).await;
    let logs = world.manager.ok(&["execution", "logs", &execution]);
    assert_eq!(view["status"], "Success", "{view:#}\n{logs}");
    let outputs = &step(&view, 0, 0)["outputs"];
    assert_eq!(outputs["approverInputs"]["change_ticket"], "CHG-8", "the last one counts: {outputs:#}");
    assert_eq!(outputs["approvalActivities"][0]["user"]["email"], "ann@example.com");
    assert_eq!(outputs["approvalActivities"][0]["comments"], "looks good");
    assert!(outputs["approvalActivities"][1]["approvedAt"].as_u64().is_some(), "{outputs:#}");
    assert!(logs.contains("ticket CHG-8") && logs.contains("first by ann@example.com: looks good"), "{logs}");
    let shown = world.manager.ok(&["approval", "show", id]);
    assert!(shown.starts_with("APPROVED") && shown.contains("bob@example.com"), "{shown}");
    world.refused("bob", &["approval", "reject", id], "has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_ends_it_and_nobody_in_time_expires_it() {
    let world = World::start();
    let execution = world.run(&[]);
    let asked = world.waiting(&execution).await;
    let id = asked["id"].as_str().unwrap();
    world.refused("eve", &["approval", "reject", id], "none of the user groups");
    let output = world.by("bob", &["approval", "reject", id, "--comment", "not on a Friday"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let view = world.manager.finished(&execution, LIMIT).await;
    let gate = step(&view, 0, 0);
    assert_eq!(gate["status"], "ApprovalRejected", "{view:#}");
    assert_eq!(
        (&gate["failure"]["code"], &gate["failure"]["class"]),
        (&"PIPE-031".into(), &"ApprovalRejection".into())
    );
    assert_eq!(gate["approval"]["activities"][0]["comments"], "not on a Friday", "{gate:#}");
    assert_eq!(view["stages"][1]["status"], "Skipped", "{view:#}");

    let execution = world.run(&["--input", "patience=2s"]);
    let view = world.manager.finished(&execution, LIMIT).await;
    let gate = step(&view, 0, 0);
    assert_eq!(
        (&gate["status"], &gate["failure"]["class"]),
        (&"Expired".into(), &"Timeout".into()),
        "{view:#}"
    );
    assert_eq!(gate["approval"]["status"], "EXPIRED");
    world.refused("ann", &["approval", "reject", gate["approval"]["id"].as_str().unwrap()], "has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_approvals_are_rejected_once_also_when_the_manager_is_killed_in_between() {
    let mut world = World::start();
    let mut older = Vec::new();
    for _ in 0..3 {
        older.push(world.run(&[]));
    }
    let newest = world.run(&[]);
    let newer = world.run(&[]);
    for execution in older.iter().chain([&newest, &newer]) {
        world.waiting(execution).await;
    }
    let id = world.waiting(&newest).await["id"].as_str().unwrap().to_owned();
    world.approved("ann", &[&id, "--input", "change_ticket=CHG-1"]);
    world.approved("bob", &[&id, "--input", "change_ticket=CHG-1"]);
    world.manager.kill9();
    world.manager.launch();
    for execution in &older {
        let view = world.manager.finished(execution, LIMIT).await;
        let gate = step(&view, 0, 0);
        assert_eq!(gate["status"], "ApprovalRejected", "{view:#}");
        let activities = gate["approval"]["activities"].as_array().unwrap();
        assert_eq!(activities.len(), 1, "{gate:#}");
        let comment = activities[0]["comments"].as_str().unwrap();
        assert!(comment.contains(&newest), "{comment}");
    }
    assert_eq!(world.manager.finished(&newest, LIMIT).await["status"], "Success");
    assert_eq!(world.manager.show(&newer)["status"], "ApprovalWaiting", "a later one goes on waiting");
}
