//! Entities, sealed secret values and small facts.

use super::{Session, StoreError, int, uint};
use crate::store::{Applied, Entity, Millis};
use rusqlite::{OptionalExtension, Row, params};

fn row(row: &Row<'_>) -> rusqlite::Result<Entity> {
    Ok(Entity {
        kind: row.get(0)?,
        scope: row.get(1)?,
        id: row.get(2)?,
        name: row.get(3)?,
        yaml: row.get(4)?,
        updated_at: uint(row.get(5)?),
    })
}

const COLUMNS: &str = "SELECT kind, scope, id, name, yaml, updated_at FROM entity";

pub(super) fn apply(s: &Session<'_>, entity: &Entity) -> Result<Applied, StoreError> {
    let before = one(s, &entity.kind, &entity.scope, &entity.id)?;
    let applied = match before {
        None => Applied::Created,
        Some(before) if before.yaml == entity.yaml && before.name == entity.name => {
            return Ok(Applied::Unchanged);
        }
        Some(_) => Applied::Changed,
    };
    s.conn
        .prepare_cached(
            "INSERT INTO entity (kind, scope, id, name, yaml, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (kind, id, scope) DO UPDATE SET name = ?4, yaml = ?5, updated_at = ?6",
        )?
        .execute(params![
            entity.kind,
            entity.scope,
            entity.id,
            entity.name,
            entity.yaml,
            int(entity.updated_at)
        ])?;
    Ok(applied)
}

pub(super) fn one(s: &Session<'_>, kind: &str, scope: &str, id: &str) -> Result<Option<Entity>, StoreError> {
    Ok(s.conn
        .prepare_cached(&format!("{COLUMNS} WHERE kind = ?1 AND scope = ?2 AND id = ?3"))?
        .query_row([kind, scope, id], row)
        .optional()?)
}

pub(super) fn all(s: &Session<'_>, kind: &str) -> Result<Vec<Entity>, StoreError> {
    let mut statement =
        s.conn.prepare_cached(&format!("{COLUMNS} WHERE ?1 = '' OR kind = ?1 ORDER BY kind, id, scope"))?;
    Ok(statement.query_map([kind], row)?.collect::<Result<_, _>>()?)
}

pub(super) fn delete(s: &Session<'_>, kind: &str, scope: &str, id: &str) -> Result<(), StoreError> {
    let deleted = s
        .conn
        .prepare_cached("DELETE FROM entity WHERE kind = ?1 AND scope = ?2 AND id = ?3")?
        .execute([kind, scope, id])?;
    found(deleted, || format!("{kind} `{id}`"))
}

/// `NotFound` unless a row was touched.
pub(super) fn found(touched: usize, what: impl FnOnce() -> String) -> Result<(), StoreError> {
    if touched == 0 { Err(StoreError::NotFound { what: what() }) } else { Ok(()) }
}

pub(super) fn put_secret(
    s: &Session<'_>,
    id: &str,
    sealed: &[u8],
    now: Millis,
) -> Result<Applied, StoreError> {
    let before = secret(s, id)?;
    // Equal values have different ciphertexts; "unchanged" is for the caller to find out, who can open them.
    s.conn
        .prepare_cached(
            "INSERT INTO secret (id, sealed, updated_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET sealed = ?2, updated_at = ?3",
        )?
        .execute(params![id, sealed, int(now)])?;
    Ok(match before {
        None => Applied::Created,
        Some(before) if before == sealed => Applied::Unchanged,
        Some(_) => Applied::Changed,
    })
}

pub(super) fn secret(s: &Session<'_>, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(s.conn
        .prepare_cached("SELECT sealed FROM secret WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?)
}

pub(super) fn secrets(s: &Session<'_>) -> Result<Vec<(String, Millis)>, StoreError> {
    let mut statement = s.conn.prepare_cached("SELECT id, updated_at FROM secret ORDER BY id")?;
    Ok(statement.query_map([], |row| Ok((row.get(0)?, uint(row.get(1)?))))?.collect::<Result<_, _>>()?)
}

pub(super) fn delete_secret(s: &Session<'_>, id: &str) -> Result<(), StoreError> {
    let deleted = s.conn.prepare_cached("DELETE FROM secret WHERE id = ?1")?.execute([id])?;
    found(deleted, || format!("secret `{id}`"))
}

pub(super) fn fact(s: &Session<'_>, name: &str) -> Result<Option<String>, StoreError> {
    Ok(s.conn
        .prepare_cached("SELECT value FROM fact WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

pub(super) fn put_fact(s: &Session<'_>, name: &str, value: &str) -> Result<(), StoreError> {
    s.conn
        .prepare_cached(
            "INSERT INTO fact (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
        )?
        .execute([name, value])?;
    Ok(())
}

pub(super) fn facts(s: &Session<'_>, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
    // By length and not by LIKE: a prefix may hold its wildcards.
    let mut statement = s.conn.prepare_cached(
        "SELECT name, value FROM fact WHERE name >= ?1 AND substr(name, 1, length(?1)) = ?1 ORDER BY name",
    )?;
    Ok(statement.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
}

pub(super) fn drop_fact(s: &Session<'_>, name: &str) -> Result<(), StoreError> {
    s.conn.prepare_cached("DELETE FROM fact WHERE name = ?1")?.execute([name])?;
    Ok(())
}
