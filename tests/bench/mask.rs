//! Split, mask and number on one core: the agent's own measurement, which prints its figure.

use anyhow::Result;
use std::process::Command;

pub(crate) fn measure() -> Result<()> {
    println!("bar: >= 100 MB/s on one core");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments =
        ["test", "--locked", "--release", "--package", "agent", "--lib", "--", "--ignored", "--nocapture"];
    let status = Command::new(cargo).args(arguments).arg("speed_of_split_mask_and_number").status()?;
    anyhow::ensure!(status.success(), "the measurement ended {status}");
    Ok(())
}
