//! `deploy/examples/journey` as it stands: four environments, an approval, verification between them, and the rollback
//! of the failed environment only.

use crate::vm_world::package;
use e2e::peers::prometheus::{Prometheus, Traffic};
use e2e::peers::sshd::Sshd;
use e2e::wait::until;
use e2e::world::{AgentProcess, Manager};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ENVIRONMENTS: [&str; 4] = ["dev", "qa", "staging", "production"];

struct Journey {
    manager: Manager,
    _agent: AgentProcess,
    _prometheus: Prometheus,
    traffic: Traffic,
    _sshd: Sshd,
    apps: PathBuf,
    pipeline: String,
    /// API key of the one who approves.
    ruth: String,
    _dir: tempfile::TempDir,
}

impl Journey {
    async fn start() -> Journey {
        let dir = tempfile::tempdir().unwrap();
        open_to_the_login(dir.path());
        let ssh = dir.path().join("ssh");
        let sshd = Sshd::start(&ssh, 4).await;
        let traffic = Traffic::start(1000);
        let prometheus = Prometheus::start(dir.path(), traffic.port).await;
        let manager = Manager::start(dir.path());
        let mut aliases = vec![format!("prometheus.example.com:9090=127.0.0.1:{}", prometheus.port)];
        for (environment, host) in ENVIRONMENTS.iter().zip(sshd.hosts()) {
            let address = host.split(':').next().unwrap_or_default();
            aliases.push(format!("shop-{environment}-1.example.com:22={address}:{}", sshd.port));
        }
        let agent = AgentProcess::start(
            &manager,
            dir.path(),
            "zone-a",
            &[("DELEGATE_HOST_ALIASES", &aliases.join(","))],
        );
        manager.set_secret("journey_key", &std::fs::read(&sshd.client_key).unwrap());
        manager.ok(&["user", "create", "ruth", "--email", "ruth@example.com"]);
        let apps = dir.path().join("apps");
        std::fs::create_dir_all(&apps).unwrap();
        open_to_the_login(&apps);
        // The files as they stand, but for the login name and one folder for each of the four hosts on this machine.
        let mut entities = String::new();
        let text = std::fs::read_to_string(package("../deploy/examples/journey/entities.yaml")).unwrap();
        let mut environments = ENVIRONMENTS.iter();
        for line in text.lines() {
            let line = line.replace("userName: deployer", &format!("userName: {}", sshd.user));
            let line = match line.contains("/srv/shop") {
                true => {
                    line.replace("/srv/shop", &apps.join(environments.next().unwrap()).display().to_string())
                }
                false => line,
            };
            entities.push_str(&line);
            entities.push('\n');
        }
        manager.apply("entities", &entities);
        let key = manager.json(&[
            "apikey",
            "create",
            "ruth",
            "--user",
            "ruth@example.com",
            "--role",
            "executor",
            "--output",
            "json",
        ]);
        let ruth = key["apiKey"].as_str().expect("a key").to_owned();
        let pipeline = package("../deploy/examples/journey/pipeline.yaml").display().to_string();
        Journey {
            manager,
            _agent: agent,
            _prometheus: prometheus,
            traffic,
            _sshd: sshd,
            apps,
            pipeline,
            ruth,
            _dir: dir,
        }
    }

    /// Starts the journey and waits for the approval; returns the execution.
    async fn to_the_approval(&self, version: &str) -> (String, String) {
        let version = format!("version={version}");
        let id = self.manager.start_pipeline(&[
            &self.pipeline,
            "--input",
            &version,
            "--input",
            "window=10s",
            "--rehearse",
            "60",
        ]);
        let approval = until("production waits for approval", Duration::from_secs(120), || async {
            let list = self.manager.json(&["approval", "list", "--output", "json"]);
            let waiting = list
                .as_array()
                .and_then(|list| list.iter().find(|a| a["executionId"] == id.as_str()).cloned());
            let view = self.manager.show(&id);
            assert_ne!(view["status"], "Failed", "{view:#}");
            waiting
        })
        .await;
        let message = approval["message"].as_str().unwrap_or_default();
        assert!(message.contains("has passed staging"), "{approval:#}");
        (id, approval["id"].as_str().unwrap_or_default().to_owned())
    }

    fn approve(&self, approval: &str) {
        let mut command =
            self.manager.cli(&["approval", "approve", approval, "--input", "change_ticket=CHG-7"]);
        let output = command.env("DELEGATE_API_KEY", &self.ruth).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The release that each environment runs.
    fn running(&self) -> Vec<String> {
        let version = |environment: &&str| {
            let file = self.apps.join(environment).join("current/version");
            std::fs::read_to_string(file).map_or_else(|_| "none".to_owned(), |text| text.trim().to_owned())
        };
        ENVIRONMENTS.iter().map(version).collect()
    }
}

/// The hosts' login is another user than the one of the test.
fn open_to_the_login(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

fn stage<'v>(view: &'v Value, identifier: &str) -> &'v Value {
    let stages = view["stages"].as_array().expect("stages");
    stages.iter().find(|stage| stage["identifier"] == identifier).expect("the stage")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_failed_environment_goes_back() {
    let journey = Journey::start().await;
    let (first, approval) = journey.to_the_approval("1.0").await;
    assert_eq!(journey.running(), ["1.0", "1.0", "1.0", "none"], "production waits for its approval");
    let own = journey.manager.run(&["approval", "approve", &approval]);
    assert!(!own.status.success(), "who starts it must not approve it");
    journey.approve(&approval);
    let view = journey.manager.finished(&first, Duration::from_secs(120)).await;
    assert_eq!(view["status"], "Success", "{view:#}");
    assert_eq!(journey.running(), ["1.0"; 4]);
    let log = journey.manager.ok(&["execution", "logs", &first]);
    assert!(log.contains("change ticket: CHG-7"), "the approver's input reaches the next stage");

    let (second, approval) = journey.to_the_approval("2.0").await;
    // Nobody asks the application any more: production fails its verification.
    journey.traffic.set_rate(0);
    until("the rate has fallen", Duration::from_secs(30), || async {
        let reply = journey._prometheus.query("sum(rate(http_requests_total[10s]))").await;
        let value: Option<f64> = reply["data"]["result"][0]["value"][1].as_str().and_then(|v| v.parse().ok());
        value.is_some_and(|rate| rate < 1.0).then_some(())
    })
    .await;
    journey.approve(&approval);
    let view = journey.manager.finished(&second, Duration::from_secs(120)).await;
    assert_eq!(view["status"], "Failed", "{view:#}");
    assert_eq!(view["rolledBack"], true);
    assert_eq!(journey.running(), ["2.0", "2.0", "2.0", "1.0"]);
    for earlier in ["dev", "qa", "staging"] {
        assert_eq!(stage(&view, earlier)["status"], "Success");
    }
    let production = stage(&view, "production");
    assert_eq!(production["status"], "Failed");
    let rollback = production["rollbackSteps"].as_array().expect("rollback steps");
    assert_eq!(rollback[0]["status"], "Success", "{production:#}");
}
