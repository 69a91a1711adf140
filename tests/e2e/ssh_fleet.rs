//! Scripts on hosts: abort, crashes of the agent and the manager, selectors, replicas.

use e2e::peers::sshd::Sshd;
use e2e::wait::until;
use e2e::world::{AgentProcess, Layout, Manager, load_ssh, ssh_entities};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// One host, a manager and the entities for one script step.
async fn fleet(dir: &Path, pipeline: &str, steps: &[(&str, &str)]) -> (Sshd, Manager) {
    let ssh = dir.join("ssh");
    let sshd = Sshd::start(&ssh, 1).await;
    let manager = Manager::start(dir);
    let files = ssh_entities(dir, &sshd, pipeline, steps, Layout::Steps).unwrap();
    load_ssh(&manager, &files, &sshd);
    (sshd, manager)
}

/// Process ids whose command line holds `mark`.
fn processes_with(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(mark) {
            found.push(format!("{} {line}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

/// The lines of the log that begin with `line `, as numbers in stored order.
fn numbers(manager: &Manager, execution: &str) -> Vec<u64> {
    let text = manager.ok(&["execution", "logs", execution]);
    let number = |l: &str| l.split("number ").nth(1)?.split_whitespace().next()?.parse().ok();
    text.lines().filter_map(number).collect()
}

/// `kill -9` for every process that logged in to this scenario's own home, and for no other scenario's.
fn kill_all_of(sshd: &Sshd) {
    let mark = format!("HOME={}", sshd.home.display());
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|b| *b == 0).any(|line| line == mark.as_bytes()) {
            let pid = entry.file_name();
            let _gone_already = std::process::Command::new("kill").arg("-KILL").arg(pid).output();
        }
    }
}

fn left_on_the_host(sshd: &Sshd) -> Vec<String> {
    let base = sshd.home.join(".delegate");
    std::fs::read_dir(base)
        .map(|d| d.flatten().map(|e| e.path().display().to_string()).collect())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_the_whole_tree_on_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap '' TERM\nsleep 86501 &\nsetsid sleep 86502 &\nsetsid sh -c \"trap '' TERM; sleep 86503; sleep 86504\" &\necho started\nsleep 86505";
    let (sshd, manager) = fleet(dir.path(), "stubborn", &[("run", script)]).await;
    let _agent = AgentProcess::start(&manager, dir.path(), "zone-a", &[]);
    let id = manager.start_pipeline(&["stubborn"]);
    until("all children run", Duration::from_secs(30), || async {
        (processes_with("sleep 8650").iter().filter(|p| !p.contains("sh -c")).count() >= 4).then_some(())
    })
    .await;
    manager.ok(&["execution", "abort", &id]);
    let view = manager.finished(&id, Duration::from_secs(60)).await;
    assert_eq!(view["status"], "Aborted", "{view:#}");
    assert_eq!(processes_with("sleep 8650"), Vec::<String>::new());
    assert_eq!(left_on_the_host(&sshd), Vec::<String>::new());
    // A second abort is no error.
    manager.ok(&["execution", "abort", &id]);
}

/// A small generator, seeded, so that a failing round can be run again.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_any_point_loses_and_doubles_nothing() {
    const ROUNDS: usize = 50;
    const LINES: u64 = 90;
    let dir = tempfile::tempdir().unwrap();
    let effects = dir.path().join("effects");
    std::fs::create_dir_all(&effects).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&effects, std::fs::Permissions::from_mode(0o777)).unwrap();
    let script = format!(
        "echo once >> {}/<+pipeline.sequenceId>\ni=0\nwhile [ $i -lt {LINES} ]; do echo number $i; i=$((i+1)); sleep 0.016; done\necho done >> {}/<+pipeline.sequenceId>.end",
        effects.display(),
        effects.display()
    );
    let (sshd, manager) = fleet(dir.path(), "counter", &[("count", &script)]).await;
    let mut agent = AgentProcess::start(&manager, dir.path(), "zone-a", &[]);
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed);
    let mut random = seed;
    let mut verdicts = std::collections::BTreeMap::<String, u32>::new();
    for round in 1..=ROUNDS {
        let id = manager.start_pipeline(&["counter"]);
        let wait = Duration::from_millis(next_random(&mut random) % 2500);
        // The moment of the kill is the random input of this test, not a wait for something to become true.
        tokio::time::sleep(wait).await;
        let logged = agent.process.as_ref().unwrap().log_text().len();
        agent.kill9();
        let has_begun = effects.join(round.to_string()).exists();
        let has_ended = effects.join(format!("{round}.end")).exists();
        agent.launch();
        let view = manager.finished(&id, Duration::from_secs(60)).await;
        let log = agent.process.as_ref().unwrap().log_text();
        let verdict = log.get(logged..).unwrap_or_default().split("verdict=").nth(1).unwrap_or("none");
        let context =
            format!("round {round}, killed after {wait:?}, SEED={seed}, verdict {verdict}\n{view:#}");
        // What the target itself shows is the truth that `recover` is held to. A script may begin or end between that
        // look and the recovery; it never goes back.
        let allowed: &[&str] = match (has_begun, has_ended) {
            // Nothing to recover: the task was not accepted yet, or its result was durable already.
            _ if verdict == "none" => &["none"],
            (false, _) => &["NeverStarted", "Running", "Ended(0)"],
            (true, false) => &["Running", "Ended(0)"],
            // Its last line has run; its holder may still have to write that down.
            (true, true) => &["Running", "Ended(0)"],
        };
        assert!(allowed.iter().any(|a| verdict.starts_with(a)), "{context}");
        *verdicts.entry(verdict.split_whitespace().next().unwrap_or_default().to_owned()).or_insert(0) += 1;
        assert_eq!(view["status"], "Success", "{context}");
        assert_eq!(numbers(&manager, &id), (0..LINES).collect::<Vec<_>>(), "{context}");
        let effect = std::fs::read_to_string(effects.join(round.to_string())).unwrap_or_default();
        assert_eq!(effect, "once\n", "{context}");
    }
    assert_eq!(left_on_the_host(&sshd), Vec::<String>::new());
    println!("verdicts of {ROUNDS} rounds: {verdicts:?}");
    assert!(verdicts.contains_key("Running"), "no recovery found a running script: {verdicts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_vanished_with_the_agent_fails_and_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let effects = dir.path().join("effects");
    std::fs::write(&effects, "").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&effects, std::fs::Permissions::from_mode(0o666)).unwrap();
    let script = format!("echo once >> {}\necho number 0\nexec sleep 86511", effects.display());
    let (sshd, manager) = fleet(dir.path(), "vanish", &[("run", &script)]).await;
    let mut agent = AgentProcess::start(&manager, dir.path(), "zone-a", &[]);
    let id = manager.start_pipeline(&["vanish"]);
    until("the script runs", Duration::from_secs(30), || async {
        (!processes_with("sleep 86511").is_empty()).then_some(())
    })
    .await;
    agent.kill9();
    // Everything of ours on the host dies too, as in a reboot.
    kill_all_of(&sshd);
    until("the script is gone", Duration::from_secs(30), || async {
        processes_with("sleep 86511").is_empty().then_some(())
    })
    .await;
    agent.launch();
    let view = manager.finished(&id, Duration::from_secs(60)).await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    let failure = &view["stages"][0]["steps"][0]["hosts"][0]["failure"];
    assert!(failure["code"].as_str().unwrap().starts_with("SSH-"), "{view:#}");
    assert_eq!(std::fs::read_to_string(&effects).unwrap(), "once\n");
    assert_eq!(left_on_the_host(&sshd), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_manager_goes_on_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let steps = [
        ("one", "echo number 1; sleep 0.4"),
        ("two", "echo number 2; sleep 0.4"),
        ("three", "echo number 3; sleep 0.4"),
    ];
    let (_sshd, mut manager) = fleet(dir.path(), "steps", &steps).await;
    let _agent = AgentProcess::start(&manager, dir.path(), "zone-a", &[]);
    let mut random = 0xab5e_u64;
    for _ in 0..8 {
        let id = manager.start_pipeline(&["steps"]);
        tokio::time::sleep(Duration::from_millis(next_random(&mut random) % 1800)).await;
        manager.kill9();
        manager.launch();
        let view = manager.finished(&id, Duration::from_secs(60)).await;
        assert_eq!(view["status"], "Success", "{view:#}");
        let mut seen = numbers(&manager, &id);
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
    }
}

fn agent_of(view: &Value) -> String {
    let step = &view["stages"][0]["steps"][0];
    let agent = step["hosts"][0]["agent"].as_str().or(step["agent"].as_str());
    agent.unwrap_or_else(|| panic!("no agent in {view:#}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_go_only_where_their_selectors_match() {
    let dir = tempfile::tempdir().unwrap();
    let (_sshd, manager) = fleet(dir.path(), "select", &[("run", "echo here")]).await;
    let file = dir.path().join("select.yaml");
    let plain = std::fs::read_to_string(&file).unwrap();
    let selecting = |tag: &str| {
        let text = plain.replace(
            "    timeout: 30m\n",
            &format!("    timeout: 30m\n                  # placed by the test\n                  selectorsOf: {tag}\n"),
        );
        assert_ne!(text, plain);
        let text = text.replace(
            &format!("selectorsOf: {tag}\n                  spec:\n"),
            &format!("selectorsOf: {tag}\n                  spec:\n                    delegateSelectors: [{tag}]\n"),
        );
        assert!(text.contains("delegateSelectors"), "{text}");
        manager.apply("select", &text);
    };
    let _blue = AgentProcess::start(&manager, dir.path(), "blue", &[("DELEGATE_TAGS", "dc1,blue-tag")]);
    let _green = AgentProcess::start(&manager, dir.path(), "green", &[("DELEGATE_TAGS", "dc1,green-tag")]);
    for (tag, name) in [("green-tag", "green"), ("BLUE-TAG", "blue"), ("green-tag", "green")] {
        selecting(tag);
        let id = manager.start_pipeline(&["select"]);
        let view = manager.finished(&id, Duration::from_secs(60)).await;
        assert_eq!(view["status"], "Success", "{view:#}");
        assert_eq!(agent_of(&view), name);
    }
    // Nobody has this one: the explanation names the nearest agents, and the step starts when one appears.
    selecting("red-tag");
    let id = manager.start_pipeline(&["select"]);
    let waiting = until("the explanation", Duration::from_secs(30), || async {
        // The stage itself waits a moment for its turn on the infrastructure.
        let text = manager.show(&id).to_string();
        (text.contains("waitingFor") && text.contains("red-tag")).then_some(text)
    })
    .await;
    assert!(waiting.contains("blue"), "{waiting}");
    let _red = AgentProcess::start(&manager, dir.path(), "red", &[("DELEGATE_TAGS", "red-tag")]);
    let view = manager.finished(&id, Duration::from_secs(60)).await;
    assert_eq!((view["status"].as_str(), agent_of(&view).as_str()), (Some("Success"), "red"), "{view:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fitting_agent_the_step_fails_as_delegate_provisioning() {
    let dir = tempfile::tempdir().unwrap();
    let ssh = dir.path().join("ssh");
    let sshd = Sshd::start(&ssh, 1).await;
    let manager = Manager::start_with(dir.path(), &["--agent-wait", "2s"]);
    let files = ssh_entities(dir.path(), &sshd, "lonely", &[("run", "echo here")], Layout::Steps).unwrap();
    load_ssh(&manager, &files, &sshd);
    let id = manager.start_pipeline(&["lonely"]);
    let view = manager.finished(&id, Duration::from_secs(60)).await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    let text = view.to_string();
    assert!(text.contains("DelegateProvisioning"), "{view:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_one_name_share_the_work_and_one_may_die() {
    let dir = tempfile::tempdir().unwrap();
    let (_sshd, manager) = fleet(dir.path(), "share", &[("run", "echo here; sleep 0.3")]).await;
    let first_dir = dir.path().join("r1");
    let second_dir = dir.path().join("r2");
    std::fs::create_dir_all(&first_dir).unwrap();
    std::fs::create_dir_all(&second_dir).unwrap();
    let mut first = AgentProcess::start(&manager, &first_dir, "zone-a", &[]);
    let _second = AgentProcess::start(&manager, &second_dir, "zone-a", &[]);
    let agents = manager.json(&["agents", "--output", "json"]);
    assert_eq!(agents.as_array().map(Vec::len), Some(2), "{agents:#}");
    let ids: Vec<String> = (0..6).map(|_| manager.start_pipeline(&["share"])).collect();
    for id in &ids {
        assert_eq!(manager.finished(id, Duration::from_secs(60)).await["status"], "Success");
    }
    first.kill9();
    let id = manager.start_pipeline(&["share"]);
    assert_eq!(manager.finished(&id, Duration::from_secs(60)).await["status"], "Success");
}
