//! When to try again. Pure: attempt, the server's wish and a random number in, a pause out.

use std::time::Duration;

/// Exponential pauses between two limits, with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// First pause.
    min: Duration,
    /// Longest pause; a server's wish is clamped to it too.
    max: Duration,
}

impl RetryPolicy {
    /// Registration and heartbeat: quick at first, so that a restart of the manager costs little; then calm, so that many
    /// agents do not storm it.
    pub(crate) const CONNECT: RetryPolicy =
        RetryPolicy::new(Duration::from_millis(200), Duration::from_secs(30));
    /// Results: never given up.
    pub(crate) const REPORT: RetryPolicy =
        RetryPolicy::new(Duration::from_millis(200), Duration::from_secs(60));
    /// Log lines.
    pub(crate) const LOGS: RetryPolicy =
        RetryPolicy::new(Duration::from_millis(200), Duration::from_secs(15));
    /// While the token is refused: a person has to act.
    pub(crate) const FROZEN: RetryPolicy = RetryPolicy::new(Duration::from_secs(10), Duration::from_secs(60));

    const fn new(min: Duration, max: Duration) -> Self {
        RetryPolicy { min, max }
    }

    /// The pause before try `attempt` + 1, where `attempt` counts failures from 1. `random` is in 0..1; half of the pause
    /// is random, so that agents that failed together do not come back together. A server's wish is a lower bound within
    /// the limits.
    pub(crate) fn delay(&self, attempt: u32, retry_after: Option<Duration>, random: f64) -> Duration {
        let doubled =
            self.min.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        let full = doubled.min(self.max);
        let jittered = full.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0));
        match retry_after {
            Some(wish) => jittered.max(wish.clamp(self.min, self.max)),
            None => jittered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_stay_within_limits(attempt: u32, wish in proptest::option::of(0u64..10_000_000), random in 0.0f64..1.0) {
            let policy = RetryPolicy::CONNECT;
            let pause = policy.delay(attempt, wish.map(Duration::from_millis), random);
            prop_assert!(pause >= policy.min / 2 && pause <= policy.max);
            if let Some(wish) = wish {
                prop_assert!(pause >= Duration::from_millis(wish).min(policy.max));
            }
        }
    }

    #[test]
    fn pauses_grow() {
        let pauses: Vec<_> = (1..=9).map(|n| RetryPolicy::CONNECT.delay(n, None, 1.0)).collect();
        assert!(pauses.is_sorted());
        assert_eq!(pauses.first(), Some(&Duration::from_millis(200)));
        assert_eq!(pauses.last(), Some(&Duration::from_secs(30)));
    }
}
