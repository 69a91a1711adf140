//! `GET /executions/{id}/logs`: every line of every unit, as NDJSON, with `follow` until the execution has ended.
//!
//! Each command unit is one stream in the log store; its key names the step (ADR 0003, protocol facts §9). Streams are
//! told in the order of their first lines. Memory is bounded: one piece at a time, read as fast as the client takes it.

use super::{Answer, Api, error::ApiError};
use crate::logstore::LogError;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::future::select_all;
use proto::logs::{LogLine, unit_of};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Read at once from one stream.
const PIECE_BYTES: usize = 256 * 1024;
/// More streams than this are not listed: thousands of hosts times units.
const MAX_STREAMS: usize = 20_000;
/// How long streams may stay open after the execution ended: an agent that is cut off never closes them.
const CLOSE_GRACE: Duration = Duration::from_secs(10);
/// Longest sleep between two looks, in case nothing woke us.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
pub(super) struct Wanted {
    step: Option<String>,
    #[serde(default)]
    follow: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    step: &'a str,
    unit: &'a str,
    seq: u64,
    level: &'a str,
    time: i64,
    out: &'a str,
}

/// Where we are in one stream.
struct Cursor {
    key: String,
    step: String,
    unit: String,
    next: u64,
    /// Read to its end and closed, as far as we know.
    closed: bool,
    changed: watch::Receiver<u64>,
}

/// The state behind one answer.
struct Tail {
    api: Api,
    execution_id: String,
    /// What the log keys of the execution begin with, once it is known.
    prefix: Option<String>,
    step: Option<String>,
    follow: bool,
    cursors: Vec<Cursor>,
    known: HashSet<String>,
    keys: watch::Receiver<u64>,
    versions: watch::Receiver<u64>,
    /// The stream that is read next; in `follow` all open ones take turns.
    at: usize,
    ended_at: Option<Instant>,
}

pub(super) async fn read(
    State(api): State<Api>,
    Path(execution_id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer<Response> {
    if api.app.store.execution(&execution_id).await?.is_none() {
        return Err(ApiError::no_execution(&execution_id));
    }
    if let Some(step) = &wanted.step {
        super::view::check_step(&api, &execution_id, step).await?;
    }
    let tail = Tail {
        keys: api.app.logs.watch_keys(&api.app.account),
        versions: api.engine.subscribe(&execution_id),
        api,
        execution_id,
        prefix: None,
        step: wanted.step,
        follow: wanted.follow,
        cursors: Vec::new(),
        known: HashSet::new(),
        at: 0,
        ended_at: None,
    };
    let lines = futures::stream::try_unfold((tail, false), |(mut tail, listed)| async move {
        if !listed {
            tail.list().await?;
        }
        Ok::<_, std::io::Error>(tail.next().await?.map(|piece| (piece, (tail, true))))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn io(error: impl std::error::Error + Send + Sync + 'static) -> std::io::Error {
    tracing::error!(error = &error as &dyn std::error::Error, "log reading failed");
    std::io::Error::other(error)
}

impl Tail {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        loop {
            if let Some(lines) = self.read_some().await? {
                return Ok(Some(lines));
            }
            if !self.follow || self.is_over().await? {
                return Ok(None);
            }
            self.wait().await;
            self.list().await?;
        }
    }

    /// Adds streams that were not known, in the order of their first lines.
    async fn list(&mut self) -> std::io::Result<()> {
        self.keys.borrow_and_update();
        self.versions.borrow_and_update();
        if self.prefix.is_none() {
            let record = self.api.engine.record(&self.execution_id).await.map_err(io)?;
            // It never changes once it is known, and the record may be large.
            self.prefix = record.and_then(|(_, record)| record.log_prefix);
        }
        let Some(prefix) = self.prefix.clone() else { return Ok(()) };
        let (logs, account) = (&self.api.app.logs, &self.api.app.account);
        let mut fresh = Vec::new();
        for stream in logs.keys(account, &prefix, MAX_STREAMS).await.map_err(io)? {
            let rest = stream.key.get(prefix.len()..).unwrap_or_default();
            if self.known.contains(&stream.key) || !covers(self.step.as_deref(), rest) {
                continue;
            }
            let (base, unit) = unit_of(&stream.key).unwrap_or((stream.key.as_str(), ""));
            let cursor = Cursor {
                step: levels(base).last().unwrap_or_default().to_owned(),
                unit: unit.to_owned(),
                next: 0,
                closed: false,
                changed: logs.watch(account, &stream.key),
                key: stream.key.clone(),
            };
            let first = match logs.read(account, &stream.key, 0, 1).await {
                Ok(piece) => first_line(&piece.text).map_or(i64::MAX, |line| line.time_ms),
                Err(LogError::NotFound | LogError::NotOpen) => continue,
                Err(error) => return Err(io(error)),
            };
            fresh.push((first, cursor));
        }
        fresh.sort_by(|(a, left), (b, right)| (a, &left.key).cmp(&(b, &right.key)));
        for (_, cursor) in fresh {
            self.known.insert(cursor.key.clone());
            self.cursors.push(cursor);
        }
        Ok(())
    }

    /// Lines of the first stream, from `at` on, that has any.
    async fn read_some(&mut self) -> std::io::Result<Option<Bytes>> {
        for _ in 0..self.cursors.len() {
            let count = self.cursors.len();
            let Some(cursor) = self.cursors.get_mut(self.at) else {
                self.at = 0;
                continue;
            };
            cursor.changed.borrow_and_update();
            let piece = self
                .api
                .app
                .logs
                .read(&self.api.app.account, &cursor.key, cursor.next, PIECE_BYTES)
                .await
                .map_err(io)?;
            let lines = render(cursor, piece.first, &piece.text);
            cursor.next = piece.next;
            cursor.closed = piece.text.is_empty() && !piece.open;
            let live = self.follow && piece.open;
            if piece.text.is_empty() || live {
                // A stream that has ended is told to its end before the next one; live ones take turns.
                self.at = (self.at + 1) % count;
            }
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
        }
        Ok(None)
    }

    /// Whether nothing can come any more. Called when every stream was read to its present end.
    async fn is_over(&mut self) -> std::io::Result<bool> {
        if self.api.app.stop.is_cancelled() {
            return Ok(true);
        }
        if self.ended_at.is_none() {
            let row = self.api.app.store.execution(&self.execution_id).await.map_err(io)?;
            if row.is_some_and(|row| !row.ended) {
                return Ok(false);
            }
            // Lines that came between the last look and the end are read by one more round.
            self.ended_at = Some(self.api.app.clock.mono());
            self.list().await?;
            return Ok(false);
        }
        let waited = self.ended_at.is_some_and(|ended| self.api.app.clock.mono() >= ended + CLOSE_GRACE);
        Ok(waited || self.cursors.iter().all(|cursor| cursor.closed))
    }

    /// Sleeps until a stream, the list of streams or the execution changed.
    async fn wait(&mut self) {
        let closed_all = self.cursors.iter().all(|cursor| cursor.closed);
        if self.ended_at.is_some() && closed_all {
            return;
        }
        let app = self.api.app.clone();
        let (keys, versions) = (&mut self.keys, &mut self.versions);
        let streams: Vec<_> = self
            .cursors
            .iter_mut()
            .filter(|cursor| !cursor.closed)
            .map(|cursor| Box::pin(woken(&mut cursor.changed)))
            .collect();
        let any_stream = async {
            if streams.is_empty() {
                std::future::pending::<()>().await;
            }
            let _first = select_all(streams).await;
        };
        tokio::select! {
            () = any_stream => {}
            () = woken(keys) => {}
            () = woken(versions) => {}
            () = app.clock.sleep(LOOK_AGAIN) => {}
            () = app.stop.cancelled() => {}
        }
    }
}

/// Waits for a change. A channel without a sender never changes again: then it is not to spin.
async fn woken(channel: &mut watch::Receiver<u64>) {
    if channel.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The identifiers in a base key, outermost first: `…/level0:pipeline/level1:stages/level2:Deploy`.
fn levels(base: &str) -> impl Iterator<Item = &str> {
    base.split('/').filter_map(|part| {
        let (name, value) = part.split_once(':')?;
        let number = name.strip_prefix("level")?;
        (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(value)
    })
}

/// Whether a key belongs to the wanted step, a loop child of it, or a step inside of it.
fn covers(step: Option<&str>, key: &str) -> bool {
    let Some(step) = step else { return true };
    let base = unit_of(key).map_or(key, |(base, _)| base);
    levels(base).any(|level| is_or_is_child(level, step))
}

/// `Deploy` itself, `Deploy_0`, `Deploy_0_1`.
pub(super) fn is_or_is_child(identifier: &str, step: &str) -> bool {
    let Some(rest) = identifier.strip_prefix(step) else { return false };
    rest.is_empty()
        || rest.strip_prefix('_').is_some_and(|postfix| {
            postfix.split('_').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        })
}

fn first_line(text: &[u8]) -> Option<LogLine> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    serde_json::from_slice(line).ok()
}

fn render(cursor: &Cursor, first: u64, text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    for (seq, raw) in (first..).zip(lines) {
        // A line that cannot be read is still a line: it is told as it stands, never left out.
        let parsed = serde_json::from_slice::<LogLine>(raw).unwrap_or_else(|_| LogLine {
            out: String::from_utf8_lossy(raw).into_owned(),
            ..LogLine::default()
        });
        let line = Line {
            step: &cursor.step,
            unit: &cursor.unit,
            seq,
            level: parsed.level.as_str(),
            time: parsed.time_ms,
            out: parsed.out.trim_end_matches(['\n', '\r']),
        };
        if let Err(error) = serde_json::to_writer(&mut out, &line) {
            tracing::error!(%error, key = %cursor.key, seq, "a log line cannot be written");
        }
        out.push(b'\n');
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_covers_its_loop_children_and_what_lies_inside() {
        let key = "level0:pipeline/level1:stages/level2:S/level3:G/level4:Deploy_0_12-commandUnit:Run it";
        for step in ["Deploy", "Deploy_0", "Deploy_0_12", "G"] {
            assert!(covers(Some(step), key), "{step}");
        }
        for step in ["Dep", "Deploy_1", "Run it", "Deploy_0_1"] {
            assert!(!covers(Some(step), key), "{step}");
        }
        assert!(covers(None, key));
        assert!(!is_or_is_child("Deploy_x", "Deploy"));
        assert!(!is_or_is_child("Deploy_", "Deploy"));
    }

    #[test]
    fn the_last_level_names_the_step() {
        let base = "accountId:a/pipelineId:p/runSequence:1/level0:pipeline/level1:x/level10:Deploy";
        assert_eq!(levels(base).last(), Some("Deploy"));
        assert_eq!(levels("accountId:a/level:x/levelx:y").next(), None);
    }
}
