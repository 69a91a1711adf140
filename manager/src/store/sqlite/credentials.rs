//! Delegate tokens, API keys and host keys.

use super::entities::found;
use super::writer::Tx;
use super::{Session, StoreError, int, uint};
use crate::store::changes::Change;
use crate::store::{Applied, Credential, Millis};
use rusqlite::{OptionalExtension, Row, params};

const COLUMNS: &str = "SELECT kind, name, hash, sealed, owner, created_at, revoked_at, role, user_id \
                       FROM credential";

fn row(row: &Row<'_>) -> rusqlite::Result<Credential> {
    Ok(Credential {
        kind: row.get(0)?,
        name: row.get(1)?,
        hash: row.get(2)?,
        sealed: row.get(3)?,
        owner: row.get(4)?,
        created_at: uint(row.get(5)?),
        revoked_at: row.get::<_, Option<i64>>(6)?.map(uint),
        role: row.get(7)?,
        user: row.get(8)?,
    })
}

pub(super) fn add(tx: &mut Tx<'_>, c: &Credential) -> Result<(), StoreError> {
    let taken: bool = tx
        .conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM credential WHERE kind = ?1 AND name = ?2 AND revoked_at IS NULL)",
        )?
        .query_row([&c.kind, &c.name], |row| row.get(0))?;
    if taken {
        return Err(StoreError::Conflict { what: format!("{} `{}`", c.kind, c.name) });
    }
    tx.conn
        .prepare_cached(
            "INSERT INTO credential (kind, name, hash, sealed, owner, created_at, revoked_at, role, user_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            c.kind,
            c.name,
            c.hash,
            c.sealed,
            c.owner,
            int(c.created_at),
            c.revoked_at.map(int),
            c.role,
            c.user
        ])?;
    tx.changed(Change::Credentials);
    Ok(())
}

pub(super) fn all(s: &Session<'_>, kind: &str) -> Result<Vec<Credential>, StoreError> {
    let mut statement = s.conn.prepare_cached(&format!("{COLUMNS} WHERE kind = ?1 ORDER BY n"))?;
    Ok(statement.query_map([kind], row)?.collect::<Result<_, _>>()?)
}

pub(super) fn by_hash(s: &Session<'_>, kind: &str, hash: &str) -> Result<Option<Credential>, StoreError> {
    // The newest row wins, and an unrevoked one over a revoked one of the same value.
    Ok(s.conn
        .prepare_cached(&format!(
            "{COLUMNS} WHERE kind = ?1 AND hash = ?2 ORDER BY revoked_at IS NOT NULL, n DESC LIMIT 1"
        ))?
        .query_row([kind, hash], row)
        .optional()?)
}

pub(super) fn revoke(tx: &mut Tx<'_>, kind: &str, name: &str, now: Millis) -> Result<(), StoreError> {
    let revoked = tx
        .conn
        .prepare_cached(
            "UPDATE credential SET revoked_at = ?3 WHERE kind = ?1 AND name = ?2 AND revoked_at IS NULL",
        )?
        .execute(params![kind, name, int(now)])?;
    found(revoked, || format!("{kind} `{name}`"))?;
    tx.changed(Change::Credentials);
    Ok(())
}

pub(super) fn learn_host_key(
    s: &Session<'_>,
    host: &str,
    key: &str,
    now: Millis,
) -> Result<Applied, StoreError> {
    let known = host_keys(s, Some(host))?;
    if known.iter().any(|(_, known, _)| known == key) {
        return Ok(Applied::Unchanged);
    }
    if !known.is_empty() {
        return Err(StoreError::Conflict { what: format!("the host key of {host}") });
    }
    insert_host_key(s, host, key, now)?;
    Ok(Applied::Created)
}

pub(super) fn accept_host_key(s: &Session<'_>, host: &str, key: &str, now: Millis) -> Result<(), StoreError> {
    s.conn.prepare_cached("DELETE FROM host_key WHERE host = ?1")?.execute([host])?;
    insert_host_key(s, host, key, now)
}

fn insert_host_key(s: &Session<'_>, host: &str, key: &str, now: Millis) -> Result<(), StoreError> {
    s.conn
        .prepare_cached("INSERT INTO host_key (host, key, since) VALUES (?1, ?2, ?3)")?
        .execute(params![host, key, int(now)])?;
    Ok(())
}

pub(super) fn host_keys(
    s: &Session<'_>,
    host: Option<&str>,
) -> Result<Vec<(String, String, Millis)>, StoreError> {
    let mut statement = s.conn.prepare_cached(
        "SELECT host, key, since FROM host_key WHERE ?1 IS NULL OR host = ?1 ORDER BY host, since, key",
    )?;
    Ok(statement
        .query_map([host], |row| Ok((row.get(0)?, row.get(1)?, uint(row.get(2)?))))?
        .collect::<Result<_, _>>()?)
}

pub(super) fn forget_host_key(s: &Session<'_>, host: &str) -> Result<(), StoreError> {
    let deleted = s.conn.prepare_cached("DELETE FROM host_key WHERE host = ?1")?.execute([host])?;
    found(deleted, || format!("the host key of {host}"))
}
