//! The one writer: collects what waits, commits it together, then tells everybody.

use super::{Session, StoreError};
use crate::secrets::ManagerKey;
use crate::store::changes::{Change, Changes};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Jobs that may wait. Callers are HTTP requests and the engine; each waits for its answer, so this bounds memory, not
/// throughput.
const WAITING: usize = 1024;

/// Jobs in one commit: more would make the first of them wait longer than one fsync.
const BATCH: usize = 256;

/// What a job writes with.
pub(super) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    key: &'a ManagerKey,
    changes: Vec<Change>,
}

impl Tx<'_> {
    /// The part that reads and seals.
    pub(super) fn session(&self) -> Session<'_> {
        Session { conn: self.conn, key: self.key }
    }

    /// Told to everybody once this job is committed.
    pub(super) fn changed(&mut self, change: Change) {
        self.changes.push(change);
    }
}

/// Called after the commit with `None`, or with why it failed.
type Reply = Box<dyn FnOnce(Option<&str>) + Send>;
/// Given the open transaction, or why there is none.
type Job = Box<dyn FnOnce(Result<(&Connection, &ManagerKey), &str>) -> (Vec<Change>, Reply) + Send>;

/// Handle of the writer thread; the thread ends after what was accepted is committed, when this is dropped.
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    #[cfg_attr(not(test), expect(dead_code, reason = "Tests count commits."))]
    commits: Arc<AtomicU64>,
}

impl Writer {
    pub(super) fn start(
        conn: Connection,
        key: Arc<ManagerKey>,
        changes: Arc<Changes>,
    ) -> Result<Self, StoreError> {
        let (jobs, inbox) = mpsc::channel(WAITING);
        let commits = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&commits);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || serve(&conn, inbox, &key, &changes, &counted))
            .map_err(|e| StoreError::Backend(format!("the writer thread does not start: {e}")))?;
        Ok(Writer { jobs: Some(jobs), thread: Some(thread), commits })
    }

    /// Commits so far.
    #[cfg(test)]
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Runs `run` in a savepoint of the next commit. Its effect is durable when this returns `Ok`.
    ///
    /// **Cancel**: dropped while waiting, the job may still be committed.
    pub(super) async fn run<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |begun| {
            let (outcome, changes) = match begun {
                Ok((conn, key)) => in_savepoint(conn, key, run),
                Err(why) => (Err(StoreError::Backend(format!("no transaction: {why}"))), vec![]),
            };
            let reply: Reply = Box::new(move |failed| {
                let outcome = match failed {
                    None => outcome,
                    Some(why) => outcome.and(Err(StoreError::Backend(format!("commit failed: {why}")))),
                };
                // A caller that went away does not need the answer.
                let _gone = answer.send(outcome);
            });
            (changes, reply)
        });
        let gone = || StoreError::Backend("the writer has ended".to_owned());
        self.jobs.as_ref().ok_or_else(gone)?.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has been reported by the panic hook already.
            let _ended = thread.join();
        }
    }
}

/// One job in a savepoint, so that its failure does not undo its neighbours.
fn in_savepoint<T, F>(conn: &Connection, key: &ManagerKey, run: F) -> (Result<T, StoreError>, Vec<Change>)
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
{
    if let Err(error) = execute(conn, "SAVEPOINT job") {
        return (Err(error.into()), vec![]);
    }
    let mut tx = Tx { conn, key, changes: vec![] };
    // Jobs carry closures of other modules (`create_execution`); a panic there must not take the store down.
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut tx)))
        .unwrap_or_else(|_| Err(StoreError::Backend("the operation panicked".to_owned())));
    let changes = std::mem::take(&mut tx.changes);
    match outcome {
        Ok(value) => match execute(conn, "RELEASE job") {
            Ok(()) => (Ok(value), changes),
            Err(error) => (Err(error.into()), vec![]),
        },
        Err(error) => {
            // If even this fails the whole transaction is gone, which `serve` sees.
            let _undone = execute(conn, "ROLLBACK TO job").and_then(|()| execute(conn, "RELEASE job"));
            (Err(error), vec![])
        }
    }
}

fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}

/// SQLite gives the whole transaction up by itself on a full disk or an I/O error.
fn still_open(conn: &Connection) -> Result<(), String> {
    match conn.is_autocommit() {
        true => Err("the database gave the transaction up (disk full?)".to_owned()),
        false => Ok(()),
    }
}

fn serve(
    conn: &Connection,
    mut inbox: mpsc::Receiver<Job>,
    key: &ManagerKey,
    changes: &Changes,
    commits: &AtomicU64,
) {
    conn.set_prepared_statement_cache_capacity(128);
    while let Some(first) = inbox.blocking_recv() {
        let mut done = Vec::new();
        let mut committed = execute(conn, "BEGIN IMMEDIATE").map_err(|e| e.to_string());
        let mut next = Some(first);
        while let Some(job) = next {
            // A savepoint without a transaction around it would commit by itself, and its caller be told that it failed.
            committed = committed.and_then(|()| still_open(conn));
            done.push(job(committed.as_ref().map(|()| (conn, key)).map_err(String::as_str)));
            next = if done.len() < BATCH { inbox.try_recv().ok() } else { None };
        }
        committed = committed
            .and_then(|()| still_open(conn))
            .and_then(|()| execute(conn, "COMMIT").map_err(|e| e.to_string()));
        if !conn.is_autocommit() {
            // After a failed COMMIT nothing of the batch may stay.
            let _undone = execute(conn, "ROLLBACK");
        }
        match committed {
            Ok(()) => {
                commits.fetch_add(1, Ordering::Relaxed);
                let mut replies = Vec::with_capacity(done.len());
                for (told, reply) in done {
                    told.into_iter().for_each(|change| changes.publish(change));
                    replies.push(reply);
                }
                replies.into_iter().for_each(|reply| reply(None));
            }
            Err(why) => done.into_iter().for_each(|(_, reply)| reply(Some(&why))),
        }
    }
}
