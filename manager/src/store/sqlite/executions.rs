//! Executions: state, events, timers.

use super::writer::Tx;
use super::{Session, StoreError, claims, entities, int, tasks, uint};
use crate::store::changes::Change;
use crate::store::{DueTimer, Effect, ExecutionRow, Millis, NextState, Part, Snapshot};
use rusqlite::{OptionalExtension, Row, params};
use serde_json::Value;

const COLUMNS: &str = "SELECT id, pipeline, sequence_id, status, ended, rehearsal, started_by, created_at, ended_at \
                       FROM execution";

fn row(row: &Row<'_>) -> rusqlite::Result<ExecutionRow> {
    Ok(ExecutionRow {
        id: row.get(0)?,
        pipeline: row.get(1)?,
        sequence_id: uint(row.get(2)?),
        status: row.get(3)?,
        ended: row.get(4)?,
        rehearsal: row.get(5)?,
        started_by: row.get(6)?,
        created_at: uint(row.get(7)?),
        ended_at: row.get::<_, Option<i64>>(8)?.map(uint),
    })
}

pub(super) fn create(
    tx: &mut Tx<'_>,
    id: String,
    pipeline: String,
    rehearsal: Option<u32>,
    started_by: String,
    now: Millis,
    build: Box<dyn FnOnce(u64) -> Result<Value, String> + Send>,
) -> Result<ExecutionRow, StoreError> {
    let sequence_id: i64 = tx
        .conn
        .prepare_cached(
            "INSERT INTO sequence (pipeline, last) VALUES (?1, 1)
             ON CONFLICT (pipeline) DO UPDATE SET last = last + 1 RETURNING last",
        )?
        .query_row([&pipeline], |row| row.get(0))?;
    let state = build(uint(sequence_id)).map_err(StoreError::Backend)?;
    let sealed = tx.session().seal("execution.state", &id, &state)?;
    let inserted = tx
        .conn
        .prepare_cached(
            "INSERT INTO execution (id, pipeline, sequence_id, status, ended, rehearsal, started_by, created_at,
             version, state) VALUES (?1, ?2, ?3, 'Running', 0, ?4, ?5, ?6, 0, ?7) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![id, pipeline, sequence_id, rehearsal, started_by, int(now), sealed])?;
    if inserted == 0 {
        return Err(StoreError::Conflict { what: format!("execution {id}") });
    }
    tx.changed(Change::Execution { id: id.clone(), version: 0, ended: false });
    Ok(ExecutionRow {
        id,
        pipeline,
        sequence_id: uint(sequence_id),
        status: "Running".to_owned(),
        ended: false,
        rehearsal,
        started_by,
        created_at: now,
        ended_at: None,
    })
}

pub(super) fn snapshot(s: &Session<'_>, id: &str) -> Result<Option<Snapshot>, StoreError> {
    // Both reads see the same commit; the transaction ends by being dropped.
    let reading = s.conn.unchecked_transaction()?;
    let found: Option<(i64, Vec<u8>)> = s
        .conn
        .prepare_cached("SELECT version, state FROM execution WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((version, sealed)) = found else { return Ok(None) };
    let mut state = s.open("execution.state", id, &sealed)?;
    let parts: Vec<(i64, Vec<u8>)> = s
        .conn
        .prepare_cached("SELECT version, doc FROM state_part WHERE execution_id = ?1 ORDER BY version")?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    drop(reading);
    for (at, sealed) in parts {
        let damaged =
            || StoreError::Backend(format!("version {at} of execution {id} cannot be put in place"));
        let parts = s.open("execution.part", &format!("{id}/{at}"), &sealed)?;
        let parts: Vec<Part> = serde_json::from_value(parts).map_err(|_| damaged())?;
        if !parts.into_iter().all(|part| part.put(&mut state)) {
            return Err(damaged());
        }
    }
    Ok(Some(Snapshot { version: uint(version), state }))
}

pub(super) fn transition(
    tx: &mut Tx<'_>,
    id: &str,
    expected: u64,
    event: &Value,
    state: NextState,
    effects: Vec<Effect>,
    now: Millis,
) -> Result<(), StoreError> {
    let version = expected + 1;
    let changed = match &state {
        NextState::Whole(state) => {
            let sealed = tx.session().seal("execution.state", id, state)?;
            tx.conn
                .prepare_cached(
                    "UPDATE execution SET state = ?3, version = ?4 WHERE id = ?1 AND version = ?2",
                )?
                .execute(params![id, int(expected), sealed, int(version)])?
        }
        NextState::Parts(_) => tx
            .conn
            .prepare_cached("UPDATE execution SET version = ?3 WHERE id = ?1 AND version = ?2")?
            .execute(params![id, int(expected), int(version)])?,
    };
    if changed == 0 {
        let what = format!("execution {id}");
        return Err(match one(&tx.session(), id)? {
            Some(_) => StoreError::Conflict { what },
            None => StoreError::NotFound { what },
        });
    }
    match state {
        NextState::Whole(_) => {
            tx.conn.prepare_cached("DELETE FROM state_part WHERE execution_id = ?1")?.execute([id])?;
        }
        NextState::Parts(parts) => {
            let doc = serde_json::to_vec(&parts).map_err(|e| StoreError::Backend(e.to_string()))?;
            let sealed = tx.session().seal_text("execution.part", &format!("{id}/{version}"), &doc)?;
            tx.conn
                .prepare_cached("INSERT INTO state_part (execution_id, version, doc) VALUES (?1, ?2, ?3)")?
                .execute(params![id, int(version), sealed])?;
        }
    }
    let sealed = tx.session().seal("event", &format!("{id}/{version}"), event)?;
    tx.conn
        .prepare_cached("INSERT INTO event (execution_id, version, at, doc) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id, int(version), int(now), sealed])?;
    let mut ended = false;
    let mut earliest: Option<Millis> = None;
    for effect in effects {
        match effect {
            Effect::Enqueue(task) => tasks::enqueue(tx, task)?,
            Effect::CancelTask { node, attempt, reason } => {
                tasks::cancel(tx, id, &node, attempt, &reason, now)?;
            }
            Effect::Claim { node, key } => claims::add(tx, id, &node, &key, now)?,
            Effect::Release { node } => claims::remove(tx, id, &node)?,
            Effect::SetTimer { timer, at } => {
                earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
                tx.conn
                    .prepare_cached(
                        "INSERT INTO timer (execution_id, timer, at) VALUES (?1, ?2, ?3)
                         ON CONFLICT (execution_id, timer) DO UPDATE SET at = ?3",
                    )?
                    .execute(params![id, timer, int(at)])?;
            }
            Effect::ClearTimer { timer } => {
                tx.conn
                    .prepare_cached("DELETE FROM timer WHERE execution_id = ?1 AND timer = ?2")?
                    .execute([id, timer.as_str()])?;
            }
            Effect::Seen { task, status } => tasks::seen(tx, &task, status)?,
            Effect::PutFact { name, value } => entities::put_fact(&tx.session(), &name, &value)?,
            Effect::Finish { status } => {
                ended = true;
                tx.conn
                    .prepare_cached(
                        "UPDATE execution SET ended = 1, status = ?2, ended_at = ?3 WHERE id = ?1",
                    )?
                    .execute(params![id, status, int(now)])?;
                tx.conn.prepare_cached("DELETE FROM timer WHERE execution_id = ?1")?.execute([id])?;
                claims::remove_all(tx, id)?;
            }
        }
    }
    if let Some(earliest) = earliest {
        tx.changed(Change::Timers { earliest });
    }
    tx.changed(Change::Execution { id: id.to_owned(), version, ended });
    Ok(())
}

pub(super) fn events(s: &Session<'_>, id: &str) -> Result<Vec<Value>, StoreError> {
    let rows: Vec<(i64, Vec<u8>)> = s
        .conn
        .prepare_cached("SELECT version, doc FROM event WHERE execution_id = ?1 ORDER BY version")?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut events = Vec::with_capacity(rows.len());
    for (version, doc) in rows {
        match s.open("event", &format!("{id}/{version}"), &doc)? {
            Value::Array(several) => events.extend(several),
            one => events.push(one),
        }
    }
    Ok(events)
}

pub(super) fn one(s: &Session<'_>, id: &str) -> Result<Option<ExecutionRow>, StoreError> {
    Ok(s.conn.prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?.query_row([id], row).optional()?)
}

pub(super) fn list(
    s: &Session<'_>,
    pipeline: Option<&str>,
    limit: u32,
) -> Result<Vec<ExecutionRow>, StoreError> {
    let rows = match pipeline {
        Some(pipeline) => s
            .conn
            .prepare_cached(&format!("{COLUMNS} WHERE pipeline = ?1 ORDER BY n DESC LIMIT ?2"))?
            .query_map(params![pipeline, limit], row)?
            .collect::<Result<_, _>>()?,
        None => s
            .conn
            .prepare_cached(&format!("{COLUMNS} ORDER BY n DESC LIMIT ?1"))?
            .query_map([limit], row)?
            .collect::<Result<_, _>>()?,
    };
    Ok(rows)
}

pub(super) fn open(s: &Session<'_>) -> Result<Vec<String>, StoreError> {
    let mut statement = s.conn.prepare_cached("SELECT id FROM execution WHERE ended = 0 ORDER BY n")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

pub(super) fn due_timers(s: &Session<'_>, now: Millis) -> Result<Vec<DueTimer>, StoreError> {
    let mut statement = s.conn.prepare_cached(
        "SELECT execution_id, timer, at FROM timer WHERE at <= ?1 ORDER BY at, execution_id, timer",
    )?;
    Ok(statement
        .query_map([int(now)], |row| {
            Ok(DueTimer { execution_id: row.get(0)?, timer: row.get(1)?, at: uint(row.get(2)?) })
        })?
        .collect::<Result<_, _>>()?)
}

pub(super) fn next_timer(s: &Session<'_>) -> Result<Option<Millis>, StoreError> {
    let at: Option<i64> =
        s.conn.prepare_cached("SELECT min(at) FROM timer")?.query_row([], |row| row.get(0))?;
    Ok(at.map(uint))
}
