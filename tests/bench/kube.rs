//! A thousand objects against `kubectl` and a bare loop: the executor's own measurement on the real control plane.

use anyhow::Result;
use std::process::Command;

pub(crate) fn measure() -> Result<()> {
    println!("bars: <= 1/8 of kubectl's wall, <= its requests (dry run and apply), <= 2.5 x a bare loop");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = [
        "test",
        "--locked",
        "--release",
        "--package",
        "executor-kube",
        "--test",
        "speed",
        "--",
        "--nocapture",
    ];
    let status = Command::new(cargo).args(arguments).env("KUBE_SPEED_KUBECTL", "1").status()?;
    anyhow::ensure!(status.success(), "the measurement ended {status}");
    Ok(())
}
