//! Agents. What the store selects by stands in columns, the rest in one JSON text; none of it is execution data.

use super::{Session, StoreError};
use crate::store::Agent;
use rusqlite::{OptionalExtension, Row, params};

fn doc(row: &Row<'_>) -> rusqlite::Result<String> {
    row.get(0)
}

fn parse(text: &str) -> Result<Agent, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Backend(format!("an agent row cannot be read: {e}")))
}

pub(super) fn put(s: &Session<'_>, agent: &Agent) -> Result<(), StoreError> {
    let text = serde_json::to_string(agent).map_err(|e| StoreError::Backend(e.to_string()))?;
    s.conn
        .prepare_cached(
            "INSERT INTO agent (id, instance_id, host_name, ip, doc) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET instance_id = ?2, host_name = ?3, ip = ?4, doc = ?5",
        )?
        .execute(params![agent.id, agent.instance_id, agent.host_name, agent.ip, text])?;
    Ok(())
}

pub(super) fn find(
    s: &Session<'_>,
    instance: &str,
    host: &str,
    ip: &str,
) -> Result<Option<Agent>, StoreError> {
    let text = if instance.is_empty() {
        s.conn
            .prepare_cached(
                "SELECT doc FROM agent WHERE instance_id = '' AND host_name = ?1 AND ip = ?2 LIMIT 1",
            )?
            .query_row([host, ip], doc)
    } else {
        s.conn
            .prepare_cached("SELECT doc FROM agent WHERE instance_id <> '' AND instance_id = ?1 LIMIT 1")?
            .query_row([instance], doc)
    };
    text.optional()?.as_deref().map(parse).transpose()
}

pub(super) fn one(s: &Session<'_>, id: &str) -> Result<Option<Agent>, StoreError> {
    let text =
        s.conn.prepare_cached("SELECT doc FROM agent WHERE id = ?1")?.query_row([id], doc).optional()?;
    text.as_deref().map(parse).transpose()
}

pub(super) fn all(s: &Session<'_>) -> Result<Vec<Agent>, StoreError> {
    let mut statement = s.conn.prepare_cached("SELECT doc FROM agent ORDER BY rowid")?;
    let texts: Vec<String> = statement.query_map([], doc)?.collect::<Result<_, _>>()?;
    texts.iter().map(|text| parse(text)).collect()
}
