//! Dispatch latency at 20 tasks a second, and how many no-op tasks a second go through.

use crate::figures::{fsync_ms, judged, percentile, plain};
use anyhow::Result;
use e2e::world::{AgentProcess, Manager};
use std::time::{Duration, Instant};

pub(crate) async fn measure() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let manager = Manager::start(dir.path());
    let _agent = AgentProcess::start(&manager, dir.path(), "bench", &[]);
    let fsync = fsync_ms(dir.path(), 200)?;
    let (p50, p99) = (percentile(&fsync, 50.0), percentile(&fsync, 99.0));
    plain("fsync of 4 KiB on this disk: p50", p50, "ms");
    plain("fsync of 4 KiB on this disk: p99", p99, "ms");

    // A warm-up, then 20 a second for ten seconds.
    manager.finished_tasks(&manager.probe(20, &[]).await, Duration::from_secs(30)).await;
    let mut ids = Vec::new();
    let begin = Instant::now();
    for n in 0..200_u32 {
        let at = begin + Duration::from_millis(50) * n;
        tokio::time::sleep_until(at.into()).await;
        ids.extend(manager.probe(1, &[]).await);
    }
    let rows = manager.finished_tasks(&ids, Duration::from_secs(60)).await;
    let waits: Vec<f64> = rows
        .iter()
        .filter_map(|row| {
            Some(
                row["result"]["startedAt"].as_f64().or(row["assignedAt"].as_f64())?
                    - row["createdAt"].as_f64()?,
            )
        })
        .collect();
    judged(
        "dispatch at 20/s: enqueued -> started, p50",
        percentile(&waits, 50.0),
        "ms",
        5.0 + 3.0 * p50,
        false,
    );
    judged(
        "dispatch at 20/s: enqueued -> started, p99",
        percentile(&waits, 99.0),
        "ms",
        20.0 + 3.0 * p99,
        false,
    );

    let begin = Instant::now();
    let ids = manager.probe(5000, &[]).await;
    let rows = manager.finished_tasks(&ids, Duration::from_secs(120)).await;
    let seconds = begin.elapsed().as_secs_f64();
    let ended: Vec<f64> = rows.iter().filter_map(|row| row["endedAt"].as_f64()).collect();
    let span = (percentile(&ended, 100.0)
        - rows.first().and_then(|r| r["createdAt"].as_f64()).unwrap_or_default())
        / 1e3;
    plain("5000 no-op tasks, seen from outside", seconds, "s");
    judged("no-op tasks accepted -> acknowledged, durable, one line each", 5000.0 / span, "/s", 500.0, true);
    Ok(())
}
