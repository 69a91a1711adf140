//! Log lines and log keys. **Source**: protocol facts §9, log-service-peer.md.

use crate::limits::MAX_LOG_LINE_BYTES;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a secret is replaced by.
pub const MASK: &str = "**************";

/// What stands at the end of a line that had to be cut.
pub const CUT_MARK: &str = "... (log line truncated)";

/// Level of a line. Written in upper case, as the Java delegate does; read in any case and in Go's words.
///
/// An executor's standard output is `Info`, its standard error `Error`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "The names say it.")]
pub enum Level {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
            Level::Fatal => "FATAL",
        }
    }

    /// Any writer's word for a level. Unknown and empty words are `Info`: a line is never lost for its level.
    pub fn from_word(word: &str) -> Self {
        match word.trim().to_ascii_lowercase().as_str() {
            "trace" | "debug" => Level::Debug,
            "warn" | "warning" => Level::Warn,
            "error" | "err" => Level::Error,
            "fatal" | "panic" => Level::Fatal,
            _ => Level::Info,
        }
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<Cow<'_, str>>::deserialize(deserializer)?
            .map_or(Level::Info, |word| Level::from_word(&word)))
    }
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Level.
    #[serde(default)]
    pub level: Level,
    /// Number within the stream, from 0. Java leaves it at 0.
    #[serde(default, deserialize_with = "crate::tolerance::integer")]
    pub pos: i64,
    /// The text, without a newline at its end.
    #[serde(default, deserialize_with = "crate::tolerance::null_default")]
    pub out: String,
    /// Epoch milliseconds; RFC 3339 on the wire.
    #[serde(rename = "time", default, serialize_with = "write_time", deserialize_with = "read_time")]
    pub time_ms: i64,
    /// Extra texts; nearly always absent, written as `null` then.
    #[serde(default)]
    pub args: Option<BTreeMap<String, String>>,
}

/// A batch of lines cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not a JSON list.
    #[error("the body is not a JSON list of log lines")]
    NotAList,
    /// One element is no line. The real service lets the connection die on `null`.
    #[error("element {index} of the list is not a log line: {problem}")]
    BadLine {
        /// From 0.
        index: usize,
        /// What is wrong with it; repeats no log text.
        problem: &'static str,
    },
}

impl LogLine {
    /// A line as we write it: cut to [`MAX_LOG_LINE_BYTES`].
    pub fn new(level: Level, pos: i64, time_ms: i64, out: &str) -> Self {
        LogLine { level, pos, out: cut_line(out).into_owned(), time_ms, args: None }
    }
}

/// Reads the body of `PUT /stream`. `null` is an empty list.
pub fn decode_lines(body: &[u8]) -> Result<Vec<LogLine>, LineError> {
    let elements: Option<Vec<Value>> = serde_json::from_slice(body).map_err(|_| LineError::NotAList)?;
    elements.unwrap_or_default().into_iter().enumerate().map(|(index, value)| line(index, value)).collect()
}

fn line(index: usize, value: Value) -> Result<LogLine, LineError> {
    let problem = match &value {
        Value::Object(fields) => match fields.get("time") {
            None | Some(Value::Null) => "a field has the wrong type",
            Some(Value::String(time)) if time.parse::<Timestamp>().is_ok() => "a field has the wrong type",
            Some(_) => "`time` is not RFC 3339",
        },
        other => crate::tolerance::kind(other),
    };
    serde_json::from_value(value).map_err(|_| LineError::BadLine { index, problem })
}

/// `text`, cut on a character border so that it and [`CUT_MARK`] fit into [`MAX_LOG_LINE_BYTES`].
pub fn cut_line(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_LOG_LINE_BYTES {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(MAX_LOG_LINE_BYTES - CUT_MARK.len());
    Cow::Owned(format!("{}{CUT_MARK}", text.get(..end).unwrap_or_default()))
}

/// Epoch milliseconds as RFC 3339 with milliseconds. Times outside the years 0 to 9999 are clamped.
pub fn rfc3339(time_ms: i64) -> String {
    // The ends of what RFC 3339 can write.
    const FIRST: i64 = -62_167_219_200_000;
    const LAST: i64 = 253_402_214_400_000;
    let time = Timestamp::from_millisecond(time_ms.clamp(FIRST, LAST)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

fn write_time<S: Serializer>(time_ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time_ms))
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Option::<Cow<'_, str>>::deserialize(deserializer)? {
        None => Ok(0),
        Some(text) => text
            .parse::<Timestamp>()
            .map(Timestamp::as_millisecond)
            .map_err(|_| serde::de::Error::custom("expected an RFC 3339 time")),
    }
}

/// Base key of a task's logs: its abstractions as `k:v`, joined by `/`. With `isSimplified=true` that entry is left out
/// and only the values are joined.
pub fn base_key(abstractions: &[(String, String)]) -> String {
    let simplified = abstractions.iter().any(|(key, value)| key == "isSimplified" && value == "true");
    let parts: Vec<Cow<'_, str>> = abstractions
        .iter()
        .filter(|(key, _)| !(simplified && key == "isSimplified"))
        .map(
            |(key, value)| {
                if simplified { Cow::Borrowed(value.as_str()) } else { format!("{key}:{value}").into() }
            },
        )
        .collect();
    parts.join("/")
}

/// Key of a command unit's stream.
pub fn unit_key(base: &str, unit: &str) -> String {
    format!("{base}-commandUnit:{unit}")
}

/// The unit's name in a key that [`unit_key`] made.
pub fn unit_of(key: &str) -> Option<(&str, &str)> {
    key.split_once("-commandUnit:")
}

/// The abstractions of a step in their order: account, organisation, project, pipeline, run, then one level for each
/// identifier on the path from `pipeline` to the step. The last level carries `_<n>` for the n-th retry.
pub fn abstractions(
    account: &str,
    org: &str,
    project: &str,
    pipeline: &str,
    run: u64,
    path: &[&str],
    retry: u32,
) -> Vec<(String, String)> {
    let mut pairs = vec![
        ("accountId".to_owned(), account.to_owned()),
        ("orgId".to_owned(), org.to_owned()),
        ("projectId".to_owned(), project.to_owned()),
        ("pipelineId".to_owned(), pipeline.to_owned()),
        ("runSequence".to_owned(), run.to_string()),
    ];
    for (level, identifier) in path.iter().enumerate() {
        let last = level + 1 == path.len();
        let value =
            if last && retry > 0 { format!("{identifier}_{retry}") } else { (*identifier).to_owned() };
        pairs.push((format!("level{level}"), value));
    }
    pairs
}

/// Reply to a stream call with `resume` or `seq` (ADR 0002): the number of the line that is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamNext {
    /// From 0.
    pub next: u64,
}

/// What a [`StreamCall`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StreamVerb {
    /// `POST /stream` with `resume=true`.
    Open,
    /// `PUT /stream` with `seq`.
    Append,
    /// `DELETE /stream` with `snapshot=true`.
    Close,
    /// The three of them, one after the other: a log that is whole already (extension `logWhole`). A gap leaves the
    /// stream open.
    Whole,
}

/// One of the calls of a `POST /stream/batch` (ADR 0002): the same as the single call, with its own token. The body is a
/// list of at most [`MAX_STREAM_CALLS`](crate::limits::MAX_STREAM_CALLS), the reply a list of [`StreamReply`] in the same order. Calls are carried
/// out in their order, each by itself: one that is refused does not stop the others. May be repeated as a whole.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamCall {
    /// What to do.
    pub verb: StreamVerb,
    /// The stream.
    pub key: String,
    /// Log token for this key.
    pub token: String,
    /// Number of the first line, with `Append` and `Whole`.
    #[serde(default)]
    pub seq: u64,
    /// JSON list of lines, with `Append` and `Whole`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Box<serde_json::value::RawValue>>,
}

/// What became of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamReply {
    /// Status of the single call; 404 where the stream is not open.
    pub status: u16,
    /// Number of the line that is expected next, with status 200 and 409 of `Open`, `Append` and
    /// `Whole`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_written_as_the_facts_show_it() {
        let line = LogLine::new(Level::Info, 0, 1_704_164_645_678, "text");
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"level":"INFO","pos":0,"out":"text","time":"2024-01-02T03:04:05.678Z","args":null}"#
        );
    }

    #[test]
    fn lines_of_other_writers_are_read() {
        let body = br#"[{"level":"info","pos":3,"out":"a\n","time":"2024-01-02T03:04:05.678901234+01:00"},
            {"level":"WARNING","args":{"k":"v"}},{"out":"x","level":null},{"level":"odd","unknown":1}]"#;
        let lines = decode_lines(body).unwrap();
        assert_eq!((lines[0].pos, lines[0].time_ms), (3, 1_704_161_045_678));
        assert_eq!(lines[1].level, Level::Warn);
        assert_eq!(lines[2].level, Level::Info);
        assert_eq!(lines[3].level, Level::Info);
        assert!(decode_lines(b"null").unwrap().is_empty());
        assert!(decode_lines(b"[]").unwrap().is_empty());
    }

    #[test]
    fn bad_elements_are_named() {
        let cases: [(&[u8], usize, &str); 4] = [
            (b"[{},null]", 1, "null"),
            (br#"[{"time":"yesterday"}]"#, 0, "`time` is not RFC 3339"),
            (br#"[{"pos":"x"}]"#, 0, "a field has the wrong type"),
            (br#"[{"args":{"a":1}}]"#, 0, "a field has the wrong type"),
        ];
        for (body, index, problem) in cases {
            assert_eq!(decode_lines(body), Err(LineError::BadLine { index, problem }));
        }
        assert_eq!(decode_lines(b"{}"), Err(LineError::NotAList));
    }

    #[test]
    fn keys_follow_both_forms() {
        let pairs = abstractions("a", "default", "p", "pl", 7, &["pipeline", "stages", "deploy"], 0);
        let base = base_key(&pairs);
        assert_eq!(
            unit_key(&base, "Execute"),
            "accountId:a/orgId:default/projectId:p/pipelineId:pl/runSequence:7/level0:pipeline/level1:stages/level2:deploy-commandUnit:Execute"
        );
        assert_eq!(unit_of(&unit_key(&base, "Execute")), Some((base.as_str(), "Execute")));
        let simple =
            [("accountId", "a"), ("entityType", "pipeline"), ("runSequence", "7"), ("isSimplified", "true")];
        let simple: Vec<_> = simple.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(base_key(&simple), "a/pipeline/7");
        assert!(
            base_key(&abstractions("a", "o", "p", "pl", 7, &["x", "y"], 2)).ends_with("level0:x/level1:y_2")
        );
    }

    #[test]
    fn long_lines_are_cut_on_a_character_border() {
        for width in ["a", "é", "€", "😀"] {
            let long = width.repeat(MAX_LOG_LINE_BYTES + 1);
            let cut = cut_line(&long);
            assert!(cut.len() <= MAX_LOG_LINE_BYTES && cut.len() > MAX_LOG_LINE_BYTES - 4);
            assert!(cut.ends_with(CUT_MARK));
        }
        assert!(matches!(cut_line("short"), Cow::Borrowed("short")));
    }

    proptest! {
        #[test]
        fn lines_survive(out: String, pos in 0..i64::MAX, time_ms in 0_i64..253_402_214_400_000) {
            let line = LogLine { level: Level::Error, pos, out, time_ms, args: None };
            let body = serde_json::to_vec(&[&line]).unwrap();
            prop_assert_eq!(decode_lines(&body).unwrap(), [line]);
        }

        #[test]
        fn any_time_can_be_written(time_ms: i64) {
            prop_assert!(rfc3339(time_ms).parse::<Timestamp>().is_ok());
        }

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _unused = decode_lines(&bytes);
        }

        #[test]
        fn any_json_is_answered(value in crate::tests::any_json()) {
            let _unused = decode_lines(value.to_string().as_bytes());
            let _unused = decode_lines(serde_json::json!([value]).to_string().as_bytes());
        }

        #[test]
        fn any_key_is_answered(pairs: Vec<(String, String)>, text: String) {
            let base = base_key(&pairs);
            prop_assert!(unit_key(&base, &text).starts_with(&base));
            let _unused = unit_of(&text);
        }
    }
}
