//! Claims on infrastructures: who holds one, and who waits for it, in the order of arrival.

use super::writer::Tx;
use super::{Session, StoreError, int, uint};
use crate::store::changes::Change;
use crate::store::{Claim, Millis};
use rusqlite::{OptionalExtension, params};

/// Puts a stage at the end of the queue. **Repeat**: it keeps its place.
pub(super) fn add(
    tx: &mut Tx<'_>,
    execution_id: &str,
    node: &str,
    key: &str,
    now: Millis,
) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached(
            "INSERT INTO claim (key, execution_id, node, at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (execution_id, node) DO NOTHING",
        )?
        .execute(params![key, execution_id, node, int(now)])?;
    tell(tx, key)
}

/// Takes a stage out of the queue. **Repeat**: nothing happens.
pub(super) fn remove(tx: &mut Tx<'_>, execution_id: &str, node: &str) -> Result<(), StoreError> {
    let key: Option<String> = tx
        .conn
        .prepare_cached("DELETE FROM claim WHERE execution_id = ?1 AND node = ?2 RETURNING key")?
        .query_row([execution_id, node], |row| row.get(0))
        .optional()?;
    key.map_or(Ok(()), |key| tell(tx, &key))
}

/// Takes everything of an execution that has ended out of the queues.
pub(super) fn remove_all(tx: &mut Tx<'_>, execution_id: &str) -> Result<(), StoreError> {
    let keys: Vec<String> = tx
        .conn
        .prepare_cached("DELETE FROM claim WHERE execution_id = ?1 RETURNING key")?
        .query_map([execution_id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    keys.iter().try_for_each(|key| tell(tx, key))
}

/// Says who holds it now.
fn tell(tx: &mut Tx<'_>, key: &str) -> Result<(), StoreError> {
    let holder: Option<String> = tx
        .conn
        .prepare_cached("SELECT execution_id FROM claim WHERE key = ?1 ORDER BY n LIMIT 1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    if let Some(execution) = holder {
        tx.changed(Change::Held { execution });
    }
    Ok(())
}

pub(super) fn list(s: &Session<'_>, key: &str) -> Result<Vec<Claim>, StoreError> {
    let mut statement =
        s.conn.prepare_cached("SELECT execution_id, node, at FROM claim WHERE key = ?1 ORDER BY n")?;
    Ok(statement
        .query_map([key], |row| {
            Ok(Claim { execution_id: row.get(0)?, node: row.get(1)?, at: uint(row.get(2)?) })
        })?
        .collect::<Result<_, _>>()?)
}
