//! Manifests from a Git repository over SSH: a bare repository behind a real sshd, once on a host that hands git's choice
//! of protocol on (version 2) and once on one that does not (version 0).

use e2e::peers::kube::{ControlPlane, tool};
use e2e::peers::sshd::Sshd;
use e2e::world::{AgentProcess, Manager, ssh_key};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

const FILES: [(&str, &str); 4] = [
    ("base/one.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata: {level: plain}\n"),
    ("base/two.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\ndata: {level: plain}\n"),
    (
        "more/three.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: three}\ndata: {level: {{ .Values.level | quote }}}\n",
    ),
    ("values/lab.yaml", "level: from git\n"),
];

/// A search path on which helm is, which renders the templates.
pub(crate) fn with_helm() -> String {
    let tools = tool("helm").parent().map(|folder| format!(":{}", folder.display())).unwrap_or_default();
    format!("{}{tools}", std::env::var("PATH").unwrap_or_default())
}

/// A bare repository that the login of the servers owns; its path and its commit.
pub(crate) fn repository(sshd: &Sshd, dir: &Path) -> (String, String) {
    let (work, bare) = (dir.join("work"), sshd.home.join("config.git"));
    for (path, content) in FILES {
        let path = work.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let script =
        "set -e; cd \"$1\"; git init -q -b main; git config user.email t@example.com; git config user.name t
git config commit.gpgsign false; git add -A; git commit -q -m first; git clone -q --bare . \"$2\"
git -C \"$2\" config uploadpack.allowFilter true; git -C \"$2\" config uploadpack.allowAnySHA1InWant true
test \"$(id -u)\" != 0 || chown -R \"$3\" \"$2\"; git rev-parse HEAD";
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&work)
        .arg(&bare)
        .arg(&sshd.user)
        .env("HOME", &work)
        .output()
        .unwrap();
    assert!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    (bare.display().to_string(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The connector of a host in the shape of Github, and one in that of Git, which takes port and user from the key.
fn entities(sshd: &Sshd, path: &str) -> String {
    let (port, user, hosts) = (sshd.port, &sshd.user, sshd.hosts());
    let connector = |id: &str, spec: &str| {
        let (kind, spec) = spec.split_once(' ').unwrap();
        format!("connector: {{identifier: {id}, name: {id}, type: {kind}, spec: {{{spec}}}}}\n---\n")
    };
    let ssh = "authentication: {type: Ssh, spec: {sshKeyRef: repo_login}}";
    let plain = format!("Github url: 'ssh://{user}@{}:{port}{path}', type: Repo, {ssh}", hosts[0]);
    let second = format!(
        "Git url: 'ssh://{}{path}', connectionType: Repo, type: Ssh, spec: {{sshKeyRef: repo_login}}",
        hosts[1]
    );
    let missing = format!("Github url: 'ssh://{}:{port}/nowhere.git', type: Repo, {ssh}", hosts[1]);
    let stranger = format!(
        "Github url: 'ssh://{user}@{}:{port}{path}', type: Repo, authentication: {{type: Ssh, spec: {{sshKeyRef: stranger}}}}",
        hosts[0]
    );
    let mut all = [("repo_login", "repo_key"), ("stranger", "stranger_key")]
        .map(|(id, secret)| ssh_key(id, sshd, secret) + "---\n")
        .concat();
    for (id, spec) in [("plain", plain), ("second", second), ("missing", missing), ("stranger", stranger)] {
        all += &connector(id, &spec);
    }
    all += "connector: {identifier: k8s, name: k8s, type: K8sCluster, spec: {credential: {type: InheritFromDelegate}}}\n---\n";
    all += "environment: {identifier: lab, name: lab, type: PreProduction}\n";
    for id in ["plain", "second", "missing"] {
        all += &format!(
            "---
service:
  identifier: from_{id}
  name: from_{id}
  serviceDefinition:
    type: Kubernetes
    spec:
      manifests:
      - manifest:
          identifier: all
          type: K8sManifest
          spec:
            valuesPaths: [values/lab.yaml]
            store:
              type: Git
              spec: {{connectorRef: {id}, gitFetchType: Branch, branch: main, paths: [base, more/three.yaml]}}
---
infrastructureDefinition:
  identifier: in_{id}
  name: in_{id}
  environmentRef: lab
  deploymentType: Kubernetes
  type: KubernetesDirect
  spec: {{connectorRef: k8s, namespace: of-{id}, releaseName: notes}}
"
        );
    }
    all
}

fn pipeline(id: &str) -> String {
    format!(
        "pipeline:
  identifier: deploy_{id}
  name: deploy_{id}
  stages:
  - stage:
      identifier: deploy
      name: deploy
      type: Deployment
      spec:
        deploymentType: Kubernetes
        service: {{serviceRef: from_{id}}}
        environment: {{environmentRef: lab, infrastructureDefinitions: [{{identifier: in_{id}}}]}}
        execution:
          steps:
          - step: {{type: K8sApply, identifier: apply, name: apply, timeout: 2m, spec: {{filePaths: [base/one.yaml, base/two.yaml, more/three.yaml]}}}}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_come_from_git_over_ssh() {
    let dir = tempfile::tempdir().unwrap();
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start(&["--nodes=1"]));
    let ssh = dir.path().join("ssh");
    let sshd = Sshd::start(&ssh, 2).await;
    let (path, commit) = repository(&sshd, dir.path());
    let manager = Manager::start(dir.path());
    let plane = plane.await.unwrap();
    let kubeconfig = plane.kubeconfig();
    let search = with_helm();
    let extra = [("KUBECONFIG", kubeconfig.to_str().unwrap()), ("PATH", search.as_str())];
    let _agent = AgentProcess::start(&manager, dir.path(), "lab", &extra);
    let key = std::fs::read_to_string(&sshd.client_key).unwrap();
    manager.set_secret("repo_key", key.as_bytes());
    let other = dir.path().join("stranger");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other).status();
    assert!(made.unwrap().success());
    manager.set_secret("stranger_key", &std::fs::read(&other).unwrap());
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    manager.ok(&["apply", &file("entities.yaml", &entities(&sshd, &path))]);
    let run = async |id: &str| {
        let execution = manager.start_pipeline(&[&file(&format!("{id}.yaml"), &pipeline(id))]);
        let view = manager.finished(&execution, LIMIT).await;
        let log =
            String::from_utf8_lossy(&manager.run(&["execution", "logs", &execution]).stdout).into_owned();
        assert!(!log.contains("PRIVATE KEY") && !view.to_string().contains("PRIVATE KEY"));
        (view, log)
    };
    for id in ["plain", "second"] {
        plane.kubectl(&["create", "namespace", &format!("of-{id}")]);
        let (view, log) = run(id).await;
        assert_eq!(view["status"], "Success", "{view:#}\n{log}");
        // Both folders and the single file, with the values that lie beside them, of one commit.
        assert!(log.contains(&commit), "{log}");
        let names = ["get", "configmaps", "-n", &format!("of-{id}"), "-o", "json"];
        let found: Value = serde_json::from_str(&plane.kubectl(&names)).unwrap();
        let level = |name: &str| {
            let all = found["items"].as_array().unwrap();
            all.iter().find(|one| one["metadata"]["name"] == name).map(|one| one["data"]["level"].clone())
        };
        assert_eq!([level("one"), level("two")], [Some(json!("plain")), Some(json!("plain"))], "{found:#}");
        assert_eq!(level("three"), Some(json!("from git")));
    }

    // Their keys were learned like those of any host, and are known to every agent from now on.
    let list = manager.json(&["hostkey", "list", "--output", "json"]);
    let mut known: Vec<&str> =
        list.as_array().unwrap().iter().map(|row| row["host"].as_str().unwrap()).collect();
    known.sort_unstable();
    assert_eq!(known, sshd.hosts().iter().map(|host| format!("{host}:{}", sshd.port)).collect::<Vec<_>>());

    // What is wrong is told in the words of git or of the SSH login.
    plane.kubectl(&["create", "namespace", "of-missing"]);
    let (view, log) = run("missing").await;
    assert_eq!(view["status"], "Failed", "{log}");
    let text = view.to_string();
    assert!(text.contains("SRC-016") && text.contains("does not appear to be a git repository"), "{view:#}");
    for (id, ok, said) in [
        ("second", true, "protocol 2"),
        ("plain", true, "references"),
        ("missing", false, "does not appear to be a git repository"),
        ("stranger", false, "refuse"),
    ] {
        let output = manager.run(&["connector", "test", id, "--output", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{id}: {e} {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!((&report["ok"], output.status.success()), (&json!(ok), ok), "{id}: {report:#}");
        let last = report["stages"].as_array().unwrap().last().unwrap().clone();
        assert!(last["message"].as_str().unwrap().contains(said), "{id}: {report:#}");
        assert_eq!(last["hint"].is_string(), !ok, "{id}: {report:#}");
    }
}
