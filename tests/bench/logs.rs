//! A script that prints 1 GiB, from the host to the manager's log store.

use crate::figures::judged;
use crate::proc::status_mib;
use anyhow::{Context, Result};
use e2e::wait::until;
use e2e::world::{AgentProcess, Manager, Process};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// 16,777,216 lines of 64 bytes are 1 GiB. awk prints them in order with their number.
const SCRIPT: &str = "awk 'BEGIN { for (i = 0; i < 16777216; i++) printf \"%010d ----------------------------------------------------\\n\", i }'";

pub(crate) async fn measure() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let manager = Manager::start(dir.path());
    let agent = AgentProcess::start(&manager, dir.path(), "bench", &[]);
    let pid = agent.process.as_ref().map(Process::pid).unwrap_or_default();
    let ssh = dir.path().join("ssh");
    let sshd = e2e::peers::sshd::Sshd::start(&ssh, 1).await;
    let files = e2e::world::ssh_entities(
        dir.path(),
        &sshd,
        "flood",
        &[("print", SCRIPT)],
        e2e::world::Layout::Steps,
    )?;
    e2e::world::load_ssh(&manager, &files, &sshd);
    let begin = Instant::now();
    let execution = manager.start_pipeline(&["flood"]);
    let mut peak: f64 = 0.0;
    let view = until("the flood ends", Duration::from_secs(600), || {
        peak = peak.max(status_mib(pid, "VmRSS:").unwrap_or_default());
        let view = manager.show(&execution);
        async move { (view["status"] != "Running").then_some(view) }
    })
    .await;
    let seconds = begin.elapsed().as_secs_f64();
    anyhow::ensure!(view["status"] == "Success", "the flood ended {}", view["status"]);
    judged("1 GiB log, script start -> execution ended", 1073.7 / seconds, "MB/s", 25.0, true);
    judged("  peak VmRSS of the agent meanwhile", peak, "MiB", 64.0, false);
    let mut child = manager.cli(&["execution", "logs", &execution]).stdout(Stdio::piped()).spawn()?;
    let mut next = 0_u64;
    for line in BufReader::new(child.stdout.take().context("output")?).lines() {
        let line = line?;
        let Some(at) = line.find(" -----") else { continue };
        let Some(number) = line.get(at.saturating_sub(10)..at).and_then(|n| n.parse::<u64>().ok()) else {
            continue;
        };
        anyhow::ensure!(number == next, "line {next} is missing or out of order: {number} follows");
        next += 1;
    }
    child.wait()?;
    println!(
        "lines stored and read back in order: {next} of 16777216 {}",
        if next == 16_777_216 { "met" } else { "MISSED" }
    );
    Ok(())
}
