//! The policy for SSH host keys, set by `delegate manager --host-keys` and, for one zone, by the agent; and the keys as a
//! user lists, accepts and forgets them.

use e2e::peers::sshd::Sshd;
use e2e::world::{AgentProcess, Layout, Manager, load_ssh, ssh_entities};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

struct World {
    manager: Manager,
    sshd: Sshd,
    dir: TempDir,
}

impl World {
    async fn start(mode: &[&str]) -> World {
        let dir = tempfile::tempdir().unwrap();
        let ssh = dir.path().join("ssh");
        let sshd = Sshd::start(&ssh, 1).await;
        let manager = Manager::start_with(dir.path(), mode);
        let files = ssh_entities(dir.path(), &sshd, "keys", &[("run", "echo here")], Layout::Steps).unwrap();
        load_ssh(&manager, &files, &sshd);
        World { manager, sshd, dir }
    }

    fn agent(&self, name: &str, extra: &[(&str, &str)]) -> AgentProcess {
        AgentProcess::start(&self.manager, self.dir.path(), name, extra)
    }

    /// `HOST:PORT` of the server.
    fn host(&self) -> String {
        format!("{}:{}", self.sshd.hosts()[0], self.sshd.port)
    }

    /// The `SHA256:` fingerprint of the server's own key, as OpenSSH tells it.
    fn fingerprint(&self) -> String {
        fingerprint(&self.dir.path().join("ssh/h0/host_key.pub"))
    }

    /// A key that is not the server's.
    fn other_key(&self) -> (String, String) {
        let file = self.dir.path().join("other_key");
        if !file.exists() {
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).status();
            assert!(made.unwrap().success());
        }
        let public = file.with_extension("pub");
        (std::fs::read_to_string(&public).unwrap().trim().to_owned(), fingerprint(&public))
    }

    fn listed(&self) -> Vec<(String, String)> {
        let list = self.manager.json(&["hostkey", "list", "--output", "json"]);
        let field = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(|row| (field(row, "host"), field(row, "fingerprint"))).collect()
    }

    /// Runs to the end: the answer to the start, the last view.
    async fn run(&self) -> (Value, Value) {
        let started = self.manager.json(&["pipeline", "run", "keys", "--detach", "--output", "json"]);
        let id = started["executionId"].as_str().unwrap().to_owned();
        (started, self.manager.finished(&id, LIMIT).await)
    }
}

fn fingerprint(public: &std::path::Path) -> String {
    let output = Command::new("ssh-keygen").args(["-l", "-E", "sha256", "-f"]).arg(public).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap().to_owned()
}

fn failure(view: &Value) -> &Value {
    &view["stages"][0]["steps"][0]["hosts"][0]["failure"]
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_a_first_key_is_learned_and_a_changed_one_fails_with_both_fingerprints() {
    let world = World::start(&[]).await;
    let _agent = world.agent("zone-a", &[]);
    let (started, view) = world.run().await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert!(!started.to_string().contains("hostkey.unknown"), "only `strict` warns: {started:#}");
    assert_eq!(world.listed(), [(world.host(), world.fingerprint())]);

    let (other, other_print) = world.other_key();
    let words: Vec<&str> = other.split_whitespace().collect();
    let host = world.host();
    let mut accept = vec!["hostkey", "accept", &host];
    accept.extend(words);
    world.manager.ok(&accept);
    let (_, view) = world.run().await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    let failure = failure(&view).clone();
    assert_eq!(
        (&failure["code"], &failure["class"]),
        (&"SSH-005".into(), &"Authentication".into()),
        "{view:#}"
    );
    let message = format!("{} {}", failure["message"], failure["hint"]);
    for part in [&other_print, &world.fingerprint(), &world.sshd.hosts()[0]] {
        assert!(message.contains(part.as_str()), "`{part}` is not in: {message}");
    }
    assert_eq!(world.listed(), [(world.host(), other_print)], "a failed run changes nothing");

    // As the hint says: the right one is accepted, and the next run works.
    world.manager.ok(&["hostkey", "accept", &host, &world.fingerprint()]);
    assert_eq!(world.run().await.1["status"], "Success");
    world.manager.ok(&["hostkey", "forget", &host]);
    assert_eq!(world.listed(), []);
    let again = world.manager.run(&["hostkey", "forget", &host]);
    assert_eq!(again.status.code(), Some(1), "nothing is left to forget");
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_warns_before_the_run_and_lets_only_accepted_keys_pass() {
    let world = World::start(&["--host-keys", "strict"]).await;
    let agent = world.agent("zone-a", &[]);
    let (started, view) = world.run().await;
    let warning = started["warnings"].as_array().unwrap().iter().find(|w| w["code"] == "hostkey.unknown");
    let warning = warning.unwrap_or_else(|| panic!("no warning in {started:#}"));
    let accept = format!("delegate hostkey accept {}", world.host());
    assert!(warning["hint"].as_str().unwrap().contains(&accept), "{warning:#}");
    assert_eq!(view["status"], "Failed", "{view:#}");
    assert_eq!(failure(&view)["code"], "SSH-004", "{view:#}");
    let whole = format!("{accept} {}", world.fingerprint());
    assert!(failure(&view)["hint"].as_str().unwrap().contains(&whole), "a command to paste: {view:#}");
    assert_eq!(world.listed(), [], "nothing is learned");

    // The zone's own setting wins over the manager's.
    drop(agent);
    let lenient = world.agent("zone-b", &[("DELEGATE_KNOWN_HOSTS_MODE", "accept-new")]);
    assert_eq!(world.run().await.1["status"], "Success");
    assert_eq!(world.listed(), [(world.host(), world.fingerprint())]);
    drop(lenient);

    let _strict = world.agent("zone-c", &[]);
    let (started, view) = world.run().await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert!(!started.to_string().contains("hostkey.unknown"), "{started:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn off_takes_any_key_and_says_so_in_the_log() {
    let world = World::start(&["--host-keys", "off"]).await;
    let _agent = world.agent("zone-a", &[]);
    let host = world.host();
    world.manager.ok(&["hostkey", "accept", &host, &world.other_key().1]);
    let (_, view) = world.run().await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert_eq!(world.listed(), [(host, world.other_key().1)], "nothing is learned");
    let id = view["executionId"].as_str().unwrap();
    let logs = world.manager.ok(&["execution", "logs", id]);
    assert!(logs.contains("host key") && logs.contains(&world.sshd.hosts()[0]), "{logs}");
}

#[test]
fn another_word_is_bad_usage_for_manager_and_agent() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let run = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(e2e::world::binary());
        command.args(args).env_clear().envs(env.iter().copied()).output().unwrap()
    };
    for output in [
        run(&["manager", "--data-dir", data, "--host-keys", "lax"], &[]),
        run(&["agent", "--data-dir", data], &[("DELEGATE_KNOWN_HOSTS_MODE", "lax")]),
    ] {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{message}");
        assert!(message.contains("lax") && message.contains("strict, accept-new or off"), "{message}");
    }
}
