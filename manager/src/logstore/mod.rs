//! Log bodies: complete, ordered, on disk, never a row per line (DESIGN D7).

pub mod disk;
pub mod http;
mod lines;

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::watch;

/// Why a log operation failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Nothing is open under this key.
    #[error("stream: not found")]
    NotOpen,
    /// Nothing is stored under this key.
    #[error("not found")]
    NotFound,
    /// The batch begins after the next expected line.
    #[error("line {next} is expected next")]
    Gap {
        /// Number of the line that is expected.
        next: u64,
    },
    /// Disk trouble.
    #[error("log store: {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The list of streams was damaged by something else than a crash. It is never treated as empty. Page:
    /// `docs/errors/MGR-006.md`.
    #[error("MGR-006: line {line} of {path} cannot be read")]
    Damaged {
        /// The list.
        path: std::path::PathBuf,
        /// From 1.
        line: usize,
    },
}

/// How a stream is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// As Harness: what is there under this key is erased.
    Erase,
    /// As our agents: what is there is kept and appended to.
    Resume,
}

/// How a stream is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Its lines become the blob of the key.
    Snapshot,
    /// Only the stream ends. The lines stay readable through [`LogStore::read`]; the blob of the key stays what it was.
    Discard,
}

/// One stream as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its key.
    pub key: String,
    /// Whether it is open.
    pub open: bool,
}

/// A piece of a log.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Number of the first line, from 0.
    pub first: u64,
    /// Number of the line after the last one: read on from here.
    pub next: u64,
    /// Whole lines, each one JSON document (`proto::logs` line) and a newline.
    pub text: Bytes,
    /// Whether more can come: the stream is open. `text` empty and `open` false means the end.
    pub open: bool,
}

/// Where log bodies live. Keys belong to an account; nothing of one account is ever visible under another.
///
/// **Repeat**: every call may be repeated; `append` with a sequence number drops what it has already.
#[async_trait]
pub trait LogStore: Send + Sync {
    /// Opens a stream; the number of the line that is expected next.
    async fn open(&self, account: &str, key: &str, mode: Open) -> Result<u64, LogError>;
    /// Appends lines (each without its newline); the number of the line that is expected next.
    ///
    /// With `seq` the first line of the batch has that number: lines already stored are dropped, a gap is refused.
    async fn append(
        &self,
        account: &str,
        key: &str,
        seq: Option<u64>,
        lines: Vec<Bytes>,
    ) -> Result<u64, LogError>;
    /// Closes a stream.
    async fn close(&self, account: &str, key: &str, how: Close) -> Result<(), LogError>;
    /// The three of them for a log that is whole already: resumes the stream, appends `lines` from number `seq` on, and
    /// closes it with a snapshot. The number of lines afterwards. A gap leaves the stream open.
    async fn whole(&self, account: &str, key: &str, seq: u64, lines: Vec<Bytes>) -> Result<u64, LogError>;
    /// Keys that begin with `prefix`, in order, at most `limit`; blobs without a stream included.
    async fn keys(&self, account: &str, prefix: &str, limit: usize) -> Result<Vec<StreamInfo>, LogError>;
    /// Lines from number `from` on, at most about `max_bytes` but at least one line if there is one. Reads the open
    /// stream, else the blob, else what the last stream left.
    async fn read(&self, account: &str, key: &str, from: u64, max_bytes: usize) -> Result<Piece, LogError>;
    /// Marked as changed after every append, open and close of this key: the number of lines. Subscribe first, then
    /// read, then wait.
    fn watch(&self, account: &str, key: &str) -> watch::Receiver<u64>;
    /// Marked as changed whenever any key of the account is opened or closed. Subscribe first, then list, then wait.
    fn watch_keys(&self, account: &str) -> watch::Receiver<u64>;
    /// Stores a whole log under a key.
    async fn put_blob(&self, account: &str, key: &str, body: Bytes) -> Result<(), LogError>;
    /// The blob from byte `from` on, at most `max_bytes`; empty at the end.
    async fn blob(&self, account: &str, key: &str, from: u64, max_bytes: usize) -> Result<Bytes, LogError>;
    /// Whether there is a blob.
    async fn has_blob(&self, account: &str, key: &str) -> Result<bool, LogError>;
    /// Deletes a blob; absent is no error.
    async fn delete_blob(&self, account: &str, key: &str) -> Result<(), LogError>;
}

/// A shared log store.
pub type Logs = Arc<dyn LogStore>;
