//! How much disk unsent logs take, and who waits for it.

use crate::config::SpoolLimits;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// Disk used by all units.
pub(crate) struct Budget {
    limits: SpoolLimits,
    used: AtomicU64,
    freed: Notify,
}

/// Disk used by one unit.
pub(crate) struct UnitRoom {
    used: AtomicU64,
    budget: Arc<Budget>,
}

impl Budget {
    pub(crate) fn new(limits: SpoolLimits) -> Arc<Budget> {
        Arc::new(Budget { limits, used: AtomicU64::new(0), freed: Notify::new() })
    }

    /// The account of a unit that already has `used` bytes on disk.
    pub(crate) fn unit(self: &Arc<Self>, used: u64) -> Arc<UnitRoom> {
        self.used.fetch_add(used, Ordering::AcqRel);
        Arc::new(UnitRoom { used: AtomicU64::new(used), budget: self.clone() })
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Waits until a chunk may be written. `false`: there is no room and nobody waits any more.
    ///
    /// A chunk may overshoot the limit by its own size; chunks are small.
    pub(crate) async fn admit(&self, unit: &UnitRoom, released: &AtomicBool) -> bool {
        loop {
            // Registered before the check, so that room made in between is not missed.
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if unit.used.load(Ordering::Acquire) < self.limits.unit_bytes
                && self.used() < self.limits.agent_bytes
            {
                return true;
            }
            if released.load(Ordering::Acquire) {
                return false;
            }
            freed.await;
        }
    }

    /// Lets everybody look again.
    pub(crate) fn wake(&self) {
        self.freed.notify_waiters();
    }
}

impl UnitRoom {
    /// Bytes of this unit on disk.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Bytes were written.
    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        self.budget.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Bytes were deleted.
    pub(crate) fn free(&self, bytes: u64) {
        let bytes = bytes.min(self.used.load(Ordering::Acquire));
        if bytes > 0 {
            self.used.fetch_sub(bytes, Ordering::AcqRel);
            self.budget.used.fetch_sub(bytes, Ordering::AcqRel);
            self.budget.wake();
        }
    }
}

impl Drop for UnitRoom {
    fn drop(&mut self) {
        let rest = self.used.load(Ordering::Acquire);
        self.budget.used.fetch_sub(rest, Ordering::AcqRel);
        self.budget.wake();
    }
}
