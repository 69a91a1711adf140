//! `delegate connector test` for every kind of connector, against real servers: how far an agent comes when the name is
//! unknown, the port closed, the password wrong. And what is refused when it is stored.

use e2e::peers::kube::ControlPlane;
use e2e::peers::prometheus::Prometheus;
use e2e::peers::registry::Registry;
use e2e::peers::sshd::Sshd;
use e2e::peers::web::{Artifacts, GitServer};
use e2e::wait::free_port;
use e2e::world::{AgentProcess, Manager};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

struct World {
    manager: Manager,
    dir: tempfile::TempDir,
    _agent: AgentProcess,
}

impl World {
    fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let manager = Manager::start(dir.path());
        let agent = AgentProcess::start(&manager, dir.path(), "lab", &[]);
        World { manager, dir, _agent: agent }
    }

    fn apply(&self, text: &str) {
        let file = self.dir.path().join("entities.yaml");
        std::fs::write(&file, text).unwrap();
        self.manager.ok(&["apply", file.to_str().unwrap()]);
    }

    /// Stores a connector, tries it, and compares the stages with `wanted`: their names in order, the last one failed if
    /// there are words that it must say. Returns its message.
    fn test(&self, kind: &str, spec: &str, more: &[&str], wanted: &[&str], said: Option<&str>) -> String {
        self.apply(&format!(
            "connector: {{identifier: tried, name: tried, type: {kind}, spec: {{{spec}}}}}\n"
        ));
        self.report("tried", more, wanted, said)
    }

    fn report(&self, id: &str, more: &[&str], wanted: &[&str], said: Option<&str>) -> String {
        let args = [&["connector", "test", id, "--output", "json"][..], more].concat();
        let output = self.manager.run(&args);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{id} {more:?}: {e}\n{text}"));
        let stages = report["stages"].as_array().unwrap();
        let names: Vec<String> =
            stages.iter().map(|one| one["stage"].as_str().unwrap().to_lowercase()).collect();
        assert_eq!(names, wanted, "{report:#}");
        let good = said.is_none();
        assert_eq!(
            (report["ok"].as_bool(), output.status.code()),
            (Some(good), Some(i32::from(!good))),
            "{report:#}"
        );
        assert_eq!(report["agent"], "lab");
        assert!(stages.iter().all(|one| one["durationMs"].is_u64()), "{report:#}");
        let (last, before) = stages.split_last().unwrap();
        assert!(before.iter().all(|one| one["ok"] == true), "{report:#}");
        let message = last["message"].as_str().unwrap().to_owned();
        if let Some(said) = said {
            assert!(message.contains(said) && last["hint"].is_string(), "{said}: {report:#}");
        }
        // As a table, the same for people.
        let args = [&["connector", "test", id][..], more].concat();
        let table = String::from_utf8_lossy(&self.manager.run(&args).stdout).into_owned();
        assert!(wanted.iter().all(|stage| table.to_lowercase().contains(stage)), "{table}");
        for hidden in ["reader-pw-1", "git-token-1", "wrong-pw"] {
            assert!(!text.contains(hidden) && !table.contains(hidden), "{hidden}: {text}\n{table}");
        }
        message
    }
}

const ADDRESS: [&str; 1] = ["address"];
const CONNECT: [&str; 2] = ["address", "connect"];
const LOGIN: [&str; 3] = ["address", "connect", "login"];

#[tokio::test(flavor = "multi_thread")]
async fn servers_over_http_are_tried_stage_by_stage() {
    let world = World::start();
    let dir = world.dir.path();
    let registry = Registry::closed(dir, "reader", "reader-pw-1").await;
    let artifacts = Artifacts::start(dir, "reader", "reader-pw-1").await;
    let git = GitServer::start(dir, "reader", "git-token-1").await;
    git.repository("config", &[("a.yaml", "a: 1\n")]);
    let prometheus = Prometheus::scraping(dir, artifacts.port, "1s", "vector(1)").await;
    for (name, value) in [("pw", "reader-pw-1"), ("token", "git-token-1"), ("wrong", "wrong-pw")] {
        world.manager.set_secret(name, value.as_bytes());
    }
    let closed = free_port();
    let user = |secret: &str| {
        format!("auth: {{type: UsernamePassword, spec: {{username: reader, passwordRef: {secret}}}}}")
    };
    let git_user = |secret: &str| {
        format!(
            "type: Repo, authentication: {{type: Http, spec: {{type: UsernameToken, spec: {{username: reader, tokenRef: {secret}}}}}}}"
        )
    };
    type Spec<'a> = Box<dyn Fn(&str, &str) -> String + 'a>;
    let kinds: [(&str, u16, &str, &str, Spec<'_>); 3] = [
        (
            "DockerRegistry",
            registry.port,
            "",
            "pw",
            Box::new(|url, secret| format!("dockerRegistryUrl: '{url}', {}", user(secret))),
        ),
        (
            "Artifactory",
            artifacts.port,
            "/artifactory",
            "pw",
            Box::new(|url, secret| format!("artifactoryServerUrl: '{url}', {}", user(secret))),
        ),
        (
            "Github",
            git.port,
            "/config",
            "token",
            Box::new(|url, secret| format!("url: '{url}', {}", git_user(secret))),
        ),
    ];
    for (kind, port, path, secret, spec) in &kinds {
        let at = |host: &str, port: u16| format!("http://{host}:{port}{path}");
        world.test(kind, &spec(&at("127.0.0.1", *port), secret), &[], &LOGIN, None);
        world.test(kind, &spec(&at("127.0.0.1", *port), "wrong"), &[], &LOGIN, Some("SRC-004"));
        world.test(kind, &spec(&at("127.0.0.1", closed), secret), &[], &CONNECT, Some("SRC-001"));
        world.test(kind, &spec(&at("no-such-host.invalid", 1), secret), &[], &ADDRESS, Some("no-such-host"));
    }
    let url = |port: u16| format!("url: 'http://127.0.0.1:{port}'");
    let asked = ["connector", "query"];
    world.test("Prometheus", &url(prometheus.port), &[], &asked, None);
    // Another server in its place, and none.
    world.test("Prometheus", &url(registry.port), &[], &asked, Some("http://127.0.0.1"));
    world.test("Prometheus", &url(closed), &[], &asked, Some("http://127.0.0.1"));
    // A repository that is not there.
    let none = format!("url: 'http://127.0.0.1:{}/none', {}", git.port, git_user("token"));
    world.test("Github", &none, &[], &LOGIN, Some("SRC-016"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_over_ssh_are_tried_stage_by_stage() {
    let world = World::start();
    let ssh = world.dir.path().join("ssh");
    let sshd = Sshd::start(&ssh, 1).await;
    world.manager.set_secret("key", &std::fs::read(&sshd.client_key).unwrap());
    let other = ssh.join("other");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other).status();
    assert!(made.unwrap().success());
    world.manager.set_secret("other", &std::fs::read(&other).unwrap());
    let secret = |id: &str, key: &str, port: u16| {
        format!(
            "secret:\n  type: SSHKey\n  name: {id}\n  identifier: {id}\n  spec:\n    port: {port}\n    auth:\n      type: SSH\n      spec:\n        credentialType: KeyReference\n        spec: {{userName: {}, key: {key}}}\n",
            sshd.user
        )
    };
    let host = ["--host", "127.0.0.2"];
    let all = ["dns", "tcp", "kex", "hostkey", "auth", "channel", "sftp"];
    world.apply(&secret("login", "key", sshd.port));
    world.report("login", &host, &all, None);
    world.report("login", &["--host", "no-such-host.invalid"], &all[..1], Some("no-such-host"));
    world.apply(&secret("stranger", "other", sshd.port));
    world.report("stranger", &host, &all[..5], Some("refuse"));
    world.apply(&secret("closed", "key", free_port()));
    world.report("closed", &host, &all[..2], Some("127.0.0.2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_are_tried_stage_by_stage() {
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start(&["--nodes=1"]));
    let world = World::start();
    let plane = plane.await.unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(plane.kubeconfig()).unwrap()).unwrap();
    let master = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
    let pki = |name: &str| std::fs::read(plane.dir().join("pki").join(name)).unwrap();
    for (id, value) in [
        ("ca", pki("ca.crt")),
        ("cert", pki("viewer.crt")),
        ("key", pki("viewer.key")),
        ("no_pem", b"nothing of the kind".to_vec()),
        ("token", b"not-a-token-at-all".to_vec()),
    ] {
        world.manager.set_secret(id, &value);
    }
    let manual = |url: &str, kind: &str, spec: &str| {
        format!(
            "credential: {{type: ManualConfig, spec: {{masterUrl: '{url}', auth: {{type: {kind}, spec: {{{spec}}}}}}}}}"
        )
    };
    let certificate = "clientCertRef: cert, clientKeyRef: key, caCertRef: ca";
    let token = "serviceAccountTokenRef: token, caCertRef: ca";
    let closed = format!("https://127.0.0.1:{}", free_port());
    let all = ["credentials", "server", "login", "rights"];
    let kind = "K8sCluster";
    let rights = world.test(kind, &manual(master, "ClientKeyCert", certificate), &[], &all, None);
    assert!(rights.contains("may not change deployments in every namespace"), "{rights}");
    let broken = "clientCertRef: no_pem, clientKeyRef: key, caCertRef: ca";
    world.test(kind, &manual(master, "ClientKeyCert", broken), &[], &all[..1], Some("PEM"));
    world.test(
        kind,
        &manual(&closed, "ClientKeyCert", certificate),
        &[],
        &all[..2],
        Some("cannot be reached"),
    );
    let unknown_ca = "clientCertRef: cert, clientKeyRef: key";
    world.test(kind, &manual(master, "ClientKeyCert", unknown_ca), &[], &all[..2], Some("TLS"));
    // What is asked first needs no login here, so that a wrong token shows where it is looked at.
    let stages = world.manager.run(&["connector", "test", "tried"]);
    assert!(!stages.status.success());
    world.apply(&format!(
        "connector: {{identifier: tried, name: tried, type: {kind}, spec: {{{}}}}}\n",
        manual(master, "ServiceAccount", token)
    ));
    let output = world.manager.run(&["connector", "test", "tried", "--output", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let last = report["stages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((report["ok"].as_bool(), last["ok"].as_bool()), (Some(false), Some(false)), "{report:#}");
    assert!(last["message"].as_str().unwrap().contains("does not know these credentials"), "{report:#}");
    // The agent itself has neither an account in a cluster nor a kubeconfig.
    let inherit = "credential: {type: InheritFromDelegate}";
    world.test(kind, inherit, &[], &all[..1], Some("kubeconfig"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_stored_only_when_it_is_rendered() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::start(dir.path());
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let template = seeds.join("k8s-api-pipeline-template.yaml");
    let template = template.to_str().unwrap();
    let output = manager.run(&["apply", template]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("{{SERVICE_NAME}}"), "{said}");
    assert!(said.contains("pipeline render"), "the way out is named: {said}");
    assert!(!said.contains("panicked"), "{said}");

    // One placeholder is forgotten.
    let some = ["--set", "SERVICE_NAME=payment-service", "--set", "TEAM=payments_team"];
    let output = manager.run(&[&["pipeline", "render", template][..], &some].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("ARCHETYPE") && output.stdout.is_empty(), "{said}");

    // All are given: what comes out is stored and is what the rendered seed is.
    let all = [&["pipeline", "render", template][..], &some, &["--set", "ARCHETYPE=api"]].concat();
    let rendered = manager.ok(&all);
    let file = dir.path().join("rendered.yaml");
    std::fs::write(&file, &rendered).unwrap();
    let said = manager.ok(&["apply", file.to_str().unwrap()]);
    assert!(said.contains("payment-service_cd"), "{said}");
    // Byte for byte the seed that was rendered by hand, comments at its head aside.
    let seed = std::fs::read_to_string(seeds.join("k8s-payment-service-cd.yaml")).unwrap();
    let body = |text: &str| text[text.find("\npipeline:").unwrap()..].to_owned();
    assert_eq!(body(&rendered), body(&seed));
}
