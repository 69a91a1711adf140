//! The conformance kit over real scripts.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code, reason = "Tests may panic.")]
mod support;

use executor_api::TransportProbe;
use executor_api::testing::conformance::{self, Case, ErrorCase, Harness};
use executor_shell::ShellExecutor;
use futures::future::BoxFuture;
use proto::failure::FailureKind;
use proto::task::{Shell, ShellScriptSpec};
use proto::text::Text;
use std::path::PathBuf;
use std::sync::Arc;
use support::{carrying, executor, spec, task};

const PLANTED: &str = "pl4nted-s3cret-value";

struct Local {
    dir: PathBuf,
}

impl Local {
    fn case(&self, key: &str, spec: ShellScriptSpec) -> Case<ShellScriptSpec> {
        let mut task = task(&spec);
        task.env.insert("TOKEN".into(), "${ngSecretManager.obtain(\"pw\", 77)}".into());
        task.env.insert("PLACE".into(), Text(self.dir.display().to_string()));
        task.env.insert("KEY".into(), Text(key.to_owned()));
        Case { spec, task }
    }
}

impl Harness for Local {
    type Executor = ShellExecutor;

    fn executor(&self, probe: Arc<dyn TransportProbe>) -> ShellExecutor {
        executor().with_probe(probe)
    }

    fn succeeding(&self, key: &str) -> Case<ShellScriptSpec> {
        let text = "echo x >> \"$PLACE/$KEY.effect\"; echo \"len ${#TOKEN}\"; echo note >&2\n\
                    for n in 1 2 3 4 5; do echo $n; done; A=1; SECRET=$TOKEN; exit 0";
        self.case(key, spec(Shell::Bash, text, &[("A", false), ("SECRET", true)]))
    }

    fn lasting(&self, key: &str) -> Option<Case<ShellScriptSpec>> {
        let text = "setsid sleep 70 & sleep 70 & echo begun > \"$PLACE/$KEY.begun\"; wait";
        Some(self.case(key, spec(Shell::Sh, text, &[])))
    }

    fn begun<'a>(&'a self, key: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.dir.join(format!("{key}.begun")).exists() })
    }

    fn effects<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<usize>> {
        let file = self.dir.join(format!("{key}.effect"));
        Box::pin(async move { Some(std::fs::read_to_string(file).unwrap_or_default().lines().count()) })
    }

    fn left_behind<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move { carrying(&format!("KEY={key}")).into_iter().map(|(_, c)| c).collect() })
    }

    fn errors(&self) -> Vec<ErrorCase<ShellScriptSpec>> {
        use FailureKind as K;
        let failing = |shell, text: &str| self.case("error", spec(shell, text, &[]));
        let case = |name: &str, case, kind, code| ErrorCase { name: name.into(), case, kind, code };
        let mut nowhere = failing(Shell::Sh, "echo hi");
        nowhere.spec.working_directory = Some("/no/such/place".into());
        let mut absent = failing(Shell::Sh, "echo hi");
        absent.task.env.insert("X".into(), "${ngSecretManager.obtain(\"absent\", 77)}".into());
        let mut nul = failing(Shell::Sh, "echo hi");
        nul.task.env.insert("X".into(), "a\0b".into());
        vec![
            case(
                "exit 9",
                failing(Shell::Sh, "echo \"$TOKEN\" > /dev/null; exit 9"),
                K::RemoteFailed,
                "SHELL-001",
            ),
            case("python", failing(Shell::Python, "raise SystemExit(3)"), K::RemoteFailed, "SHELL-001"),
            case("killed", failing(Shell::Bash, "kill -9 $$"), K::RemoteFailed, "SHELL-002"),
            case("no interpreter", failing(Shell::PowerShell, "1"), K::RemoteFailed, "SHELL-003"),
            case("no directory", nowhere, K::RemoteFailed, "SHELL-005"),
            case("missing secret", absent, K::BadSpec, "SHELL-006"),
            case("NUL in a variable", nul, K::BadSpec, "SHELL-008"),
        ]
    }

    fn planted(&self) -> Vec<(String, String)> {
        vec![("pw".into(), PLANTED.into())]
    }

    fn outlives_the_agent(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_shell_executor_keeps_the_contract() {
    let (_dir, dir) = support::place();
    conformance::run(&Local { dir }).await;
}
