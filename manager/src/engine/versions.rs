//! Tells waiting readers that an execution has a new version.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// One watch channel per execution that somebody reads. An execution nobody waits for costs nothing.
#[derive(Default)]
pub(super) struct Versions {
    channels: Mutex<HashMap<String, watch::Sender<u64>>>,
}

impl Versions {
    /// Wakes everybody who waits for `execution_id`.
    pub(super) fn publish(&self, execution_id: &str, version: u64) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = channels.get(execution_id) {
            if sender.receiver_count() == 0 {
                channels.remove(execution_id);
            } else {
                sender.send_replace(version);
            }
        }
    }

    /// Subscribe first, read the snapshot second: a version committed in between is then seen either way.
    pub(super) fn subscribe(&self, execution_id: &str) -> watch::Receiver<u64> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|id, sender| id == execution_id || sender.receiver_count() > 0);
        channels.entry(execution_id.to_owned()).or_insert_with(|| watch::channel(0).0).subscribe()
    }
}
