//! The seed's VM world: the machine, the servers its entities name, a manager and an agent.

use e2e::peers::prometheus::{Prometheus, Traffic};
use e2e::peers::registry::Registry;
use e2e::peers::vm::Vm;
use e2e::peers::web::{Artifacts, GitServer};
use e2e::world::{AgentProcess, Manager};
use executor_api::testing::until_ok;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A folder of this package.
pub(crate) fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The whole world of the scenario. Fields that begin with `_` only live as long as it.
pub(crate) struct World {
    pub(crate) vm: Vm,
    pub(crate) artifacts: Artifacts,
    pub(crate) _registry: Registry,
    pub(crate) _git: GitServer,
    pub(crate) traffic: Traffic,
    pub(crate) prometheus: Prometheus,
    pub(crate) manager: Manager,
    pub(crate) _agent: AgentProcess,
    /// Dropped last: everything lies in it.
    pub(crate) dir: tempfile::TempDir,
}

/// The host as the seed writes it.
pub(crate) const HOST: &str = "production-vm-01.example.com";

impl World {
    /// Starts everything, installs version 0 of the application on the machine, applies the seed's entities.
    pub(crate) async fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let vm = Vm::boot(dir.path(), "production-vm-01").await;
        let artifacts = Artifacts::start(dir.path(), "deployer", "artifact-pw-1").await;
        let registry = Registry::start(dir.path()).await;
        let tags: Vec<String> = (1..=9).map(|n| n.to_string()).collect();
        registry.push("myapp", &tags).await;
        let git = GitServer::start(dir.path(), "robot", "git-token-1").await;
        git.repository(
            "config-repo",
            &[
                ("config/app.properties", "environment=from-git\n"),
                ("config/log4j.xml", "<Configuration status=\"warn\"/>\n"),
            ],
        );
        let traffic = Traffic::start(0);
        let prometheus = Prometheus::start(dir.path(), traffic.port).await;
        let manager = Manager::start(dir.path());
        let aliases = [
            format!("{HOST}:22=127.0.0.1:{}", vm.ssh_port),
            format!("{HOST}:8080=127.0.0.1:{}", vm.app_port),
            format!("registry.example.com:5000=127.0.0.1:{}", registry.port),
            format!("artifacts.example.com:8081=127.0.0.1:{}", artifacts.port),
            format!("prometheus.example.com:9090=127.0.0.1:{}", prometheus.port),
            format!("git.example.com:8082=127.0.0.1:{}", git.port),
        ]
        .join(",");
        let agent = AgentProcess::start(
            &manager,
            dir.path(),
            "zone-a",
            &[("DELEGATE_HOST_ALIASES", &aliases), ("DELEGATE_TAGS", "linux,dc1")],
        );
        let world = World {
            vm,
            artifacts,
            _registry: registry,
            _git: git,
            traffic,
            prometheus,
            manager,
            _agent: agent,
            dir,
        };
        world.install_version_0();
        world.apply_entities();
        world
    }

    fn install_version_0(&self) {
        let read = |path: &str| std::fs::read(package("fixtures/myapp").join(path)).unwrap();
        self.vm.put("/opt/myapp/bin/myapp", &read("bin/myapp"), 0o755);
        self.vm.put("/opt/myapp/version", b"0\n", 0o644);
        self.vm.put("/opt/myapp/health", b"UP\n", 0o644);
        self.vm.put("/opt/myapp/conf/app.properties", b"environment=initial\n", 0o644);
        self.vm.put("/etc/systemd/system/myapp.service", &read("myapp.service"), 0o644);
        self.vm.ok("mkdir -p /opt/backups && systemctl daemon-reload && systemctl start myapp");
    }

    fn apply_entities(&self) {
        self.manager.set_secret("vm-ssh-key", &std::fs::read(&self.vm.client_key).unwrap());
        self.manager.set_secret("artifactory_password", b"artifact-pw-1");
        self.manager.set_secret("git_token", b"git-token-1");
        let mut args = vec!["apply".to_owned()];
        for file in ["ssh-connector.yaml", "vm-service.yaml", "vm-service-detailed.yaml"] {
            args.push(package("seeds").join(file).display().to_string());
        }
        for file in ["connectors.yaml", "secrets.yaml", "environment.yaml", "infrastructure.yaml"] {
            args.push(package("seeds/vm-entities").join(file).display().to_string());
        }
        self.manager.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Publishes `myapp-<version>.tar.gz`, whose health endpoint will say `health`.
    pub(crate) fn publish(&self, version: u32, health: &str) {
        let staging = self.dir.path().join(format!("release-{version}"));
        std::fs::create_dir_all(&staging).unwrap();
        let script = "set -e; cp -r \"$1\"/bin \"$1\"/config .; mkdir -p conf; echo \"$2\" > version; echo \"$3\" > health; tar -czf ../release.tar.gz .";
        let status = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(package("fixtures/myapp"))
            .arg(version.to_string())
            .arg(health)
            .current_dir(&staging)
            .status()
            .unwrap();
        assert!(status.success());
        let tarball = std::fs::read(self.dir.path().join("release.tar.gz")).unwrap();
        self.artifacts.put(&format!("myapp-releases/myapp-{version}.tar.gz"), &tarball);
    }

    /// The version that answers over HTTP.
    pub(crate) async fn version(&self) -> String {
        let url = format!("http://127.0.0.1:{}/version", self.vm.app_port);
        match reqwest::get(url).await {
            Ok(reply) => reply.text().await.unwrap(),
            Err(e) => format!("no answer: {e}"),
        }
    }

    /// Waits until this version answers: `systemctl start` returns before the application listens.
    pub(crate) async fn runs(&self, version: &str) {
        until_ok("the version answers", Duration::from_secs(30), async || {
            let found = self.version().await;
            if found == version { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Our folders on the machine: must be none after a run.
    pub(crate) fn left_on_the_machine(&self) -> String {
        let output =
            self.vm.sh("ls -d /root/.delegate /root/.delegate/* /var/tmp/delegate-* 2>/dev/null; true");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
