//! Log bodies as chunk files.
//!
//! ```text
//! logs/streams.ndjson      what happened to which key, append-only: open, close, blob …
//! logs/<n / 1000>/<n>/     one body: chunk files named after the number of their first line
//! logs/<n / 1000>/<n>/blob a blob that was uploaded as a whole
//! ```
//! **Durability**: an append is acknowledged when the operating system has the bytes, so that a killed manager loses
//! nothing; files are brought to the disk within [`SYNC_EVERY`]. After a power failure at most that much of a log is
//! missing. Task states do not depend on it: they are in the store.
//!
//! **Memory**: a few numbers for each body in use, nothing for each line; reads return pieces of bounded size.

mod body;
mod registry;

use super::{Close, LogError, LogStore, Open, Piece, StreamInfo};
use async_trait::async_trait;
use body::Body;
use bytes::Bytes;
use registry::{Blob, Op, Registry};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Longest time that acknowledged lines are only with the operating system.
pub const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A disk operation failed.
fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> LogError {
    move |source| LogError::Io { what, source }
}

/// The log store in a folder.
pub struct DiskLogs {
    shared: Arc<Shared>,
    /// (account, key) → lines; only keys that somebody watches.
    watches: Mutex<HashMap<(String, String), watch::Sender<u64>>>,
    /// account → changes of its keys.
    key_watches: Mutex<HashMap<String, watch::Sender<u64>>>,
}

/// What blocking operations work with.
struct Shared {
    registry: Mutex<Registry>,
    /// Files with bytes that are not yet on the disk.
    unsynced: Mutex<BTreeSet<PathBuf>>,
    written: Notify,
}

/// What an open met.
#[derive(Clone, Copy, PartialEq)]
enum Met {
    /// The stream was open.
    Live,
    /// It was closed and is open again.
    Closed,
    /// Nothing, or what a new stream replaces.
    Nothing,
}

impl Shared {
    fn live(&self, account: &str, key: &str) -> Option<Arc<Body>> {
        locked(&self.registry).get(account, key).and_then(|state| state.live.clone())
    }

    /// Records what happened to a key and does away with bodies that nothing refers to any more.
    fn record(&self, op: Op) -> Result<(), LogError> {
        let dropped = locked(&self.registry).record(op)?;
        dropped.iter().try_for_each(|body| body.erase())
    }

    /// What a key has is looked at and changed in one go: an open that comes twice must not replace what the first made.
    fn open(&self, account: &str, key: &str, mode: Open) -> Result<(Arc<Body>, Met), LogError> {
        let mut registry = locked(&self.registry);
        let resumable = registry.get(account, key).and_then(registry::KeyState::resumable);
        match resumable.filter(|_| mode == Open::Resume) {
            Some((body, false)) => Ok((body, Met::Live)),
            Some((body, true)) => {
                body.set_closed(false)?;
                registry.record(Op::reopen(account, key))?;
                Ok((body, Met::Closed))
            }
            None => {
                let number = registry.next_number();
                let dropped = registry.record(Op::open(account, key, number))?;
                let body = registry.get(account, key).and_then(|state| state.live.clone());
                drop(registry);
                // An append that is under way ends first, and a later one is refused: erasing closes.
                dropped.iter().try_for_each(|body| body.erase())?;
                Ok((body.ok_or(LogError::NotOpen)?, Met::Nothing))
            }
        }
    }

    fn append(&self, body: &Body, seq: Option<u64>, lines: &[Bytes]) -> Result<u64, LogError> {
        let (next, written) = body.append(seq, lines)?;
        if !written.is_empty() {
            locked(&self.unsynced).extend(written);
            self.written.notify_one();
        }
        Ok(next)
    }

    /// The number of lines of what is closed.
    fn close(&self, body: &Body, op: Op) -> Result<u64, LogError> {
        let lines = body.lines()?;
        body.set_closed(true)?;
        self.record(op)?;
        Ok(lines)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T, F>(run: F) -> Result<T, LogError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, LogError> + Send + 'static,
{
    tokio::task::spawn_blocking(run)
        .await
        .map_err(|e| LogError::Io { what: "broken off", source: std::io::Error::other(e) })?
}

impl DiskLogs {
    /// Opens the folder, or makes it. Blocks: a few milliseconds for each ten thousand streams.
    pub fn open(root: &Path) -> Result<Self, LogError> {
        let registry = Registry::open(root)?;
        Ok(DiskLogs {
            shared: Arc::new(Shared {
                registry: Mutex::new(registry),
                unsynced: Mutex::default(),
                written: Notify::new(),
            }),
            watches: Mutex::default(),
            key_watches: Mutex::default(),
        })
    }

    /// Brings files to the disk as they are written, until `stop`; then once more.
    pub async fn keep_synced(self: Arc<Self>, clock: Arc<dyn crate::clock::Clock>, stop: CancellationToken) {
        loop {
            let stopping = tokio::select! {
                () = self.shared.written.notified() => {
                    tokio::select! {
                        () = clock.sleep(SYNC_EVERY) => false,
                        () = stop.cancelled() => true,
                    }
                }
                () = stop.cancelled() => true,
            };
            let files = std::mem::take(&mut *locked(&self.shared.unsynced));
            let synced = blocking(move || {
                for path in files {
                    match std::fs::File::open(&path) {
                        Ok(file) => file.sync_data().map_err(io("bring a log to the disk"))?,
                        // Erased meanwhile.
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) => return Err(io("open a log")(error)),
                    }
                }
                Ok(())
            });
            if let Err(error) = synced.await {
                tracing::error!(error = &error as &dyn std::error::Error, "logs are not on the disk");
            }
            if stopping {
                return;
            }
        }
    }

    fn tell(&self, account: &str, key: &str, lines: u64) {
        let mut watches = locked(&self.watches);
        let name = (account.to_owned(), key.to_owned());
        if let Some(watch) = watches.get(&name) {
            if watch.receiver_count() == 0 {
                watches.remove(&name);
            } else {
                // Also an equal number is news: the stream was closed.
                watch.send_replace(lines);
            }
        }
    }

    fn tell_keys(&self, account: &str) {
        if let Some(watch) = locked(&self.key_watches).get(account) {
            watch.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
    }

    /// Where the lines of a key are read from.
    fn readable(&self, account: &str, key: &str) -> Option<Arc<Body>> {
        let registry = locked(&self.shared.registry);
        let state = registry.get(account, key)?;
        let blob = match &state.blob {
            Some(Blob::Lines(body) | Blob::Raw(body)) => Some(body.clone()),
            None => None,
        };
        state.live.clone().or(blob).or_else(|| state.left.clone())
    }
}

#[async_trait]
impl LogStore for DiskLogs {
    async fn open(&self, account: &str, key: &str, mode: Open) -> Result<u64, LogError> {
        let shared = Arc::clone(&self.shared);
        let (account_name, key_name) = (account.to_owned(), key.to_owned());
        let (lines, met) = blocking(move || {
            let (body, met) = shared.open(&account_name, &key_name, mode)?;
            Ok((body.lines()?, met))
        })
        .await?;
        if met == Met::Nothing {
            self.tell(account, key, lines);
        }
        if met != Met::Live {
            self.tell_keys(account);
        }
        Ok(lines)
    }

    async fn append(
        &self,
        account: &str,
        key: &str,
        seq: Option<u64>,
        lines: Vec<Bytes>,
    ) -> Result<u64, LogError> {
        let body = self.shared.live(account, key).ok_or(LogError::NotOpen)?;
        let shared = Arc::clone(&self.shared);
        let next = blocking(move || shared.append(&body, seq, &lines)).await?;
        self.tell(account, key, next);
        Ok(next)
    }

    async fn close(&self, account: &str, key: &str, how: Close) -> Result<(), LogError> {
        let body = self.shared.live(account, key).ok_or(LogError::NotOpen)?;
        let shared = Arc::clone(&self.shared);
        let op = Op::close(account, key, how == Close::Snapshot);
        let lines = blocking(move || shared.close(&body, op)).await?;
        self.tell(account, key, lines);
        self.tell_keys(account);
        Ok(())
    }

    async fn whole(&self, account: &str, key: &str, seq: u64, lines: Vec<Bytes>) -> Result<u64, LogError> {
        let shared = Arc::clone(&self.shared);
        let (account_name, key_name) = (account.to_owned(), key.to_owned());
        // One job in place of five.
        let next = blocking(move || {
            let (body, _) = shared.open(&account_name, &key_name, Open::Resume)?;
            shared.append(&body, Some(seq), &lines)?;
            shared.close(&body, Op::close(&account_name, &key_name, true))
        })
        .await;
        if let Ok(lines) = &next {
            self.tell(account, key, *lines);
        }
        self.tell_keys(account);
        next
    }

    async fn keys(&self, account: &str, prefix: &str, limit: usize) -> Result<Vec<StreamInfo>, LogError> {
        Ok(locked(&self.shared.registry).keys(account, prefix, limit))
    }

    async fn read(&self, account: &str, key: &str, from: u64, max_bytes: usize) -> Result<Piece, LogError> {
        let body = self.readable(account, key).ok_or(LogError::NotFound)?;
        let live = self.shared.live(account, key).is_some_and(|live| Arc::ptr_eq(&live, &body));
        let (first, next, text) = blocking(move || body.read(from, max_bytes)).await?;
        Ok(Piece { first, next, text, open: live })
    }

    fn watch(&self, account: &str, key: &str) -> watch::Receiver<u64> {
        let mut watches = locked(&self.watches);
        // Keys nobody watches any more are forgotten here too, or each finished tail would leave one behind.
        if watches.len() > 1024 {
            watches.retain(|_, watch| watch.receiver_count() > 0);
        }
        watches.entry((account.to_owned(), key.to_owned())).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    fn watch_keys(&self, account: &str) -> watch::Receiver<u64> {
        locked(&self.key_watches).entry(account.to_owned()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    async fn put_blob(&self, account: &str, key: &str, content: Bytes) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        let (account_name, key_name) = (account.to_owned(), key.to_owned());
        blocking(move || {
            let (number, body) = {
                let mut registry = locked(&shared.registry);
                let number = registry.next_number();
                (number, registry.body(number))
            };
            let path = body.put(&content)?;
            let dropped = locked(&shared.registry).record(Op::blob(&account_name, &key_name, number))?;
            locked(&shared.unsynced).insert(path);
            shared.written.notify_one();
            dropped.iter().try_for_each(|body| body.erase())
        })
        .await?;
        self.tell_keys(account);
        Ok(())
    }

    async fn blob(&self, account: &str, key: &str, from: u64, max_bytes: usize) -> Result<Bytes, LogError> {
        let body = match locked(&self.shared.registry).get(account, key).and_then(|state| state.blob.clone())
        {
            Some(Blob::Lines(body) | Blob::Raw(body)) => body,
            None => return Err(LogError::NotFound),
        };
        blocking(move || body.bytes(from, max_bytes)).await
    }

    async fn has_blob(&self, account: &str, key: &str) -> Result<bool, LogError> {
        Ok(locked(&self.shared.registry).get(account, key).is_some_and(|state| state.blob.is_some()))
    }

    async fn delete_blob(&self, account: &str, key: &str) -> Result<(), LogError> {
        if self.has_blob(account, key).await? {
            let (shared, op) = (Arc::clone(&self.shared), Op::no_blob(account, key));
            blocking(move || shared.record(op)).await?;
            self.tell_keys(account);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
