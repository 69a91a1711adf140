//! The conformance kit over a real host.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]
mod peer;

use executor_api::TransportProbe;
use executor_api::testing::conformance::{self, Case, ErrorCase, Harness};
use executor_ssh::{Settings, SshExecutor};
use futures::future::BoxFuture;
use peer::{Host, Sh, command, hasty, script};
use proto::failure::FailureKind;
use proto::task::{
    CommandSpec, CommandUnit, ConfigFile, CopySource, FileStore, HostKeyMode, Shell, SshCredential, UnitKind,
};
use proto::text::SecretRef;
use std::sync::Arc;
use std::time::Duration;

const PLANTED: &str = "pl4nted-s3cret-value";

struct Ssh {
    host: Host,
    full: Host,
}

impl Ssh {
    fn case(&self, spec: CommandSpec) -> Case<CommandSpec> {
        let mut task = peer::task(&spec);
        task.env.insert("TOKEN".into(), "${ngSecretManager.obtain(\"pw\", 77)}".into());
        Case { spec, task }
    }

    fn failing(&self, shell: Shell, text: &str) -> Case<CommandSpec> {
        self.case(command(self.host.target(), vec![script("u", shell, text)], &[]))
    }
}

fn copy(name: &str, to: &str) -> CommandUnit {
    CommandUnit {
        identifier: name.into(),
        name: name.into(),
        kind: UnitKind::Copy { source_type: CopySource::Config, destination_path: to.into() },
    }
}

fn with_config(mut case: Case<CommandSpec>, content: &str) -> Case<CommandSpec> {
    case.task.config_files = vec![ConfigFile {
        identifier: "c".into(),
        store: FileStore::Inline { path: "conf/app.conf".into(), content: content.into() },
    }];
    case
}

impl Harness for Ssh {
    type Executor = SshExecutor;

    fn executor(&self, probe: Arc<dyn TransportProbe>) -> SshExecutor {
        peer::executor_with(Settings { kill_after: Duration::from_millis(300), ..hasty() }).with_probe(probe)
    }

    fn succeeding(&self, key: &str) -> Case<CommandSpec> {
        let text = format!("echo x >> {key}.effect; echo \"len ${{#TOKEN}}\"; A=1; exit 0");
        let units = vec![
            copy("conf", &format!("{key}.d/app.conf")),
            script("one", Shell::Sh, &text),
            script("two", Shell::Bash, "echo two; B=2"),
        ];
        let case = self.case(command(self.host.target(), units, &["A", "B"]));
        with_config(case, "password = ${ngSecretManager.obtain(\"pw\", 77)}\n")
    }

    fn lasting(&self, key: &str) -> Option<Case<CommandSpec>> {
        let text = format!("echo begun > {key}.begun; export KEY={key}; sleep 70 & sleep 70; wait");
        Some(self.case(command(self.host.target(), vec![script("one", Shell::Sh, &text)], &[])))
    }

    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.host.home().join(format!("{key}.begun")).exists() })
    }

    fn effects<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<usize>> {
        Box::pin(async move { Some(self.host.read(&format!("home/{key}.effect")).lines().count()) })
    }

    fn left_behind<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            let mut left = self.host.leaves();
            let needle = format!("KEY={key}\0");
            for process in peer::processes() {
                let environ = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
                if String::from_utf8_lossy(&environ).contains(&needle) {
                    left.push(process.command);
                }
            }
            for entry in
                std::fs::read_dir(self.host.home().join(format!("{key}.d"))).into_iter().flatten().flatten()
            {
                if entry.file_name().to_string_lossy().contains(".part-") {
                    left.push(entry.path().display().to_string());
                }
            }
            left
        })
    }

    fn errors(&self) -> Vec<ErrorCase<CommandSpec>> {
        let hello = || self.failing(Shell::Sh, "echo hi");
        let with = |change: &dyn Fn(&mut proto::task::SshTarget)| {
            let mut case = hello();
            change(case.spec.target.as_mut().unwrap());
            case
        };
        let key = |name: &str| SshCredential::Key { key: SecretRef(name.into()), passphrase: None };
        let case = |name: &str, case, kind, code| ErrorCase { name: name.into(), case, kind, code };
        let denied = with_config(
            self.case(command(self.host.target(), vec![copy("c", "/etc/nope/app.conf")], &[])),
            "x",
        );
        let directory =
            with_config(self.case(command(self.host.target(), vec![copy("c", "/tmp/")], &[])), "x");
        drop(directory);
        let full = with_config(
            self.case(command(self.full.target(), vec![copy("c", "small/app.conf")], &[])),
            &"y".repeat(500_000),
        );
        use FailureKind as K;
        vec![
            case(
                "no such name",
                with(&|t| t.host = "no-such-host.invalid".into()),
                K::Connectivity,
                "SSH-001",
            ),
            case("nothing listens", with(&|t| t.port = peer::free_port()), K::Connectivity, "SSH-002"),
            case("strict", with(&|t| t.host_keys.mode = HostKeyMode::Strict), K::Authentication, "SSH-004"),
            case(
                "changed key",
                with(&|t| t.host_keys.known = vec!["SHA256:other".into()]),
                K::Authentication,
                "SSH-005",
            ),
            case("wrong key", with(&|t| t.credential = key("other")), K::Authentication, "SSH-006"),
            case("no key", with(&|t| t.credential = key("pw")), K::Authentication, "SSH-007"),
            case("missing secret", with(&|t| t.credential = key("absent")), K::BadSpec, "SSH-008"),
            case(
                "exit 9",
                self.failing(Shell::Sh, "echo \"$TOKEN\" > /dev/null; exit 9"),
                K::RemoteFailed,
                "SSH-011",
            ),
            case("killed", self.failing(Shell::Sh, "kill -9 $$"), K::RemoteFailed, "SSH-012"),
            case("no interpreter", self.failing(Shell::PowerShell, "1"), K::RemoteFailed, "SSH-014"),
            case("copy denied", denied, K::Authorization, "SSH-018"),
            case("copy to a full disk", full, K::RemoteFailed, "SSH-017"),
            case(
                "no host",
                {
                    let mut c = hello();
                    c.spec.target = None;
                    c
                },
                K::BadSpec,
                "SSH-021",
            ),
        ]
    }

    fn planted(&self) -> Vec<(String, String)> {
        let mut all = self.host.secrets();
        for (name, value) in self.full.secrets() {
            all.push((format!("full-{name}"), value));
        }
        all.push(("pw".into(), PLANTED.into()));
        all
    }

    fn outlives_the_agent(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_ssh_executor_keeps_the_contract() {
    let host = Host::start(Sh::Dash);
    let full = Host::start_with(
        Sh::Dash,
        "mkdir $D/home/small; mount -t tmpfs -o size=256k,mode=777 none $D/home/small",
    );
    std::fs::copy(host.path("login.pub"), full.path("authorized_keys")).unwrap();
    conformance::run(&Ssh { host, full }).await;
}
