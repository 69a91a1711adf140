//! Events of triggers.

use super::{Session, StoreError, int, uint};
use crate::store::{KEPT_EVENTS, MAX_OPEN_EVENTS, TriggerEvent};
use rusqlite::{OptionalExtension, Row, params};

const COLUMNS: &str = "SELECT id, pipeline, trigger_id, at, done, doc FROM trigger_event";

type Raw = (String, String, String, i64, bool, Vec<u8>);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
}

fn opened(s: &Session<'_>, (id, pipeline, trigger, at, done, doc): Raw) -> Result<TriggerEvent, StoreError> {
    let doc = s.open("trigger.event", &id, &doc)?;
    Ok(TriggerEvent { id, pipeline, trigger, at: uint(at), done, doc })
}

pub(super) fn add(s: &Session<'_>, event: &TriggerEvent) -> Result<bool, StoreError> {
    if !event.done {
        let open: u32 = s
            .conn
            .prepare_cached("SELECT count(*) FROM trigger_event WHERE done = 0")?
            .query_row([], |row| row.get(0))?;
        if open >= MAX_OPEN_EVENTS {
            return Err(StoreError::Conflict { what: "the list of waiting trigger events".to_owned() });
        }
    }
    let sealed = s.seal("trigger.event", &event.id, &event.doc)?;
    let added = s
        .conn
        .prepare_cached(
            "INSERT INTO trigger_event (id, pipeline, trigger_id, at, done, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![event.id, event.pipeline, event.trigger, int(event.at), event.done, sealed])?;
    s.conn
        .prepare_cached(
            "DELETE FROM trigger_event WHERE pipeline = ?1 AND trigger_id = ?2 AND done = 1 AND n <=
             (SELECT n FROM trigger_event WHERE pipeline = ?1 AND trigger_id = ?2 ORDER BY n DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute(params![event.pipeline, event.trigger, KEPT_EVENTS])?;
    Ok(added > 0)
}

pub(super) fn finish(s: &Session<'_>, event: &TriggerEvent) -> Result<(), StoreError> {
    let sealed = s.seal("trigger.event", &event.id, &event.doc)?;
    s.conn
        .prepare_cached("UPDATE trigger_event SET done = 1, doc = ?2 WHERE id = ?1")?
        .execute(params![event.id, sealed])?;
    Ok(())
}

pub(super) fn one(s: &Session<'_>, id: &str) -> Result<Option<TriggerEvent>, StoreError> {
    let found =
        s.conn.prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?.query_row([id], raw).optional()?;
    found.map(|found| opened(s, found)).transpose()
}

pub(super) fn list(
    s: &Session<'_>,
    pipeline: &str,
    trigger: &str,
    limit: u32,
) -> Result<Vec<TriggerEvent>, StoreError> {
    let rows: Vec<Raw> = s
        .conn
        .prepare_cached(&format!(
            "{COLUMNS} WHERE (?1 = '' OR pipeline = ?1) AND (?2 = '' OR trigger_id = ?2) ORDER BY n DESC LIMIT ?3"
        ))?
        .query_map(params![pipeline, trigger, limit], raw)?
        .collect::<Result<_, _>>()?;
    rows.into_iter().map(|row| opened(s, row)).collect()
}

pub(super) fn open(s: &Session<'_>, limit: u32) -> Result<Vec<TriggerEvent>, StoreError> {
    let rows: Vec<Raw> = s
        .conn
        .prepare_cached(&format!("{COLUMNS} WHERE done = 0 ORDER BY n LIMIT ?1"))?
        .query_map([limit], raw)?
        .collect::<Result<_, _>>()?;
    rows.into_iter().map(|row| opened(s, row)).collect()
}
