//! Tests that need programs of the test tools.

use super::plane::tool;
use std::path::Path;
use std::process::Command;

/// Runs the test again with `helm` and `kustomize` of the test tools in its search path, and says `false`; `true` when
/// they are there already. A process's own environment is not to be changed while threads run.
pub fn with_tools(test: &str) -> bool {
    if std::env::var_os("DELEGATE_TEST_TOOLS").is_some() {
        return true;
    }
    let folder = tool("helm").parent().map(Path::to_owned).unwrap_or_default();
    assert!(folder.join("helm").exists(), "helm is missing: run scripts/install-test-peers");
    run_again(test, &format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default()));
    false
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
