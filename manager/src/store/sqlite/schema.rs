//! Tables and their migrations.

use super::StoreError;
use rusqlite::Connection;

/// Each step brings the schema from its index to the next version. Steps are never edited once released, only added.
const STEPS: [&str; 5] = [V1, V2, V3, V4, V5];

const V1: &str = "
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE entity (
  kind TEXT NOT NULL, scope TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, yaml TEXT NOT NULL,
  updated_at INTEGER NOT NULL, PRIMARY KEY (kind, id, scope));
CREATE TABLE secret (id TEXT PRIMARY KEY, sealed BLOB NOT NULL, updated_at INTEGER NOT NULL);
CREATE TABLE credential (
  n INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL, sealed BLOB NOT NULL,
  owner TEXT NOT NULL, created_at INTEGER NOT NULL, revoked_at INTEGER);
CREATE UNIQUE INDEX credential_name ON credential (kind, name) WHERE revoked_at IS NULL;
CREATE INDEX credential_hash ON credential (kind, hash);
CREATE TABLE host_key (
  host TEXT NOT NULL, key TEXT NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (host, key)) WITHOUT ROWID;
CREATE TABLE agent (
  id TEXT PRIMARY KEY, instance_id TEXT NOT NULL, host_name TEXT NOT NULL, ip TEXT NOT NULL, doc TEXT NOT NULL);
CREATE INDEX agent_instance ON agent (instance_id) WHERE instance_id <> '';
CREATE INDEX agent_host ON agent (host_name, ip) WHERE instance_id = '';
CREATE TABLE task (
  n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, execution_id TEXT NOT NULL, node TEXT NOT NULL,
  attempt INTEGER NOT NULL, task_type TEXT NOT NULL, head TEXT NOT NULL, data BLOB NOT NULL,
  created_at INTEGER NOT NULL, status INTEGER NOT NULL, agent_id TEXT, instance_id TEXT, fence INTEGER NOT NULL,
  assigned_at INTEGER, ended_at INTEGER, abort TEXT, result BLOB, progress BLOB, seen INTEGER NOT NULL);
CREATE INDEX task_open ON task (status, n) WHERE status < 2;
CREATE INDEX task_agent ON task (agent_id, n) WHERE status = 1;
CREATE INDEX task_node ON task (execution_id, node, attempt);
CREATE INDEX task_news ON task (n) WHERE seen < status AND execution_id <> '';
CREATE TABLE late_answer (
  task_id TEXT NOT NULL, k INTEGER NOT NULL, agent_id TEXT NOT NULL, fence INTEGER NOT NULL, result BLOB NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY (task_id, k)) WITHOUT ROWID;
CREATE TABLE checkpoint (
  task_id TEXT NOT NULL, k INTEGER NOT NULL, fence INTEGER NOT NULL, doc BLOB NOT NULL, PRIMARY KEY (task_id, k));
CREATE TABLE sequence (pipeline TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE execution (
  n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, pipeline TEXT NOT NULL, sequence_id INTEGER NOT NULL,
  status TEXT NOT NULL, ended INTEGER NOT NULL, rehearsal INTEGER, started_by TEXT NOT NULL,
  created_at INTEGER NOT NULL, ended_at INTEGER, version INTEGER NOT NULL, state BLOB NOT NULL);
CREATE INDEX execution_open ON execution (n) WHERE ended = 0;
CREATE INDEX execution_pipeline ON execution (pipeline, n);
CREATE TABLE event (
  execution_id TEXT NOT NULL, version INTEGER NOT NULL, at INTEGER NOT NULL, doc BLOB NOT NULL,
  PRIMARY KEY (execution_id, version));
CREATE TABLE timer (
  execution_id TEXT NOT NULL, timer TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (execution_id, timer))
  WITHOUT ROWID;
CREATE INDEX timer_at ON timer (at);
";

/// What transitions changed in the state of an execution since it was last written whole.
const V2: &str = "
CREATE TABLE state_part (
  execution_id TEXT NOT NULL, version INTEGER NOT NULL, doc BLOB NOT NULL, PRIMARY KEY (execution_id, version));
";

/// Roles and users of API keys. Keys from before could do everything, and still can.
const V3: &str = "
ALTER TABLE credential ADD COLUMN role TEXT NOT NULL DEFAULT '';
ALTER TABLE credential ADD COLUMN user_id TEXT NOT NULL DEFAULT '';
UPDATE credential SET role = 'admin' WHERE kind = 'apikey';
";

/// What came in for triggers, and what became of it.
const V4: &str = "
CREATE TABLE trigger_event (
  n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, pipeline TEXT NOT NULL, trigger_id TEXT NOT NULL,
  at INTEGER NOT NULL, done INTEGER NOT NULL, doc BLOB NOT NULL);
CREATE INDEX trigger_event_open ON trigger_event (n) WHERE done = 0;
CREATE INDEX trigger_event_of ON trigger_event (pipeline, trigger_id, n);
";

/// Who holds an infrastructure and who waits for it, in the order of arrival.
const V5: &str = "
CREATE TABLE claim (
  n INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, execution_id TEXT NOT NULL, node TEXT NOT NULL,
  at INTEGER NOT NULL, UNIQUE (execution_id, node));
CREATE INDEX claim_key ON claim (key, n);
";

/// The version of this build.
pub(super) fn known() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// The version in the file; 0 for an empty one.
pub(super) fn version(conn: &Connection) -> Result<i64, StoreError> {
    Ok(conn.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Sets the connection up and brings the schema to this build's version, in one transaction.
pub(super) fn prepare(conn: &mut Connection) -> Result<(), StoreError> {
    let found = version(conn)?;
    if found > known() {
        return Err(StoreError::TooNew { found, known: known() });
    }
    // WAL lets readers go on beside the writer; FULL makes each commit durable before it is answered.
    let _mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    let tx = conn.transaction()?;
    for (at, step) in (0_i64..).zip(STEPS) {
        if at >= found {
            tx.execute_batch(step)?;
        }
    }
    tx.pragma_update(None, "user_version", known())?;
    tx.commit()?;
    Ok(())
}
