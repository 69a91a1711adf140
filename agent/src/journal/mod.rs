//! The agent's durable memory (D5): `DATA_DIR/journal.db`.
//!
//! One thread owns the SQLite connection (WAL, `synchronous=FULL`). It takes every append that is waiting and commits
//! them together, so that many tasks share one fsync. Every body is sealed with the agent's key. A journal that cannot be
//! read stops the start; it is never treated as empty.

mod entry;
mod writer;

pub(crate) use entry::{Entry, TaskState};

use crate::key::Sealer;
use crate::telemetry::Telemetry;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Version of the schema and of the entries. Readers accept it and every older one.
pub(crate) const VERSION: u32 = 1;

/// Appends that may wait for the writer. A full queue makes producers wait, which is right: nothing may overtake the disk.
const QUEUE: usize = 1024;

/// The journal cannot be used. Each has a page in `docs/errors/`.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be opened or read.
    #[error("journal {path} cannot be read (AGT-001)")]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// It was written by a newer agent.
    #[error("journal {path} has version {found}; this agent reads up to {VERSION} (AGT-002)")]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It reads, but does not make sense or was sealed with another key.
    #[error("journal {path}, entry {entry} of task `{task}`: {problem} (AGT-001)")]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// Number of the entry.
        entry: i64,
        /// The task.
        task: String,
        /// What is wrong.
        problem: String,
    },
    /// An entry could not be made durable.
    #[error("the journal cannot be written: {0} (AGT-003)")]
    NotWritten(String),
}

impl JournalError {
    /// The code whose page in `docs/errors/` says what to do.
    pub fn code(&self) -> &'static str {
        match self {
            JournalError::Unreadable { .. } | JournalError::Damaged { .. } => "AGT-001",
            JournalError::Newer { .. } => "AGT-002",
            JournalError::NotWritten(_) => "AGT-003",
        }
    }
}

/// Handle of the journal. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal {
    queue: mpsc::Sender<writer::Job>,
    sealer: Arc<Sealer>,
    instance: Arc<str>,
    thread: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

impl Journal {
    /// Opens the journal, makes it if there is none, and replays it. Blocks.
    ///
    /// **Errors**: everything that is not a journal of this agent.
    pub(crate) fn open(
        path: &Path,
        sealer: Arc<Sealer>,
        telemetry: Arc<Telemetry>,
    ) -> Result<(Journal, BTreeMap<String, TaskState>), JournalError> {
        let unreadable = |source| JournalError::Unreadable { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(unreadable)?;
        let instance = prepare(&connection, path)?;
        let tasks = replay(&connection, path, &sealer)?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || writer::run(connection, jobs, &telemetry))
            .map_err(|error| JournalError::NotWritten(error.to_string()))?;
        let thread = Arc::new(Mutex::new(Some(thread)));
        Ok((Journal { queue, sealer, instance: instance.into(), thread }, tasks))
    }

    /// Identity of this agent, stable over restarts.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Writes one entry; returns only once it is durable.
    ///
    /// **Cancel**: dropping the future leaves it unknown whether it was written. **Repeat**: appends once more, which
    /// replay refuses for everything but checkpoints and equal reports.
    pub(crate) async fn append(&self, task: &str, entry: &Entry) -> Result<(), JournalError> {
        let plain = serde_json::to_vec(entry).map_err(|error| JournalError::NotWritten(error.to_string()))?;
        let body = self.sealer.seal(&aad(task, entry.kind()), &plain);
        let (done, written) = oneshot::channel();
        let job = writer::Job { task: task.to_owned(), kind: entry.kind(), body, done };
        let closed = || JournalError::NotWritten("the writer has ended".to_owned());
        self.queue.send(job).await.map_err(|_| closed())?;
        written.await.map_err(|_| closed())?.map_err(JournalError::NotWritten)
    }

    /// Ends the writer after everything queued is durable. Blocks.
    pub(crate) fn close(self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(self.queue);
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the journal's writer panicked");
        }
    }
}

/// Binds a body to its place, so that bodies cannot be swapped on disk.
fn aad(task: &str, kind: i64) -> Vec<u8> {
    format!("delegate journal v{VERSION} {kind} {task}").into_bytes()
}

/// Checks the version, makes the schema, returns the instance id.
fn prepare(connection: &Connection, path: &Path) -> Result<String, JournalError> {
    let unreadable = |source| JournalError::Unreadable { path: path.to_owned(), source };
    // Another process never has it open (the data directory is locked), but an administrator may look into it.
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(unreadable)?;
    // The cache is small on purpose: the journal is written, hardly ever read.
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-256; PRAGMA temp_store=MEMORY;",
        )
        .map_err(unreadable)?;
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(unreadable)?;
    if found > VERSION {
        return Err(JournalError::Newer { path: path.to_owned(), found });
    }
    if found == 0 {
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))
            .map_err(unreadable)?;
        if tables > 0 {
            let problem = "it is a database of something else".to_owned();
            return Err(JournalError::Damaged {
                path: path.to_owned(),
                entry: 0,
                task: String::new(),
                problem,
            });
        }
        let instance = proto::ids::Id::from_bytes(rand::random());
        connection
            .execute_batch(&format!(
                "BEGIN;
                 CREATE TABLE entries (lsn INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, kind INTEGER NOT NULL, body BLOB NOT NULL);
                 CREATE INDEX entries_of_task ON entries (task);
                 CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
                 INSERT INTO meta VALUES ('instance', '{instance}');
                 PRAGMA user_version = {VERSION};
                 COMMIT;"
            ))
            .map_err(unreadable)?;
    }
    connection
        .query_row("SELECT value FROM meta WHERE key = 'instance'", [], |row| row.get(0))
        .map_err(unreadable)
}

fn replay(
    connection: &Connection,
    path: &Path,
    sealer: &Sealer,
) -> Result<BTreeMap<String, TaskState>, JournalError> {
    let unreadable = |source| JournalError::Unreadable { path: path.to_owned(), source };
    let mut select =
        connection.prepare("SELECT lsn, task, kind, body FROM entries ORDER BY lsn").map_err(unreadable)?;
    let mut rows = select.query([]).map_err(unreadable)?;
    let mut tasks: BTreeMap<String, TaskState> = BTreeMap::new();
    while let Some(row) = rows.next().map_err(unreadable)? {
        let entry: i64 = row.get(0).map_err(unreadable)?;
        let task: String = row.get(1).map_err(unreadable)?;
        let kind: i64 = row.get(2).map_err(unreadable)?;
        let body: Vec<u8> = row.get(3).map_err(unreadable)?;
        let damaged = |problem: String| JournalError::Damaged {
            path: path.to_owned(),
            entry,
            task: task.clone(),
            problem,
        };
        let plain = sealer
            .open(&aad(&task, kind), &body)
            .ok_or_else(|| damaged("it was sealed with another key, or altered".to_owned()))?;
        let fact: Entry = serde_json::from_slice(&plain).map_err(|error| {
            damaged(format!("it cannot be parsed (line {}, column {})", error.line(), error.column()))
        })?;
        let state = tasks.remove(&task).unwrap_or_default();
        let next = state.apply(fact).map_err(|illegal| damaged(illegal.to_string()))?;
        tasks.insert(task, next);
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests;
