//! The embedded backend: one file, one writer thread with group commit, a few readers (ADR 0001).
//!
//! ```text
//! callers ──job──▶ writer thread: BEGIN; each job in a savepoint; COMMIT (one fsync) ──▶ changes ──▶ answers
//! callers ──────▶ readers (WAL: they never wait for the writer)
//! ```
//! Every document that can hold data of an execution is sealed with the manager's key before it reaches SQLite; what
//! the store selects by stands in clear columns.

mod agents;
mod claims;
mod credentials;
mod documents;
mod entities;
mod executions;
mod readers;
mod schema;
mod tasks;
mod trigger_events;
mod writer;

use super::changes::{Change, Changes};
use super::{
    Acquire, Agent, Answered, Applied, Claim, Credential, DueTimer, Effect, Entity, ExecutionRow, Millis,
    NewTask, NextState, Snapshot, Store, StoreError, TaskRow, TriggerEvent,
};
use crate::secrets::ManagerKey;
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Name of the fact that names the key the documents are sealed with ([`ManagerKey::id`]).
pub const KEY_ID_FACT: &str = "manager.key.id";

/// How long SQLite waits for a lock of another process (a backup tool) before it gives up.
const BUSY: Duration = Duration::from_secs(10);

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::Backend(error.to_string())
    }
}

/// The store in one SQLite file.
pub struct SqliteStore {
    // Closed in this order: the writer, as the last connection, folds the write-ahead log into the database.
    readers: readers::Readers,
    writer: writer::Writer,
    key: Arc<ManagerKey>,
}

/// What a reading or writing operation works with.
struct Session<'a> {
    conn: &'a Connection,
    key: &'a ManagerKey,
}

/// The key id that the database at `path` names; `None` for a database that is not there or has sealed nothing yet.
///
/// Asked before the key is opened, so that a missing key file is never replaced while sealed rows exist.
pub fn key_id(path: &Path) -> Result<Option<String>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let conn = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.busy_timeout(BUSY)?;
    if schema::version(&conn)? == 0 {
        return Ok(None);
    }
    Ok(conn
        .query_row("SELECT value FROM fact WHERE name = ?1", [KEY_ID_FACT], |row| row.get(0))
        .optional()?)
}

impl SqliteStore {
    /// Opens or creates the database.
    ///
    /// **Errors**: `TooNew`; `Backend` when the file is no database, cannot be written, or names another key than `key`.
    pub fn open(path: &Path, key: Arc<ManagerKey>, changes: Arc<Changes>) -> Result<Self, StoreError> {
        // SQLite would make the file readable for others; its side files take the mode of the database.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| StoreError::Backend(e.to_string()))?;
        let mut conn = Connection::open(path)?;
        conn.busy_timeout(BUSY)?;
        schema::prepare(&mut conn)?;
        let named: Option<String> = conn
            .query_row("SELECT value FROM fact WHERE name = ?1", [KEY_ID_FACT], |row| row.get(0))
            .optional()?;
        match named {
            Some(id) if id != key.id() => {
                return Err(StoreError::Backend("the database was sealed with another key".to_owned()));
            }
            Some(_) => {}
            None => {
                conn.execute(
                    "INSERT INTO fact (name, value) VALUES (?1, ?2)",
                    params![KEY_ID_FACT, key.id()],
                )?;
            }
        }
        let readers = readers::Readers::open(path)?;
        let writer = writer::Writer::start(conn, Arc::clone(&key), changes)?;
        Ok(SqliteStore { writer, readers, key })
    }

    async fn write<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut writer::Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.run(run).await
    }

    async fn read<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Session<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.readers.run(Arc::clone(&self.key), run).await
    }
}

/// SQLite's integers are signed; ours never reach the sign.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The other way; a negative one cannot have been written by us.
fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[async_trait]
impl Store for SqliteStore {
    async fn apply_entity(&self, entity: Entity) -> Result<Applied, StoreError> {
        self.write(move |tx| {
            tx.changed(Change::Entities);
            entities::apply(&tx.session(), &entity)
        })
        .await
    }

    async fn entity(&self, kind: &str, scope: &str, id: &str) -> Result<Option<Entity>, StoreError> {
        let (kind, scope, id) = (kind.to_owned(), scope.to_owned(), id.to_owned());
        self.read(move |s| entities::one(s, &kind, &scope, &id)).await
    }

    async fn entities(&self, kind: &str) -> Result<Vec<Entity>, StoreError> {
        let kind = kind.to_owned();
        self.read(move |s| entities::all(s, &kind)).await
    }

    async fn delete_entity(&self, kind: &str, scope: &str, id: &str) -> Result<(), StoreError> {
        let (kind, scope, id) = (kind.to_owned(), scope.to_owned(), id.to_owned());
        self.write(move |tx| {
            tx.changed(Change::Entities);
            entities::delete(&tx.session(), &kind, &scope, &id)
        })
        .await
    }

    async fn put_secret(&self, id: &str, sealed: Vec<u8>, now: Millis) -> Result<Applied, StoreError> {
        let id = id.to_owned();
        self.write(move |tx| entities::put_secret(&tx.session(), &id, &sealed, now)).await
    }

    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let id = id.to_owned();
        self.read(move |s| entities::secret(s, &id)).await
    }

    async fn secrets(&self) -> Result<Vec<(String, Millis)>, StoreError> {
        self.read(entities::secrets).await
    }

    async fn delete_secret(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write(move |tx| entities::delete_secret(&tx.session(), &id)).await
    }

    async fn add_credential(&self, credential: Credential) -> Result<(), StoreError> {
        self.write(move |tx| credentials::add(tx, &credential)).await
    }

    async fn credentials(&self, kind: &str) -> Result<Vec<Credential>, StoreError> {
        let kind = kind.to_owned();
        self.read(move |s| credentials::all(s, &kind)).await
    }

    async fn credential_by_hash(&self, kind: &str, hash: &str) -> Result<Option<Credential>, StoreError> {
        let (kind, hash) = (kind.to_owned(), hash.to_owned());
        self.read(move |s| credentials::by_hash(s, &kind, &hash)).await
    }

    async fn revoke_credential(&self, kind: &str, name: &str, now: Millis) -> Result<(), StoreError> {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        self.write(move |tx| credentials::revoke(tx, &kind, &name, now)).await
    }

    async fn learn_host_key(&self, host: &str, key: &str, now: Millis) -> Result<Applied, StoreError> {
        let (host, key) = (host.to_owned(), key.to_owned());
        self.write(move |tx| credentials::learn_host_key(&tx.session(), &host, &key, now)).await
    }

    async fn accept_host_key(&self, host: &str, key: &str, now: Millis) -> Result<(), StoreError> {
        let (host, key) = (host.to_owned(), key.to_owned());
        self.write(move |tx| credentials::accept_host_key(&tx.session(), &host, &key, now)).await
    }

    async fn host_keys(&self, host: Option<&str>) -> Result<Vec<(String, String, Millis)>, StoreError> {
        let host = host.map(str::to_owned);
        self.read(move |s| credentials::host_keys(s, host.as_deref())).await
    }

    async fn forget_host_key(&self, host: &str) -> Result<(), StoreError> {
        let host = host.to_owned();
        self.write(move |tx| credentials::forget_host_key(&tx.session(), &host)).await
    }

    async fn put_agent(&self, agent: Agent) -> Result<(), StoreError> {
        self.write(move |tx| agents::put(&tx.session(), &agent)).await
    }

    async fn find_agent(
        &self,
        instance_id: &str,
        host_name: &str,
        ip: &str,
    ) -> Result<Option<Agent>, StoreError> {
        let (instance, host, ip) = (instance_id.to_owned(), host_name.to_owned(), ip.to_owned());
        self.read(move |s| agents::find(s, &instance, &host, &ip)).await
    }

    async fn agent(&self, id: &str) -> Result<Option<Agent>, StoreError> {
        let id = id.to_owned();
        self.read(move |s| agents::one(s, &id)).await
    }

    async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        self.read(agents::all).await
    }

    async fn enqueue(&self, task: NewTask) -> Result<(), StoreError> {
        self.write(move |tx| tasks::enqueue(tx, task)).await
    }

    async fn queued_tasks(&self, limit: u32) -> Result<Vec<TaskRow>, StoreError> {
        self.read(move |s| tasks::list(s, tasks::Which::Queued(limit))).await
    }

    async fn tasks_of_agent(&self, agent_id: &str) -> Result<Vec<TaskRow>, StoreError> {
        let agent = agent_id.to_owned();
        self.read(move |s| tasks::list(s, tasks::Which::OfAgent(&agent))).await
    }

    async fn tasks_of_execution(&self, execution_id: &str) -> Result<Vec<TaskRow>, StoreError> {
        let execution = execution_id.to_owned();
        self.read(move |s| tasks::list(s, tasks::Which::OfExecution(&execution))).await
    }

    async fn task(&self, id: &str) -> Result<Option<TaskRow>, StoreError> {
        let id = id.to_owned();
        self.read(move |s| tasks::one(s, &id)).await
    }

    async fn task_ends(&self, ids: Vec<String>) -> Result<Vec<TaskRow>, StoreError> {
        self.read(move |s| ids.iter().filter_map(|id| tasks::end_of(s, id).transpose()).collect()).await
    }

    async fn acquire(
        &self,
        id: &str,
        agent_id: &str,
        instance_id: &str,
        now: Millis,
    ) -> Result<Acquire, StoreError> {
        let (id, agent, instance) = (id.to_owned(), agent_id.to_owned(), instance_id.to_owned());
        self.write(move |tx| tasks::acquire(tx, &id, &agent, &instance, now)).await
    }

    async fn answer(
        &self,
        id: &str,
        agent_id: &str,
        fence: u64,
        result: Value,
        now: Millis,
    ) -> Result<Answered, StoreError> {
        let (id, agent) = (id.to_owned(), agent_id.to_owned());
        self.write(move |tx| tasks::answer(tx, &id, &agent, fence, result, now)).await
    }

    async fn progress(&self, id: &str, agent_id: &str, progress: Value) -> Result<(), StoreError> {
        let (id, agent) = (id.to_owned(), agent_id.to_owned());
        self.write(move |tx| tasks::progress(tx, &id, &agent, &progress)).await
    }

    async fn checkpoint(
        &self,
        id: &str,
        agent_id: &str,
        fence: u64,
        checkpoint: Value,
    ) -> Result<(), StoreError> {
        let (id, agent) = (id.to_owned(), agent_id.to_owned());
        self.write(move |tx| tasks::checkpoint(tx, &id, &agent, fence, &checkpoint)).await
    }

    async fn checkpoints(&self, id: &str) -> Result<Vec<Value>, StoreError> {
        let id = id.to_owned();
        self.read(move |s| tasks::checkpoints(s, &id)).await
    }

    async fn end_queued(&self, id: &str, result: Value, now: Millis) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.write(move |tx| tasks::end_queued(tx, &id, &result, now)).await
    }

    async fn open_tasks(&self) -> Result<Vec<(i64, TaskRow)>, StoreError> {
        self.read(tasks::open).await
    }

    async fn news(&self, limit: u32) -> Result<Vec<TaskRow>, StoreError> {
        self.read(move |s| tasks::list(s, tasks::Which::News(limit))).await
    }

    async fn create_execution(
        &self,
        id: &str,
        pipeline: &str,
        rehearsal: Option<u32>,
        started_by: &str,
        now: Millis,
        build: Box<dyn FnOnce(u64) -> Result<Value, String> + Send>,
    ) -> Result<ExecutionRow, StoreError> {
        let (id, pipeline, by) = (id.to_owned(), pipeline.to_owned(), started_by.to_owned());
        self.write(move |tx| executions::create(tx, id, pipeline, rehearsal, by, now, build)).await
    }

    async fn snapshot(&self, execution_id: &str) -> Result<Option<Snapshot>, StoreError> {
        let id = execution_id.to_owned();
        self.read(move |s| executions::snapshot(s, &id)).await
    }

    async fn transition(
        &self,
        execution_id: &str,
        expected_version: u64,
        event: Value,
        state: NextState,
        effects: Vec<Effect>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let id = execution_id.to_owned();
        self.write(move |tx| executions::transition(tx, &id, expected_version, &event, state, effects, now))
            .await
    }

    async fn events(&self, execution_id: &str) -> Result<Vec<Value>, StoreError> {
        let id = execution_id.to_owned();
        self.read(move |s| executions::events(s, &id)).await
    }

    async fn execution(&self, id: &str) -> Result<Option<ExecutionRow>, StoreError> {
        let id = id.to_owned();
        self.read(move |s| executions::one(s, &id)).await
    }

    async fn executions(&self, pipeline: Option<&str>, limit: u32) -> Result<Vec<ExecutionRow>, StoreError> {
        let pipeline = pipeline.map(str::to_owned);
        self.read(move |s| executions::list(s, pipeline.as_deref(), limit)).await
    }

    async fn open_executions(&self) -> Result<Vec<String>, StoreError> {
        self.read(executions::open).await
    }

    async fn claims(&self, key: &str) -> Result<Vec<Claim>, StoreError> {
        let key = key.to_owned();
        self.read(move |s| claims::list(s, &key)).await
    }

    async fn due_timers(&self, now: Millis) -> Result<Vec<DueTimer>, StoreError> {
        self.read(move |s| executions::due_timers(s, now)).await
    }

    async fn next_timer(&self) -> Result<Option<Millis>, StoreError> {
        self.read(executions::next_timer).await
    }

    async fn add_trigger_event(&self, event: TriggerEvent) -> Result<bool, StoreError> {
        self.write(move |tx| trigger_events::add(&tx.session(), &event)).await
    }

    async fn finish_trigger_event(&self, event: TriggerEvent) -> Result<(), StoreError> {
        self.write(move |tx| trigger_events::finish(&tx.session(), &event)).await
    }

    async fn trigger_event(&self, id: &str) -> Result<Option<TriggerEvent>, StoreError> {
        let id = id.to_owned();
        self.read(move |s| trigger_events::one(s, &id)).await
    }

    async fn trigger_events(&self, of: (&str, &str), limit: u32) -> Result<Vec<TriggerEvent>, StoreError> {
        let (pipeline, trigger) = (of.0.to_owned(), of.1.to_owned());
        self.read(move |s| trigger_events::list(s, &pipeline, &trigger, limit)).await
    }

    async fn open_trigger_events(&self, limit: u32) -> Result<Vec<TriggerEvent>, StoreError> {
        self.read(move |s| trigger_events::open(s, limit)).await
    }

    async fn get_fact(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.read(move |s| entities::fact(s, &name)).await
    }

    async fn put_fact(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.write(move |tx| entities::put_fact(&tx.session(), &name, &value)).await
    }

    async fn facts(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |s| entities::facts(s, &prefix)).await
    }

    async fn drop_fact(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |tx| entities::drop_fact(&tx.session(), &name)).await
    }
}

#[cfg(test)]
mod tests;
