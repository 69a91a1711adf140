//! Readers for documents of AWS. JSON services send numbers and booleans as such, XML services as text; both are taken.

use serde_json::Value;

/// What stands at `path`; `None` when a member is missing.
pub fn at<'a>(document: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(document, |value, name| value.get(name))
}

/// Text at `path`.
pub fn text<'a>(document: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(document, path)?.as_str()
}

/// A number at `path`.
pub fn number(document: &Value, path: &[&str]) -> Option<f64> {
    match at(document, path)? {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    }
}

/// A whole number at `path`.
pub fn whole(document: &Value, path: &[&str]) -> Option<i64> {
    match at(document, path)? {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_i64(),
    }
}

/// A boolean at `path`.
pub fn flag(document: &Value, path: &[&str]) -> Option<bool> {
    match at(document, path)? {
        Value::String(text) => match text.trim() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        },
        value => value.as_bool(),
    }
}

/// The entries of the list at `path`; none when it is missing.
pub fn list<'a>(document: &'a Value, path: &[&str]) -> &'a [Value] {
    at(document, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A point in time at `path`, epoch milliseconds: seconds with a fraction in JSON, ISO 8601 in UTC in XML.
pub fn time(document: &Value, path: &[&str]) -> Option<i64> {
    match at(document, path)? {
        Value::String(text) => iso(text.trim()),
        #[expect(clippy::cast_possible_truncation, reason = "Milliseconds of any date that AWS sends fit.")]
        value => value.as_f64().map(|seconds| (seconds * 1000.0).round() as i64),
    }
}

fn iso(text: &str) -> Option<i64> {
    let date =
        aws_smithy_types::DateTime::from_str(text, aws_smithy_types::date_time::Format::DateTimeWithOffset)
            .ok()?;
    date.to_millis().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_wire_formats_read_the_same() {
        for document in [
            json!({"a": {"n": 3, "f": 0.5, "b": true, "t": "x", "l": [1], "at": 1_700_000_000.25}}),
            json!({"a": {"n": "3", "f": "0.5", "b": "true", "t": "x", "l": ["1"], "at": "2023-11-14T22:13:20.250Z"}}),
        ] {
            assert_eq!(whole(&document, &["a", "n"]), Some(3));
            assert_eq!(number(&document, &["a", "f"]), Some(0.5));
            assert_eq!(flag(&document, &["a", "b"]), Some(true));
            assert_eq!(text(&document, &["a", "t"]), Some("x"));
            assert_eq!(list(&document, &["a", "l"]).len(), 1);
            assert_eq!(time(&document, &["a", "at"]), Some(1_700_000_000_250));
            assert_eq!(text(&document, &["a", "missing", "deeper"]), None);
            assert!(list(&document, &["missing"]).is_empty());
        }
    }
}
