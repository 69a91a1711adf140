//! The task queue's rows.

use super::writer::Tx;
use super::{Session, StoreError, int, uint};
use crate::store::changes::Change;
use crate::store::{Acquire, Answered, Millis, NewTask, TaskRow, TaskStatus};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// Late answers kept of one task. A client that repeats itself for ever must not fill the disk.
const LATE_ANSWERS: u64 = 8;

const COLUMNS: &str = "SELECT n, id, execution_id, node, attempt, task_type, head, created_at, status, agent_id, \
                       instance_id, fence, assigned_at, ended_at, abort, data, result, progress FROM task";
/// The same shape with the sealed parts left out.
const HEADS: &str = "SELECT n, id, execution_id, node, attempt, task_type, head, created_at, status, agent_id, \
                     instance_id, fence, assigned_at, ended_at, abort, NULL, NULL, NULL FROM task";

/// The same shape with nothing sealed but the answer.
const ENDS: &str = "SELECT n, id, execution_id, node, attempt, task_type, head, created_at, status, agent_id, \
                    instance_id, fence, assigned_at, ended_at, abort, NULL, result, NULL FROM task";

/// What the queue reads but SQLite never selects by.
#[derive(Serialize, Deserialize)]
struct Head {
    selectors: Value,
    secrets: Vec<String>,
    timeout_ms: u64,
    affinity: String,
    abstractions: Vec<(String, String)>,
}

/// A row before its sealed parts are opened.
struct Raw {
    order: i64,
    row: TaskRow,
    head: String,
    data: Option<Vec<u8>>,
    result: Option<Vec<u8>>,
    progress: Option<Vec<u8>>,
}

pub(super) fn code(status: TaskStatus) -> i64 {
    match status {
        TaskStatus::Queued => 0,
        TaskStatus::Assigned => 1,
        TaskStatus::Ended => 2,
    }
}

fn status(code: i64) -> TaskStatus {
    match code {
        0 => TaskStatus::Queued,
        1 => TaskStatus::Assigned,
        _ => TaskStatus::Ended,
    }
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        order: row.get(0)?,
        head: row.get(6)?,
        data: row.get(15)?,
        result: row.get(16)?,
        progress: row.get(17)?,
        row: TaskRow {
            task: NewTask {
                id: row.get(1)?,
                execution_id: row.get(2)?,
                node: row.get(3)?,
                attempt: row.get(4)?,
                task_type: row.get(5)?,
                selectors: Value::Null,
                secrets: vec![],
                timeout_ms: 0,
                affinity: String::new(),
                data: String::new(),
                abstractions: vec![],
                created_at: uint(row.get(7)?),
            },
            status: status(row.get(8)?),
            agent_id: row.get(9)?,
            instance_id: row.get(10)?,
            fence: uint(row.get(11)?),
            assigned_at: row.get::<_, Option<i64>>(12)?.map(uint),
            ended_at: row.get::<_, Option<i64>>(13)?.map(uint),
            abort: row.get(14)?,
            result: None,
            progress: None,
        },
    })
}

fn open_raw(s: &Session<'_>, raw: Raw) -> Result<(i64, TaskRow), StoreError> {
    let Raw { order, mut row, head, data, result, progress } = raw;
    let head: Head = serde_json::from_str(&head)
        .map_err(|e| StoreError::Backend(format!("task {} cannot be read: {e}", row.task.id)))?;
    row.task.selectors = head.selectors;
    row.task.secrets = head.secrets;
    row.task.timeout_ms = head.timeout_ms;
    row.task.affinity = head.affinity;
    row.task.abstractions = head.abstractions;
    if let Some(data) = data {
        row.task.data = s.open_text("task.data", &row.task.id, &data)?;
    }
    row.result = result.map(|sealed| s.open("task.result", &row.task.id, &sealed)).transpose()?;
    row.progress = progress.map(|sealed| s.open("task.progress", &row.task.id, &sealed)).transpose()?;
    Ok((order, row))
}

/// Which tasks to list; always in the order of creation.
pub(super) enum Which<'a> {
    Queued(u32),
    OfAgent(&'a str),
    OfExecution(&'a str),
    News(u32),
}

pub(super) fn list(s: &Session<'_>, which: Which<'_>) -> Result<Vec<TaskRow>, StoreError> {
    let raws: Vec<Raw> = match which {
        Which::Queued(limit) => s
            .conn
            .prepare_cached(&format!("{COLUMNS} WHERE status = 0 ORDER BY n LIMIT ?1"))?
            .query_map([limit], raw)?
            .collect::<Result<_, _>>()?,
        Which::OfAgent(agent) => s
            .conn
            .prepare_cached(&format!("{COLUMNS} WHERE status = 1 AND agent_id = ?1 ORDER BY n"))?
            .query_map([agent], raw)?
            .collect::<Result<_, _>>()?,
        Which::OfExecution(execution) => s
            .conn
            .prepare_cached(&format!("{COLUMNS} WHERE status < 2 AND execution_id = ?1 ORDER BY n"))?
            .query_map([execution], raw)?
            .collect::<Result<_, _>>()?,
        Which::News(limit) => s
            .conn
            .prepare_cached(&format!(
                "{COLUMNS} WHERE seen < status AND execution_id <> '' ORDER BY n LIMIT ?1"
            ))?
            .query_map([limit], raw)?
            .collect::<Result<_, _>>()?,
    };
    raws.into_iter().map(|raw| open_raw(s, raw).map(|(_, row)| row)).collect()
}

pub(super) fn open(s: &Session<'_>) -> Result<Vec<(i64, TaskRow)>, StoreError> {
    let raws: Vec<Raw> = s
        .conn
        .prepare_cached(&format!("{HEADS} WHERE status < 2 ORDER BY n"))?
        .query_map([], raw)?
        .collect::<Result<_, _>>()?;
    raws.into_iter().map(|raw| open_raw(s, raw)).collect()
}

pub(super) fn one(s: &Session<'_>, id: &str) -> Result<Option<TaskRow>, StoreError> {
    let found =
        s.conn.prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?.query_row([id], raw).optional()?;
    found.map(|raw| open_raw(s, raw).map(|(_, row)| row)).transpose()
}

/// The row without its sealed parts: what decisions need.
fn head_of(s: &Session<'_>, id: &str) -> Result<Option<TaskRow>, StoreError> {
    let found = s.conn.prepare_cached(&format!("{HEADS} WHERE id = ?1"))?.query_row([id], raw).optional()?;
    found.map(|raw| open_raw(s, raw).map(|(_, row)| row)).transpose()
}

/// The row with its answer: what the engine takes in.
pub(super) fn end_of(s: &Session<'_>, id: &str) -> Result<Option<TaskRow>, StoreError> {
    let found = s.conn.prepare_cached(&format!("{ENDS} WHERE id = ?1"))?.query_row([id], raw).optional()?;
    found.map(|raw| open_raw(s, raw).map(|(_, row)| row)).transpose()
}

pub(super) fn enqueue(tx: &mut Tx<'_>, mut task: NewTask) -> Result<(), StoreError> {
    let data = tx.session().seal_text("task.data", &task.id, task.data.as_bytes())?;
    let head = serde_json::to_string(&Head {
        selectors: task.selectors.clone(),
        secrets: task.secrets.clone(),
        timeout_ms: task.timeout_ms,
        affinity: task.affinity.clone(),
        abstractions: task.abstractions.clone(),
    })
    .map_err(|e| StoreError::Backend(e.to_string()))?;
    let inserted = tx
        .conn
        .prepare_cached(
            "INSERT INTO task (id, execution_id, node, attempt, task_type, head, data, created_at, status, fence, seen)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, 0) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            task.id,
            task.execution_id,
            task.node,
            task.attempt,
            task.task_type,
            head,
            data,
            int(task.created_at)
        ])?;
    if inserted == 0 {
        return Err(StoreError::Conflict { what: format!("task {}", task.id) });
    }
    let order = tx.conn.last_insert_rowid();
    task.data = String::new();
    tx.changed(Change::Queued { task: Arc::new(task), order });
    Ok(())
}

pub(super) fn acquire(
    tx: &mut Tx<'_>,
    id: &str,
    agent: &str,
    instance: &str,
    now: Millis,
) -> Result<Acquire, StoreError> {
    let Some(mut row) = one(&tx.session(), id)? else { return Ok(Acquire::NotYours) };
    if row.abort.is_some() {
        return Ok(Acquire::NotYours);
    }
    match row.status {
        TaskStatus::Ended => Ok(Acquire::NotYours),
        TaskStatus::Assigned => {
            let same = row.agent_id.as_deref() == Some(agent) && row.instance_id.as_deref() == Some(instance);
            Ok(if same { Acquire::Assigned(Box::new(row)) } else { Acquire::NotYours })
        }
        TaskStatus::Queued => {
            row.fence += 1;
            tx.conn
                .prepare_cached(
                    "UPDATE task SET status = 1, agent_id = ?2, instance_id = ?3, fence = ?4, assigned_at = ?5
                     WHERE id = ?1",
                )?
                .execute(params![id, agent, instance, int(row.fence), int(now)])?;
            row.status = TaskStatus::Assigned;
            row.agent_id = Some(agent.to_owned());
            row.instance_id = Some(instance.to_owned());
            row.assigned_at = Some(now);
            tx.changed(Change::Assigned {
                task: id.to_owned(),
                execution: row.task.execution_id.clone(),
                agent: agent.to_owned(),
                fence: row.fence,
                at: now,
            });
            Ok(Acquire::Assigned(Box::new(row)))
        }
    }
}

/// Whether `agent` holds the unanswered task under `fence` (0: the client knows no fences).
fn holds(row: &TaskRow, agent: &str, fence: u64) -> bool {
    row.status == TaskStatus::Assigned
        && row.agent_id.as_deref() == Some(agent)
        && (fence == 0 || fence == row.fence)
}

fn end(
    tx: &mut Tx<'_>,
    id: &str,
    execution: &str,
    result: Option<&Value>,
    now: Millis,
) -> Result<(), StoreError> {
    let sealed = result.map(|result| tx.session().seal("task.result", id, result)).transpose()?;
    tx.conn
        .prepare_cached("UPDATE task SET status = 2, result = ?2, ended_at = ?3 WHERE id = ?1")?
        .execute(params![id, sealed, int(now)])?;
    tx.changed(Change::Ended { task: id.to_owned(), execution: execution.to_owned() });
    Ok(())
}

pub(super) fn answer(
    tx: &mut Tx<'_>,
    id: &str,
    agent: &str,
    fence: u64,
    result: Value,
    now: Millis,
) -> Result<Answered, StoreError> {
    let Some(mut row) = head_of(&tx.session(), id)? else { return Ok(Answered::Unknown) };
    if holds(&row, agent, fence) {
        let execution = row.task.execution_id.clone();
        end(tx, id, &execution, Some(&result), now)?;
        row.status = TaskStatus::Ended;
        row.result = Some(result);
        row.ended_at = Some(now);
        return Ok(Answered::First(Box::new(row)));
    }
    keep_late(tx, id, agent, fence, &result, now)?;
    Ok(Answered::Late)
}

fn keep_late(
    tx: &mut Tx<'_>,
    id: &str,
    agent: &str,
    fence: u64,
    result: &Value,
    now: Millis,
) -> Result<(), StoreError> {
    // A repetition of the answer that counts, after a lost acknowledgement, is not worth keeping.
    if one(&tx.session(), id)?.and_then(|row| row.result).as_ref() == Some(result) {
        return Ok(());
    }
    let kept: i64 = tx
        .conn
        .prepare_cached("SELECT count(*) FROM late_answer WHERE task_id = ?1")?
        .query_row([id], |row| row.get(0))?;
    let kept = uint(kept);
    if kept < LATE_ANSWERS {
        let sealed = tx.session().seal("late_answer", &format!("{id}/{kept}"), result)?;
        tx.conn
            .prepare_cached(
                "INSERT INTO late_answer (task_id, k, agent_id, fence, result, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![id, int(kept), agent, int(fence), sealed, int(now)])?;
    }
    Ok(())
}

pub(super) fn end_queued(tx: &mut Tx<'_>, id: &str, result: &Value, now: Millis) -> Result<bool, StoreError> {
    match head_of(&tx.session(), id)? {
        Some(row) if row.status == TaskStatus::Queued => {
            end(tx, id, &row.task.execution_id, Some(result), now)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

pub(super) fn progress(tx: &mut Tx<'_>, id: &str, agent: &str, progress: &Value) -> Result<(), StoreError> {
    let Some(row) = head_of(&tx.session(), id)?.filter(|row| holds(row, agent, 0)) else { return Ok(()) };
    let sealed = tx.session().seal("task.progress", id, progress)?;
    tx.conn.prepare_cached("UPDATE task SET progress = ?2 WHERE id = ?1")?.execute(params![id, sealed])?;
    tx.changed(Change::Progress { task: id.to_owned(), execution: row.task.execution_id });
    Ok(())
}

pub(super) fn checkpoint(
    tx: &mut Tx<'_>,
    id: &str,
    agent: &str,
    fence: u64,
    checkpoint: &Value,
) -> Result<(), StoreError> {
    let held = head_of(&tx.session(), id)?.is_some_and(|row| holds(&row, agent, fence));
    if !held {
        return Err(StoreError::Conflict { what: format!("the assignment of task {id}") });
    }
    let stored = checkpoints(&tx.session(), id)?;
    if stored.last() == Some(checkpoint) {
        return Ok(());
    }
    let k = int(u64::try_from(stored.len()).unwrap_or(u64::MAX));
    let sealed = tx.session().seal("checkpoint", &format!("{id}/{k}"), checkpoint)?;
    tx.conn
        .prepare_cached("INSERT INTO checkpoint (task_id, k, fence, doc) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id, k, int(fence), sealed])?;
    Ok(())
}

pub(super) fn checkpoints(s: &Session<'_>, id: &str) -> Result<Vec<Value>, StoreError> {
    let rows: Vec<(i64, Vec<u8>)> = s
        .conn
        .prepare_cached("SELECT k, doc FROM checkpoint WHERE task_id = ?1 ORDER BY k")?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    rows.iter().map(|(k, doc)| s.open("checkpoint", &format!("{id}/{k}"), doc)).collect()
}

/// The effect `CancelTask`: a queued task ends at once without a result, an assigned one is marked.
pub(super) fn cancel(
    tx: &mut Tx<'_>,
    execution: &str,
    node: &str,
    attempt: u32,
    reason: &str,
    now: Millis,
) -> Result<(), StoreError> {
    let ids: Vec<String> = tx
        .conn
        .prepare_cached(
            "SELECT id FROM task WHERE execution_id = ?1 AND node = ?2 AND attempt = ?3 AND status < 2",
        )?
        .query_map(params![execution, node, attempt], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in ids {
        let Some(row) = head_of(&tx.session(), &id)? else { continue };
        if row.abort.is_none() {
            tx.conn
                .prepare_cached("UPDATE task SET abort = ?2 WHERE id = ?1")?
                .execute(params![id, reason])?;
        }
        match (row.status, row.agent_id) {
            (TaskStatus::Queued, _) => end(tx, &id, execution, None, now)?,
            (TaskStatus::Assigned, Some(agent)) if row.abort.is_none() => tx.changed(Change::AbortAsked {
                task: id,
                execution: execution.to_owned(),
                agent,
                reason: reason.to_owned(),
            }),
            _ => {}
        }
    }
    Ok(())
}

/// The effect `Seen`.
pub(super) fn seen(tx: &mut Tx<'_>, id: &str, status: TaskStatus) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached("UPDATE task SET seen = max(seen, ?2) WHERE id = ?1")?
        .execute(params![id, code(status)])?;
    Ok(())
}
