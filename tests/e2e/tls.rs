//! TLS as an operator sets it up: an authority of one's own, named by `--ca-file` to client and agent.

use e2e::wait::until;
use e2e::world::{AgentProcess, Manager, certificates};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn start(dir: &Path) -> (Manager, PathBuf) {
    let (ca, cert, key) = certificates(dir);
    let manager =
        Manager::start_with(dir, &["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    assert!(manager.url.starts_with("https://"), "{}", manager.url);
    (manager, ca)
}

/// A client command that trusts what `--ca-file` says, and nothing from the environment.
fn client(manager: &Manager, args: &[&str]) -> Output {
    manager.cli(args).env_remove("DELEGATE_CA_FILE").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_client_needs_the_right_authority_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, ca) = start(dir.path());
    let ca = ca.to_str().unwrap();
    let good = client(&manager, &["agents", "--ca-file", ca, "--output", "json"]);
    assert!(good.status.success(), "{}", text(&good.stderr));
    assert_eq!(text(&good.stdout).trim(), "[]");

    let elsewhere = dir.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    let (other, ..) = certificates(&elsewhere);
    for args in [vec!["agents"], vec!["agents", "--ca-file", other.to_str().unwrap()]] {
        let bad = client(&manager, &args);
        let message = text(&bad.stderr);
        assert_eq!(bad.status.code(), Some(69), "{args:?}: {message}");
        for part in [manager.url.as_str(), "certificate", "--ca-file", "DELEGATE_CA_FILE"] {
            assert!(message.contains(part), "{args:?}: `{part}` is not in: {message}");
        }
        assert!(!message.contains("check that `delegate manager` runs there"), "it does run: {message}");
    }
    // The name is checked too: the certificate is for 127.0.0.1 and localhost.
    let url = manager.url.replace("127.0.0.1", "127.0.0.2");
    let refused = client(&manager, &["agents", "--ca-file", ca, "--manager", &url]);
    assert_eq!(refused.status.code(), Some(69), "{}", text(&refused.stderr));

    // A file that is none is named before anything is sent.
    let broken = dir.path().join("broken.pem");
    std::fs::write(&broken, "no certificate").unwrap();
    for (file, code) in [(broken.as_path(), 64), (Path::new("/nonexistent/ca.pem"), 64)] {
        let refused = client(&manager, &["agents", "--ca-file", file.to_str().unwrap()]);
        let message = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(code), "{message}");
        assert!(message.contains(file.to_str().unwrap()), "{message}");
    }
    // Plain HTTP to a TLS port says what is wrong rather than that nobody is there.
    let plain = client(&manager, &["agents", "--manager", &manager.url.replace("https", "http")]);
    let message = text(&plain.stderr);
    assert_eq!(plain.status.code(), Some(69), "{message}");
    assert!(message.contains("https://"), "{message}");
}

struct Agent(Child, PathBuf);

impl Agent {
    fn start(manager: &Manager, dir: &Path, name: &str, args: &[&str]) -> Agent {
        let data = dir.join(name);
        std::fs::create_dir_all(&data).unwrap();
        let log = dir.join(format!("{name}.log"));
        let mut command = Command::new(e2e::world::binary());
        command.arg("agent").args(args).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (key, value) in [
            ("ACCOUNT_ID", manager.account.as_str()),
            ("MANAGER_HOST_AND_PORT", &manager.url),
            ("DELEGATE_NAME", name),
            ("DELEGATE_TOKEN", &manager.token),
            ("DELEGATE_DATA_DIR", data.to_str().unwrap()),
            ("DELEGATE_HEALTH_LISTEN", "127.0.0.1:0"),
        ] {
            command.env(key, value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Agent(command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap(), log)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_the_authority_works_and_without_it_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, ca) = start(dir.path());
    let stranger = Agent::start(&manager, dir.path(), "stranger", &[]);
    let log = until("the agent says why it cannot register", LIMIT, || {
        let log = std::fs::read_to_string(&stranger.1).unwrap();
        std::future::ready(log.contains("could not register").then_some(log))
    })
    .await;
    for part in ["certificate", "ca_file", "DELEGATE_CA_FILE"] {
        assert!(log.contains(part), "`{part}` is not in: {log}");
    }
    let flagged = Agent::start(&manager, dir.path(), "flagged", &["--ca-file", ca.to_str().unwrap()]);
    let by_environment =
        AgentProcess::start(&manager, dir.path(), "env", &[("DELEGATE_CA_FILE", ca.to_str().unwrap())]);
    let names = until("both are connected", LIMIT, || {
        let agents = manager.json(&["agents", "--output", "json"]);
        let mut names: Vec<String> = agents
            .as_array()
            .unwrap()
            .iter()
            .filter(|agent| agent["connected"] == true)
            .map(|agent| agent["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        std::future::ready((names.len() >= 2).then_some(names))
    })
    .await;
    assert_eq!(names, ["env", "flagged"], "the stranger is not let in");
    // A task and its log cross the same connection.
    manager.ok(&["probe", "--selectors", "env"]);
    drop((flagged, by_environment));
}
