//! Lines as they arrive: checked, and kept as the bytes they came in wherever possible.

use bytes::Bytes;
use proto::logs::LogLine;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A batch cannot be taken. Repeats no log text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLines {
    /// Not a list.
    #[error("the body is not a JSON list of log lines")]
    NotAList,
    /// An element that is no line.
    #[error("element {0} of the list is not a log line")]
    Element(usize),
}

/// The fields of a complete line, unparsed.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    level: &'a RawValue,
    #[serde(borrow)]
    pos: &'a RawValue,
    #[serde(borrow)]
    out: &'a RawValue,
    #[serde(borrow)]
    time: &'a RawValue,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

/// The lines of a `PUT /stream` body, each as one JSON document without a newline. `null` elements are left out; the real
/// service dies of them.
pub(super) fn decode(body: &Bytes) -> Result<Vec<Bytes>, BadLines> {
    let elements: Option<Vec<Option<&RawValue>>> =
        serde_json::from_slice(body).map_err(|_| BadLines::NotAList)?;
    let mut lines = Vec::new();
    for (index, element) in elements.unwrap_or_default().into_iter().enumerate() {
        let Some(element) = element else { continue };
        if is_canonical(element) {
            // A slice of the body: no copy. The chunk file gets the bytes the client wrote.
            lines.push(body.slice_ref(element.get().as_bytes()));
        } else {
            let line: LogLine = serde_json::from_str(element.get()).map_err(|_| BadLines::Element(index))?;
            if !types_fit(element) {
                return Err(BadLines::Element(index));
            }
            let text = serde_json::to_vec(&line).map_err(|_| BadLines::Element(index))?;
            lines.push(Bytes::from(text));
        }
    }
    Ok(lines)
}

/// Whether every field is there, of its type, with a plain UTC time, in one text line.
fn is_canonical(element: &RawValue) -> bool {
    let text = element.get();
    let Ok(fields) = serde_json::from_str::<Fields<'_>>(text) else { return false };
    !text.as_bytes().contains(&b'\n')
        && is_text(fields.level)
        && is_integer(fields.pos)
        && is_text(fields.out)
        && fields.args.is_none_or(|args| args.get() == "null")
        && is_plain_time(fields.time.get())
}

/// The real service refuses numbers in texts; our reader of lines would take them.
fn types_fit(element: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Loose<'a> {
        #[serde(borrow, default)]
        pos: Option<&'a RawValue>,
    }
    serde_json::from_str::<Loose<'_>>(element.get())
        .is_ok_and(|loose| loose.pos.is_none_or(|pos| pos.get() == "null" || is_integer(pos)))
}

fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

fn is_integer(value: &RawValue) -> bool {
    value.get().parse::<i64>().is_ok()
}

/// `"YYYY-MM-DDTHH:MM:SS[.fraction]Z"` with sensible numbers.
fn is_plain_time(json: &str) -> bool {
    let Some(text) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix("Z\"")) else { return false };
    let Some((whole, rest)) = text.as_bytes().split_at_checked(19) else { return false };
    let shape = whole.iter().zip(b"0000-00-00T00:00:00").all(|(is, want)| match want {
        b'0' => is.is_ascii_digit(),
        other => is == other,
    });
    let number =
        |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<u32>().ok());
    let fits = |range, most| number(range).is_some_and(|value| value <= most);
    let fraction = match rest {
        [] => true,
        [b'.', digits @ ..] => {
            !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    // Days up to 28 exist in every month; others take the careful way.
    shape
        && fraction
        && number(5..7).is_some_and(|month| (1..=12).contains(&month))
        && number(8..10).is_some_and(|day| (1..=28).contains(&day))
        && fits(11..13, 23)
        && fits(14..16, 59)
        && fits(17..19, 59)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Result<Vec<String>, BadLines> {
        Ok(decode(&Bytes::from(body.to_owned()))?
            .into_iter()
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect())
    }

    #[test]
    fn a_complete_line_is_kept_byte_for_byte() {
        let line =
            r#"{"level":"info","pos":3,"out":"a\u2028<&>\n","time":"2024-01-02T03:04:05.678Z","args":null}"#;
        assert_eq!(texts(&format!("[ {line} , null,{line}]")).unwrap(), [line, line]);
    }

    #[test]
    fn what_is_missing_or_spread_over_lines_is_written_anew() {
        let line = &texts("[{\"out\":\n\"x\"}]").unwrap()[0];
        assert!(!line.contains('\n') && line.contains("\"x\"") && line.contains("\"time\""), "{line}");
        assert_eq!(
            texts(r#"[{"out":"x","time":"2024-02-29T00:00:00+01:00","level":"INFO","pos":0}]"#)
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn empty_batches_are_none() {
        assert!(texts("[]").unwrap().is_empty());
        assert!(texts("null").unwrap().is_empty());
        assert!(texts("[null]").unwrap().is_empty());
    }

    #[test]
    fn what_the_real_service_refuses_is_refused() {
        assert_eq!(texts("{}"), Err(BadLines::NotAList));
        assert_eq!(texts("[{"), Err(BadLines::NotAList));
        assert_eq!(texts(""), Err(BadLines::NotAList));
        for bad in [
            r#"{"time":"yesterday"}"#,
            r#"{"pos":"7"}"#,
            r#"{"out":7}"#,
            r#"{"args":{"a":1}}"#,
            "7",
            r#"{"level":"INFO","pos":0,"out":"x","time":"2024-13-02T03:04:05Z"}"#,
            r#"{"level":"INFO","pos":0,"out":"x","time":"2023-02-29T03:04:05Z"}"#,
        ] {
            assert_eq!(texts(&format!("[{bad}]")), Err(BadLines::Element(0)), "{bad}");
        }
    }
}
