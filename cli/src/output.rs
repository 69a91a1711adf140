//! What goes to standard output: one JSON document or a table. Everything else goes to standard error.

use crate::exit::CliError;
use serde_json::Value;
use std::io::Write;

/// Form of the result on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document; stable.
    Json,
}

impl Format {
    /// Shows an answer of the manager: as it is, or as `text` tells it to people.
    pub(crate) fn show(self, reply: &Value, text: impl FnOnce(&Value) -> String) {
        match self {
            Format::Json => json(reply),
            Format::Table => say(text(reply)),
        }
    }
}

/// Writes a line to standard output. A reader that has gone away ends the process quietly with the next write error
/// of the caller; nothing here can tell more than that nobody reads.
pub(crate) fn say(text: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush());
    if written.is_err() {
        // `delegate … | head` closes the pipe: there is nobody left to tell.
        tracing::debug!("standard output is closed");
    }
}

/// Writes bytes as they are to standard output: a rendered file, a completion script.
pub(crate) fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| CliError::failed(format!("the result cannot be written: {error}")))
}

/// Writes a line to standard error.
pub(crate) fn tell(text: impl AsRef<str>) {
    let mut err = std::io::stderr().lock();
    if writeln!(err, "{}", text.as_ref()).is_err() {
        tracing::debug!("standard error is closed");
    }
}

/// Writes one JSON document to standard output.
pub(crate) fn json(value: &Value) {
    say(serde_json::to_string_pretty(value).unwrap_or_else(|_| "null".to_owned()));
}

/// Rows below a heading, columns padded to their widest cell. Empty input gives the heading alone.
fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = heading
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let mut out = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
        }
        out.trim_end().to_owned()
    };
    let mut lines = vec![line(heading.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

/// A table with a row for each item of an answer that is a list.
pub(crate) fn rows(reply: &Value, heading: &[&str], row: impl Fn(&Value) -> Vec<String>) -> String {
    let rows: Vec<Vec<String>> = reply.as_array().into_iter().flatten().map(row).collect();
    table(heading, &rows)
}

/// An array field; empty when it is none.
pub(crate) fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A field as a [`cell`]; nothing when there is none.
pub(crate) fn field(value: &Value, name: &str) -> String {
    value.get(name).map(cell).unwrap_or_default()
}

/// A field as a [`time`]; nothing when there is none.
pub(crate) fn time_of(value: &Value, name: &str) -> String {
    time(value.get(name).and_then(Value::as_i64))
}

/// A value as a cell: text as it is, lists joined, nothing for null.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Epoch milliseconds as `2026-01-31 12:00:05` (UTC).
fn time(ms: Option<i64>) -> String {
    let Some(ms) = ms else { return String::new() };
    let scope = expr::MapScope::default();
    let context = expr::Context { scope: &scope, now_ms: ms, secret_token: 0 };
    let text = expr::render("<+currentTime>", &context, expr::Mode::Null).unwrap_or_default();
    text.get(..19).unwrap_or("").replace('T', " ")
}

/// A duration as people say it: `350ms`, `4.2s`, `3m05s`.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        _ => format!("{}m{:02}s", ms / 60_000, ms / 1000 % 60),
    }
}

/// `1 fault`, `2 faults`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_times_readable() {
        let rows = vec![vec!["a".into(), "long cell".into()], vec!["bcd".into(), "x".into()]];
        assert_eq!(table(&["ID", "NAME"], &rows), "ID   NAME\na    long cell\nbcd  x");
        assert_eq!(time(Some(1_715_004_000_000)), "2024-05-06 14:00:00");
        assert_eq!(time(None), "");
        assert_eq!([duration(12), duration(4_250), duration(185_000)], ["12ms", "4.2s", "3m05s"]);
        assert_eq!(cell(&serde_json::json!(["a", 1])), "a,1");
    }
}
