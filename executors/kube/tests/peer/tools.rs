//! Tests that need programs of the test tools.

use super::plane::tool;
use std::path::Path;
use std::process::Command;

/// Does the work of a test with `helm` and `kustomize` of the test tools in the search path: in a process of its own that
/// runs this one test, because a process's environment is not to be changed while threads run.
pub fn with_tools(test: &str, work: impl Future<Output = ()>) {
    if std::env::var_os("DELEGATE_TEST_TOOLS").is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.unwrap().block_on(work);
    }
    let folder = tool("helm").parent().map(Path::to_owned).unwrap_or_default();
    assert!(folder.join("helm").exists(), "helm is missing: run scripts/install-test-peers");
    run_again(test, &format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default()));
}

/// Runs one test of this program again with this search path; it must pass.
pub fn run_again(test: &str, path: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("DELEGATE_TEST_TOOLS", "1")
        .env("PATH", path)
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "the test of its own process failed");
}
