//! A log sink in memory that splits, numbers and resumes as the agent's does.

use crate::{Level, LogClosed, LogSink, Stream, UnitLog};
use bytes::Bytes;
use futures::future::BoxFuture;
use proto::result::UnitStatus;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// Bytes of a stream of the target.
    Output(Stream),
    /// The executor's own.
    Own(Level),
}

/// One line as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it came from.
    pub kind: LineKind,
    /// The text without its newline; invalid UTF-8 is replaced.
    pub text: String,
}

#[derive(Debug, Default)]
struct Source {
    /// Offset up to which bytes were taken.
    taken: u64,
    /// Offset up to which complete lines were split off.
    split: u64,
    /// Offset up to which complete lines are durable.
    durable: u64,
    partial: Vec<u8>,
}

#[derive(Debug, Default)]
struct Unit {
    lines: Vec<Line>,
    durable_lines: usize,
    streams: BTreeMap<Stream, Source>,
    statuses: Vec<UnitStatus>,
}

#[derive(Debug, Default)]
struct State {
    units: BTreeMap<String, Unit>,
    order: Vec<String>,
    closed: bool,
    total_bytes: u64,
    keep_lines: bool,
}

/// Logs of one task. Lines become durable when [`UnitLog::durable`] is called, and not before; [`MemoryLogs::crash`]
/// forgets the rest, as a killed agent does.
#[derive(Clone, Debug)]
pub struct MemoryLogs(Arc<Mutex<State>>);

impl Default for MemoryLogs {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLogs {
    /// An empty log.
    pub fn new() -> Self {
        MemoryLogs(Arc::new(Mutex::new(State { keep_lines: true, ..State::default() })))
    }

    /// Counts bytes and lines but keeps no text: for gigabytes.
    pub fn counting() -> Self {
        MemoryLogs(Arc::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was not durable is gone; `resume_at` goes back.
    pub fn crash(&self) {
        for unit in self.state().units.values_mut() {
            unit.lines.truncate(unit.durable_lines);
            for source in unit.streams.values_mut() {
                source.taken = source.durable;
                source.split = source.durable;
                source.partial.clear();
            }
        }
    }

    /// From here on every call is refused with [`LogClosed`].
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// Units in the order in which they were opened first.
    pub fn units(&self) -> Vec<String> {
        self.state().order.clone()
    }

    /// Every line of a unit.
    pub fn lines(&self, unit: &str) -> Vec<Line> {
        self.state().units.get(unit).map(|u| u.lines.clone()).unwrap_or_default()
    }

    /// The target's lines of one stream of a unit.
    pub fn output(&self, unit: &str, stream: Stream) -> Vec<String> {
        self.lines(unit)
            .into_iter()
            .filter(|line| line.kind == LineKind::Output(stream))
            .map(|line| line.text)
            .collect()
    }

    /// The executor's own lines of a unit.
    pub fn own(&self, unit: &str) -> Vec<String> {
        self.lines(unit)
            .into_iter()
            .filter(|line| matches!(line.kind, LineKind::Own(_)))
            .map(|line| line.text)
            .collect()
    }

    /// Every status that a unit was given, in order.
    pub fn statuses(&self, unit: &str) -> Vec<UnitStatus> {
        self.state().units.get(unit).map(|u| u.statuses.clone()).unwrap_or_default()
    }

    /// All text of all units, for searches.
    pub fn everything(&self) -> String {
        let state = self.state();
        let mut all = String::new();
        for name in &state.order {
            for line in state.units.get(name).map(|u| u.lines.as_slice()).unwrap_or_default() {
                all.push_str(&line.text);
                all.push('\n');
            }
        }
        all
    }

    /// Bytes of target output taken so far, over all units, repeated ones included.
    pub fn total_bytes(&self) -> u64 {
        self.state().total_bytes
    }
}

impl LogSink for MemoryLogs {
    fn unit(&self, name: &str) -> Arc<dyn UnitLog> {
        let mut state = self.state();
        if !state.units.contains_key(name) {
            state.order.push(name.to_owned());
            state.units.insert(name.to_owned(), Unit::default());
        }
        drop(state);
        Arc::new(MemoryUnit { logs: self.clone(), name: name.to_owned() })
    }
}

struct MemoryUnit {
    logs: MemoryLogs,
    name: String,
}

impl MemoryUnit {
    fn change<T>(&self, what: impl FnOnce(&mut Unit, bool, &mut u64) -> T) -> Result<T, LogClosed> {
        let mut state = self.logs.state();
        if state.closed {
            return Err(LogClosed);
        }
        let State { units, keep_lines, total_bytes, .. } = &mut *state;
        let unit = units.entry(self.name.clone()).or_default();
        Ok(what(unit, *keep_lines, total_bytes))
    }
}

fn ready<T: Send + 'static>(value: Result<T, LogClosed>) -> BoxFuture<'static, Result<T, LogClosed>> {
    Box::pin(std::future::ready(value))
}

fn store(lines: &mut Vec<Line>, keep: bool, kind: LineKind, bytes: &[u8]) {
    if keep {
        lines.push(Line { kind, text: String::from_utf8_lossy(bytes).into_owned() });
    }
}

impl UnitLog for MemoryUnit {
    fn write(&self, stream: Stream, bytes: Bytes) -> BoxFuture<'_, Result<(), LogClosed>> {
        ready(self.change(|unit, keep, total| {
            *total += bytes.len() as u64;
            let Unit { streams, lines, .. } = unit;
            let source = streams.entry(stream).or_default();
            source.taken += bytes.len() as u64;
            let mut rest = bytes.as_ref();
            while let Some(at) = rest.iter().position(|b| *b == b'\n') {
                let (head, tail) = rest.split_at(at);
                source.split += at as u64 + 1 + source.partial.len() as u64;
                if source.partial.is_empty() {
                    store(lines, keep, LineKind::Output(stream), head);
                } else {
                    source.partial.extend_from_slice(head);
                    store(lines, keep, LineKind::Output(stream), &source.partial);
                    source.partial.clear();
                }
                rest = tail.get(1..).unwrap_or_default();
            }
            source.partial.extend_from_slice(rest);
        }))
    }

    fn line(&self, level: Level, text: &str) -> BoxFuture<'_, Result<(), LogClosed>> {
        ready(self.change(|unit, keep, _| {
            for line in text.split('\n') {
                store(&mut unit.lines, keep, LineKind::Own(level), line.as_bytes());
            }
        }))
    }

    fn resume_at(&self, stream: Stream) -> u64 {
        let state = self.logs.state();
        state.units.get(&self.name).and_then(|u| u.streams.get(&stream)).map_or(0, |s| s.durable)
    }

    fn durable(&self, stream: Stream) -> BoxFuture<'_, Result<u64, LogClosed>> {
        ready(self.change(|unit, _, _| {
            unit.durable_lines = unit.lines.len();
            for source in unit.streams.values_mut() {
                source.durable = source.split;
            }
            unit.streams.get(&stream).map_or(0, |s| s.durable)
        }))
    }

    fn end_of_stream(&self, stream: Stream) -> BoxFuture<'_, Result<(), LogClosed>> {
        ready(self.change(|unit, keep, _| {
            let Unit { streams, lines, .. } = unit;
            let source = streams.entry(stream).or_default();
            if !source.partial.is_empty() {
                store(lines, keep, LineKind::Output(stream), &source.partial);
                source.partial.clear();
            }
            source.split = source.taken;
        }))
    }

    fn status(&self, status: UnitStatus) -> BoxFuture<'_, Result<(), LogClosed>> {
        ready(self.change(|unit, _, _| unit.statuses.push(status)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_joined_over_chunks_and_a_crash_goes_back_to_the_last_durable_line() {
        let logs = MemoryLogs::new();
        let unit = logs.unit("u");
        unit.write(Stream::Stdout, Bytes::from_static(b"one\ntw")).await.unwrap();
        assert_eq!(unit.resume_at(Stream::Stdout), 0);
        assert_eq!(unit.durable(Stream::Stdout).await.unwrap(), 4);
        unit.write(Stream::Stdout, Bytes::from_static(b"o\nthree")).await.unwrap();
        assert_eq!(logs.output("u", Stream::Stdout), ["one", "two"]);
        logs.crash();
        assert_eq!(logs.output("u", Stream::Stdout), ["one"]);
        let unit = logs.unit("u");
        assert_eq!(unit.resume_at(Stream::Stdout), 4);
        unit.write(Stream::Stdout, Bytes::from_static(b"two\nthree")).await.unwrap();
        unit.end_of_stream(Stream::Stdout).await.unwrap();
        unit.end_of_stream(Stream::Stdout).await.unwrap();
        assert_eq!(logs.output("u", Stream::Stdout), ["one", "two", "three"]);
        assert_eq!(unit.durable(Stream::Stdout).await.unwrap(), 13);
    }
}
