//! Memory and CPU of a process, from /proc.

use anyhow::{Context, Result};

/// One field of `/proc/PID/status` in MiB.
pub(crate) fn status_mib(pid: u32, field: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        text.lines().find(|l| l.starts_with(field)).with_context(|| format!("no {field} for {pid}"))?;
    let kib: f64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kib / 1024.0)
}

/// User and system CPU seconds of a process so far, without its children.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = text.rsplit_once(')').context("stat")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |i: usize| -> Result<f64> { Ok(fields.get(i).context("stat field")?.parse()?) };
    // Fields 14 and 15 of proc(5), counted after the command name; 100 ticks a second on every Linux this runs on.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
