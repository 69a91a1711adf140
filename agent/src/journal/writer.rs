//! The thread that owns the database.

use crate::telemetry::Telemetry;
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

/// One entry to be made durable.
pub(super) struct Job {
    pub(super) task: String,
    pub(super) kind: i64,
    pub(super) body: Vec<u8>,
    pub(super) done: oneshot::Sender<Result<(), String>>,
}

/// So many entries share a commit at most; more would only make the first of them wait longer.
const MAX_BATCH: usize = 512;
/// Reports that are remembered, so that a late offer of a finished task is recognised after a restart.
const KEPT_REPORTS: i64 = 4096;
const REPORTED: i64 = 4;

/// Commits until every handle is gone.
pub(super) fn run(mut connection: Connection, mut jobs: mpsc::Receiver<Job>, telemetry: &Telemetry) {
    let mut batch = Vec::new();
    let mut reports = 0_u64;
    while let Some(first) = jobs.blocking_recv() {
        batch.push(first);
        while batch.len() < MAX_BATCH
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        reports += batch.iter().filter(|job| job.kind == REPORTED).count() as u64;
        let prune = reports >= 1024;
        let outcome = commit(&mut connection, &batch, prune).map_err(|error| error.to_string());
        if prune && outcome.is_ok() {
            reports = 0;
        }
        if let Err(error) = &outcome {
            tracing::error!(code = "AGT-003", error, "the journal cannot be written");
        }
        telemetry.journal_batch(batch.len());
        for job in batch.drain(..) {
            // Nobody waits any more when the task was dropped.
            let _unused = job.done.send(outcome.clone());
        }
        batch.shrink_to(64);
    }
    // Leaves one file behind instead of two; a failure costs nothing.
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::debug!(%error, "the journal's log was not folded in");
    }
}

/// One transaction. A reported task needs only the mark that it is over.
fn commit(connection: &mut Connection, batch: &[Job], prune: bool) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut insert =
            transaction.prepare_cached("INSERT INTO entries (task, kind, body) VALUES (?1, ?2, ?3)")?;
        let mut compact = transaction.prepare_cached("DELETE FROM entries WHERE task = ?1")?;
        for job in batch {
            if job.kind == REPORTED {
                compact.execute(params![job.task])?;
            }
            insert.execute(params![job.task, job.kind, job.body])?;
        }
        if prune {
            transaction.execute(
                "DELETE FROM entries WHERE kind = ?1 AND lsn <= (SELECT max(lsn) FROM entries) - ?2",
                params![REPORTED, KEPT_REPORTS],
            )?;
        }
    }
    transaction.commit()
}
