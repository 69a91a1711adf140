//! Steps for tests, and a look at the process table.

use executor_api::testing::{self, World};
use executor_shell::{Settings, ShellExecutor};
use proto::task::{ExecutionRef, OutputVariable, Shell, ShellScriptSpec, Step, StepSpec, StepTask};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) const TOKEN: i64 = 77;

/// A script that reads back `outputs`: name of the variable, and whether it is secret.
pub(crate) fn spec(shell: Shell, script: &str, outputs: &[(&str, bool)]) -> ShellScriptSpec {
    ShellScriptSpec {
        shell,
        script: script.into(),
        working_directory: None,
        output_variables: outputs
            .iter()
            .map(|&(name, secret)| OutputVariable { name: name.into(), value: name.into(), secret })
            .collect(),
    }
}

pub(crate) fn task(spec: &ShellScriptSpec) -> StepTask {
    StepTask {
        execution: ExecutionRef { node: "pipeline.s".into(), ..ExecutionRef::default() },
        secret_token: TOKEN,
        ..StepTask::of(Step {
            identifier: "s".into(),
            name: "s".into(),
            spec: StepSpec::ShellScript(spec.clone()),
        })
    }
}

pub(crate) fn world(key: &str, spec: &ShellScriptSpec) -> World {
    World::new(format!("{key}-{}", std::process::id()), task(spec), [("pw".to_owned(), "pl4nted".to_owned())])
}

pub(crate) fn executor() -> ShellExecutor {
    ShellExecutor::new(Settings { kill_after: Duration::from_millis(500), ..Settings::default() })
}

/// Processes with `entry` in their environment, by pid and command line. A zombie has neither.
pub(crate) fn carrying(entry: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for dir in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = dir.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let environ = std::fs::read(dir.path().join("environ")).unwrap_or_default();
        if environ.split(|b| *b == 0).any(|one| one == entry.as_bytes()) {
            let command = std::fs::read(dir.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

pub(crate) async fn until<T>(what: &str, mut met: impl FnMut() -> Option<T>) -> T {
    testing::until(what, Duration::from_secs(20), async || met()).await
}

pub(crate) fn pid_in(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

pub(crate) fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// A folder that a test's scripts write to.
pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    (dir, path)
}
