//! A clock that a test moves by hand.

use crate::Clock;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Stands still until [`ManualClock::advance`] is called. Cheap to clone; all clones show the same time.
///
/// Real I/O goes on meanwhile: only waits that go through [`Clock`] depend on it.
#[derive(Clone, Debug)]
pub struct ManualClock {
    base: Instant,
    wall_base: u64,
    passed: Arc<watch::Sender<Duration>>,
    sleepers: Arc<watch::Sender<BTreeMap<u64, Duration>>>,
    next: Arc<Mutex<u64>>,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl ManualClock {
    /// A clock that shows 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        ManualClock {
            base: Instant::now(),
            wall_base: 1_767_225_600_000,
            passed: Arc::new(watch::channel(Duration::ZERO).0),
            sleepers: Arc::new(watch::channel(BTreeMap::new()).0),
            next: Arc::new(Mutex::new(0)),
        }
    }

    /// Moves the clock on and wakes whoever waited for that.
    pub fn advance(&self, span: Duration) {
        self.passed.send_modify(|passed| *passed += span);
    }

    /// Waits until somebody sleeps on this clock for at least `span` more.
    pub async fn wait_for_sleeper(&self, span: Duration) {
        let mut sleepers = self.sleepers.subscribe();
        loop {
            let passed = *self.passed.borrow();
            if sleepers.borrow_and_update().values().any(|until| *until >= passed + span) {
                return;
            }
            if sleepers.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for a sleeper of at least `span` and moves the clock past it.
    pub async fn pass(&self, span: Duration) {
        self.wait_for_sleeper(span).await;
        self.advance(span);
    }
}

/// Takes a sleeper off the list, also when its future is dropped.
struct Sleeper {
    id: u64,
    list: Arc<watch::Sender<BTreeMap<u64, Duration>>>,
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.list.send_modify(|list| {
            list.remove(&self.id);
        });
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> u64 {
        self.wall_base + u64::try_from(self.passed.borrow().as_millis()).unwrap_or(u64::MAX)
    }

    fn mono(&self) -> Instant {
        self.base + *self.passed.borrow()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let until = at.saturating_duration_since(self.base);
        let mut passed = self.passed.subscribe();
        let id = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let list = self.sleepers.clone();
        let keep = self.passed.clone();
        Box::pin(async move {
            list.send_modify(|sleepers| {
                sleepers.insert(id, until);
            });
            let _on_drop = Sleeper { id, list };
            while *passed.borrow_and_update() < until {
                if passed.changed().await.is_err() {
                    break;
                }
            }
            drop(keep);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_exactly_when_its_time_has_passed() {
        let clock = ManualClock::new();
        let sleep = tokio::spawn(clock.sleep(Duration::from_secs(10)));
        clock.pass(Duration::from_secs(9)).await;
        assert!(!sleep.is_finished());
        clock.pass(Duration::from_secs(1)).await;
        sleep.await.unwrap();
        assert_eq!(clock.wall(), 1_767_225_610_000);
    }
}
