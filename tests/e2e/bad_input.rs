//! Bad input as a user brings it: documents that cannot be run, and hosts that do not do what the pipeline asks. Each gives
//! one clear message with class, code, host and hint, and nothing hangs.

use e2e::peers::sshd::Sshd;
use e2e::peers::web::Artifacts;
use e2e::world::{AgentProcess, Layout, Manager, load_ssh, ssh_entities};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

/// Documents that are refused, with what is said about them.
fn documents() -> Vec<(&'static str, String, &'static str)> {
    let mut bomb = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for (before, name) in ('a'..='i').zip('b'..='j') {
        let list = vec![format!("*{before}"); 9].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{list}]\n"));
    }
    let maps: String = (0..1_000).map(|depth| format!("{}a:\n", " ".repeat(depth + 1))).collect();
    let step = |spec: &str| {
        format!(
            "pipeline:\n  name: p\n  identifier: p\n  stages:\n    - stage:\n        name: s\n        identifier: s\n        type: Custom\n        spec: {{execution: {{steps: [{{step: {spec}}}]}}}}\n"
        )
    };
    vec![
        ("malformed", "pipeline:\n  name: p\n   identifier: p\n".to_owned(), "is not valid YAML"),
        ("large", format!("pipeline: {{name: \"{}\"}}\n", "x".repeat(10 << 20)), "at most 10485760"),
        ("bomb", bomb, "more than 100000 values"),
        ("deep", format!("pipeline: {}{}\n", "[".repeat(1_000), "]".repeat(1_000)), "recursion limit"),
        ("deep_maps", format!("pipeline:\n{maps}"), "nested deeper"),
        ("step", step("{type: Comand, name: a, identifier: a, spec: {}}"), "did you mean `Command`?"),
        (
            "connector",
            "connector: {identifier: c, name: c, type: Azure, spec: {}}\n".to_owned(),
            "connector type `Azure` is not supported",
        ),
        (
            "expression",
            step("{type: Noop, name: a, identifier: a, spec: {line: <+pipeline.nam>}}"),
            "did you mean `pipeline.name`",
        ),
        (
            "template",
            step("{type: Noop, name: '{{X}}', identifier: a, spec: {line: x}}"),
            "unrendered placeholder",
        ),
    ]
}

#[test]
fn documents_that_cannot_be_run_are_refused_with_their_place_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(dir.path());
    for (name, text, part) in documents() {
        let file = dir.path().join(format!("{name}.yaml"));
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let ways = match name {
            "connector" => vec![vec!["apply", file]],
            _ => vec![vec!["pipeline", "validate", file], vec!["pipeline", "run", file]],
        };
        for args in ways {
            let output = manager.run(&args);
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(output.status.code(), Some(64), "{name} {args:?}: {said}");
            assert!(said.contains(part), "{name} {args:?}: {said}");
            let line = said.lines().find(|line| line.contains(part)).unwrap();
            let at = line.split(&format!("{file}:")).nth(1).unwrap_or_else(|| panic!("no place in {line}"));
            let numbers: Vec<&str> = at.split(':').take(2).collect();
            assert!(numbers.iter().all(|number| number.parse::<u32>().is_ok()), "FILE:LINE:COLUMN in {line}");
        }
    }
    assert_eq!(manager.json(&["execution", "list", "--output", "json"]), Value::Array(vec![]));
}

struct World {
    manager: Manager,
    sshd: Sshd,
    _agent: AgentProcess,
    dir: tempfile::TempDir,
}

impl World {
    async fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let ssh = dir.path().join("ssh");
        let sshd = Sshd::start(&ssh, 1).await;
        let manager = Manager::start(dir.path());
        let agent = AgentProcess::start(&manager, dir.path(), "zone-a", &[]);
        let files = ssh_entities(dir.path(), &sshd, "base", &[("run", "true")], Layout::Steps).unwrap();
        load_ssh(&manager, &files, &sshd);
        World { manager, sshd, _agent: agent, dir }
    }

    /// Runs the pipeline `base`, changed by `change`, with a rollback step; it must fail. Returns the view.
    async fn fails(&self, base: &str, name: &str, change: impl Fn(String) -> String) -> Value {
        let text = std::fs::read_to_string(self.dir.path().join(format!("{base}.yaml"))).unwrap();
        let text = change(text).replacen(&format!("  name: {base}"), &format!("  name: {name}"), 1);
        let text = text.replacen(&format!("  identifier: {base}"), &format!("  identifier: {name}"), 1)
            + "            rollbackSteps:\n              - step: {type: Command, name: undo, identifier: undo, timeout: 1m, spec: {onDelegate: false, commandUnits: [{commandUnit: {identifier: u, name: u, type: Script, spec: {shell: Sh, source: {type: Inline, spec: {script: echo undone}}}}}]}}\n";
        let file = self.dir.path().join(format!("{name}.yaml"));
        std::fs::write(&file, text).unwrap();
        let id = self.manager.start_pipeline(&[file.to_str().unwrap()]);
        let view = self.manager.finished(&id, LIMIT).await;
        assert_eq!(view["status"], "Failed", "{name}: {view:#}");
        view
    }

    /// The one failure, with what each failure must say.
    fn told(&self, name: &str, view: &Value, class: &str, code: &str) -> String {
        let step = &view["stages"][0]["steps"][0];
        let host = &step["hosts"][0];
        assert_eq!(
            (&host["status"], &host["host"]),
            (&"Failed".into(), &self.sshd.hosts()[0].clone().into())
        );
        let failure = &host["failure"];
        assert_eq!((&failure["class"], &failure["code"]), (&class.into(), &code.into()), "{name}: {view:#}");
        let message = failure["message"].as_str().unwrap();
        assert!(failure["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{name}: {failure:#}");
        let named = message.contains(&self.sshd.hosts()[0]) || failure["target"].as_str().is_some();
        assert!(named, "{name}: the host is named: {failure:#}");
        message.to_owned()
    }
}

fn rolled_back(name: &str, view: &Value) {
    assert_eq!(view["rolledBack"], true, "{name}: {view:#}");
    assert_eq!(view["stages"][0]["rollbackSteps"][0]["status"], "Success", "{name}: {view:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_do_its_part_is_named_with_class_code_and_hint() {
    let world = World::start().await;
    let as_it_is = |text: String| text;
    let changed = |text: &str, new: String| {
        assert_ne!(text, new, "the change took hold");
        new
    };

    let script = "echo out; echo 'no space in the basket' >&2; exit 7";
    let view = world
        .fails("base", "exits", |text| changed(&text, text.replace("true\n", &format!("{script}\n"))))
        .await;
    let message = world.told("exits", &view, "Unknown", "SSH-011");
    assert!(message.contains("status 7") && message.contains("no space in the basket"), "{message}");
    rolled_back("exits", &view);

    let view = world
        .fails("base", "missing", |text| changed(&text, text.replace("shell: Bash", "shell: PowerShell")))
        .await;
    let message = world.told("missing", &view, "Unknown", "SSH-014");
    assert!(message.contains("pwsh"), "{message}");
    rolled_back("missing", &view);

    // An artifact that is not there, over a real server.
    let artifacts = Artifacts::start(world.dir.path(), "robot", "pw").await;
    world.manager.set_secret("robot_pw", b"pw");
    let connector = world.dir.path().join("connector.yaml");
    std::fs::write(
        &connector,
        format!(
            "connector: {{name: art, identifier: art, type: Artifactory, spec: {{artifactoryServerUrl: 'http://127.0.0.1:{}/artifactory/', auth: {{type: UsernamePassword, spec: {{username: robot, passwordRef: robot_pw}}}}}}}}\n",
            artifacts.port
        ),
    )
    .unwrap();
    world.manager.ok(&["apply", connector.to_str().unwrap()]);
    let download = "            steps:\n              - step: {type: ArtifactoryDownload, name: d, identifier: d, timeout: 1m, spec: {connectorRef: art, repository: r, artifactPath: none.tgz, targetPath: /tmp/none/}}\n";
    let view = world
        .fails("base", "artifact", |text| {
            let (head, _) = text.split_once("            steps:\n").unwrap();
            format!("{head}{download}")
        })
        .await;
    let message = world.told("artifact", &view, "Unknown", "SRC-006");
    assert!(message.contains("none.tgz"), "{message}");
    rolled_back("artifact", &view);

    // A key that the host does not know.
    let wrong = world.dir.path().join("wrong");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&wrong).status();
    assert!(made.unwrap().success());
    world.manager.set_secret("base_key", &std::fs::read(&wrong).unwrap());
    let view = world.fails("base", "wrong_key", as_it_is).await;
    world.told("wrong_key", &view, "Authentication", "SSH-006");
    world.manager.set_secret("base_key", b"no key at all");
    let view = world.fails("base", "no_key", as_it_is).await;
    world.told("no_key", &view, "Authentication", "SSH-007");

    // Nobody is there; what the rollback could not do is told too.
    let ssh = world.dir.path().join("gone");
    let mut gone = Sshd::start(&ssh, 1).await;
    let files = ssh_entities(world.dir.path(), &gone, "gone", &[("run", "true")], Layout::Steps).unwrap();
    load_ssh(&world.manager, &files, &gone);
    gone.stop(&gone.hosts()[0].clone());
    let view = world.fails("gone", "down", as_it_is).await;
    world.told("down", &view, "Connectivity", "SSH-002");
    let undo = &view["stages"][0]["rollbackSteps"][0];
    assert_eq!((&undo["status"], &view["rolledBack"]), (&"Failed".into(), &false.into()), "{view:#}");
}
