//! Process start → registered → first task running.

use crate::figures::{judged, percentile, spread};
use anyhow::Result;
use e2e::wait::until;
use e2e::world::{AgentProcess, Manager};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) async fn measure() -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..7 {
        let dir = tempfile::tempdir()?;
        let manager = Manager::start(dir.path());
        let queued = manager.probe(1, &[]).await;
        let begin = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as f64;
        let _agent = AgentProcess::start(&manager, dir.path(), "bench", &[]);
        let task = queued.first().cloned().unwrap_or_default();
        let assigned = until("the task is taken", Duration::from_secs(30), || {
            let row = manager.task(&task);
            async move { row.await["assignedAt"].as_f64() }
        })
        .await;
        times.push(assigned - begin);
    }
    spread("agent: process start -> registered -> first task taken", &times, "ms");
    judged("  median", percentile(&times, 50.0), "ms", 200.0, false);
    Ok(())
}
