//! Waiting for a condition with a limit: the only place where a test lets time pass.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a probe rests before it is asked again: short beside everything a test waits for, long beside the probe.
const PACE: Duration = Duration::from_millis(10);

/// Asks `probe` until it yields a value, at most for `limit`.
///
/// # Panics
/// When the limit is over; `what` names the condition.
pub async fn until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    until_ok(what, limit, async || probe().await.ok_or("not yet")).await
}

/// As [`until`], for a probe that says what it found instead.
///
/// # Panics
/// When the limit is over; the message holds what was found last.
pub async fn until_ok<T, E: Debug>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(found) => assert!(start.elapsed() < limit, "not within {limit:?}: {what}: {found:?}"),
        }
        tokio::time::sleep(PACE).await;
    }
}
