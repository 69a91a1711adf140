//! When to try again.

use super::Access;
use crate::error;
use executor_api::{Class, StepError};
use std::time::Duration;

/// A retry policy as plain data: exponential, bounded, with jitter given from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Attempts in all, the first one included.
    pub attempts: u32,
    /// Pause after the first failure; it doubles each time.
    pub min: Duration,
    /// Longest pause, also of what a server asks for.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        // Four attempts bridge about five seconds: a restart of a proxy, not an outage.
        Backoff { attempts: 4, min: Duration::from_millis(500), max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The pause after failure number `failed` (from 1) of class `class`, or `None` to give up. `jitter` in 0..1 spreads
    /// the pause over its upper half.
    pub fn pause(&self, failed: u32, class: Class, jitter: f64) -> Option<Duration> {
        if failed >= self.attempts || !class.may_retry() {
            return None;
        }
        if let Class::Throttled { retry_after: Some(asked) } = class {
            return Some(asked.clamp(self.min, self.max));
        }
        let doubled = self.min.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(self.max);
        Some(doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)))
    }
}

/// Counts the failures of one call.
#[derive(Debug)]
pub struct Retry<'a> {
    access: &'a Access,
    policy: Backoff,
    failed: u32,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(access: &'a Access, policy: Backoff) -> Self {
        Retry { access, policy, failed: 0 }
    }

    /// Something was achieved: failures count from the beginning.
    pub fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Waits before another attempt, or gives `error` back when another one cannot help or does not fit into the
    /// deadline.
    pub async fn after(&mut self, error: StepError) -> Result<(), StepError> {
        self.failed += 1;
        // The clock's milliseconds are jitter enough to keep fifty hosts apart, and a test's clock makes them known.
        let jitter = f64::from(u32::try_from(self.access.clock.wall() % 1000).unwrap_or(0)) / 1000.0;
        let Some(pause) = self.policy.pause(self.failed, error.class, jitter) else { return Err(error) };
        let left = self.access.deadline.saturating_duration_since(self.access.clock.mono());
        if pause >= left {
            return Err(error);
        }
        self.access.notice(&format!("{error}; next attempt in {:.1} s", pause.as_secs_f64()));
        tokio::select! {
            () = self.access.clock.sleep(pause) => Ok(()),
            (reason, _) = self.access.cancel.wait() => Err(error::cancelled("waiting for another attempt", reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Backoff =
        Backoff { attempts: 4, min: Duration::from_millis(500), max: Duration::from_secs(30) };

    #[test]
    fn pauses_double_stay_bounded_and_end() {
        let pause = |failed| POLICY.pause(failed, Class::Connectivity, 1.0);
        assert_eq!(pause(1), Some(Duration::from_millis(500)));
        assert_eq!(pause(2), Some(Duration::from_millis(1000)));
        assert_eq!(pause(3), Some(Duration::from_millis(2000)));
        assert_eq!(pause(4), None);
        assert_eq!(POLICY.pause(1, Class::Connectivity, 0.0), Some(Duration::from_millis(250)));
        let long = Backoff { attempts: 100, ..POLICY };
        assert_eq!(long.pause(90, Class::Connectivity, 1.0), Some(Duration::from_secs(30)));
    }

    #[test]
    fn refusals_are_never_repeated_and_a_server_s_wish_is_clamped() {
        for class in [Class::Authentication, Class::Authorization, Class::BadSpec, Class::Timeout, Class::Bug]
        {
            assert_eq!(POLICY.pause(1, class, 0.5), None);
        }
        let asked = |secs| Class::Throttled { retry_after: Some(Duration::from_secs(secs)) };
        assert_eq!(POLICY.pause(1, asked(7), 0.0), Some(Duration::from_secs(7)));
        assert_eq!(POLICY.pause(1, asked(0), 0.0), Some(Duration::from_millis(500)));
        assert_eq!(POLICY.pause(1, asked(9999), 0.0), Some(Duration::from_secs(30)));
    }
}
