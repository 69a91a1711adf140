//! Waiting for a condition with a limit: the only place where a test lets time pass.

use std::fmt::Debug;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often a probe is asked: seldom beside what asking costs, often beside everything a test waits for.
const PACE: Duration = Duration::from_millis(10);

/// Asks `probe` until it yields a value, at most for `limit`.
///
/// # Panics
/// When the limit is over, also in the middle of a probe; `what` names the condition.
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
    let mut last = None;
    let met = async {
        let mut turns = interval(PACE);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            match probe().await {
                Ok(value) => return value,
                Err(found) => last = Some(found),
            }
        }
    };
    match timeout(limit, met).await {
        Ok(value) => value,
        Err(_) => panic!("not within {limit:?}: {what}: {last:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_comes_is_met() {
        let mut asked = 0;
        let met = until("three", LIMIT, async || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(met.await, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 1s: never: Some(\"two of three\")")]
    async fn one_that_does_not_come_is_told_with_what_was_found_instead() {
        until_ok("never", LIMIT, async || Err::<(), _>("two of three")).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 1s: hangs: None")]
    async fn a_probe_that_hangs_is_cut_off() {
        until("hangs", LIMIT, async || std::future::pending::<Option<()>>().await).await;
    }
}
