//! Memory of an idle agent with TLS, 60 s after its start, and with 100 steps running.

use crate::figures::judged;
use crate::proc::status_mib;
use anyhow::Result;
use e2e::wait::until;
use e2e::world::{AgentProcess, Manager};
use std::time::Duration;

pub(crate) async fn measure() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (manager, agent) = with_tls(dir.path())?;
    let pid = agent.process.as_ref().map(e2e::world::Process::pid).unwrap_or_default();
    tokio::time::sleep(Duration::from_secs(60)).await;
    judged(
        "idle agent with TLS, 60 s after start: RssAnon",
        status_mib(pid, "RssAnon:")?,
        "MiB",
        12.0,
        false,
    );
    judged("idle agent with TLS, 60 s after start: VmRSS", status_mib(pid, "VmRSS:")?, "MiB", 25.0, false);
    steps(&manager, pid, dir.path()).await?;
    Ok(())
}

/// A manager and an agent that speak TLS with a certificate of their own authority.
fn with_tls(dir: &std::path::Path) -> Result<(Manager, AgentProcess)> {
    let (ca, cert, key) = e2e::world::certificates(dir);
    let manager = Manager::start_with(
        dir,
        &["--tls-cert", cert.to_str().unwrap_or_default(), "--tls-key", key.to_str().unwrap_or_default()],
    );
    let agent =
        AgentProcess::start(&manager, dir, "bench", &[("DELEGATE_CA_FILE", ca.to_str().unwrap_or_default())]);
    Ok((manager, agent))
}

/// 100 scripts at once on 50 hosts, two each.
async fn steps(manager: &Manager, pid: u32, dir: &std::path::Path) -> Result<()> {
    let ssh = dir.join("ssh");
    let sshd = e2e::peers::sshd::Sshd::start(&ssh, 50).await;
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; sleep 1; done";
    let files = e2e::world::ssh_entities(
        dir,
        &sshd,
        "bench",
        &[("one", script), ("two", script)],
        e2e::world::Layout::Parallel,
    )?;
    e2e::world::load_ssh(manager, &files, &sshd);
    let execution = manager.start_pipeline(&["bench"]);
    let mut peak: f64 = 0.0;
    until("100 scripts end", Duration::from_secs(180), || {
        let now = status_mib(pid, "VmRSS:").unwrap_or_default();
        peak = peak.max(now);
        let view = manager.show(&execution);
        async move { (view["status"] != "Running").then_some(()) }
    })
    .await;
    judged("100 concurrent SSH steps: peak VmRSS of the agent", peak, "MiB", 100.0, false);
    Ok(())
}
