//! Keeps the cache of downloaded artifacts within its limit.

use std::path::PathBuf;
use tokio::sync::Mutex;

/// The cache of one agent.
pub(super) struct ArtifactCache {
    dir: PathBuf,
    limit: u64,
    /// How many files had been brought in when it was last pruned. Held while it is pruned: once at a time is enough.
    pruned_at: Mutex<u64>,
}

impl ArtifactCache {
    pub(super) fn new(dir: PathBuf, limit: u64) -> Self {
        ArtifactCache { dir, limit, pruned_at: Mutex::new(0) }
    }

    /// Makes room, whatever happened before.
    pub(super) async fn prune(&self) {
        match sources::prune(&self.dir, self.limit).await {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, limit = self.limit, "made room in the artifact cache"),
            // A cache that cannot be tidied still serves; a full disk is told by whoever writes next.
            Err(error) => {
                tracing::warn!(%error, path = %self.dir.display(), "the artifact cache cannot be tidied");
            }
        }
    }

    /// Makes room if files came since it was last done. `transferred` is the client's count of them.
    pub(super) async fn grew_to(&self, transferred: u64) {
        let Ok(mut pruned_at) = self.pruned_at.try_lock() else { return };
        if *pruned_at < transferred {
            self.prune().await;
            *pruned_at = transferred;
        }
    }
}
