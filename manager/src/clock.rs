//! Time comes from outside (DESIGN D12): the manager's own clock border. `executor_api::Clock` is its twin on the agent;
//! the manager may not depend on that crate.

use futures::future::BoxFuture;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The two clocks and the one way to wait.
pub trait Clock: Send + Sync {
    /// Epoch milliseconds, for people, the wire and stored deadlines.
    fn wall(&self) -> u64;
    /// For waits inside one process.
    fn mono(&self) -> Instant;
    /// Waits until `at`.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;
    /// Waits for `span`.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.mono() + span)
    }
}

/// The machine's clocks. With tokio's paused time, `mono` and `sleep_until` follow it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "This is the one place where the manager reads the wall clock."
    )]
    fn wall(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn mono(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(at))
    }
}
