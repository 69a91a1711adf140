//! Takes clear values out of secret documents before anything else sees them.
//!
//! Harness' `SecretText` may carry its value inline. Such a value goes into the sealed store; the text that is parsed,
//! stored and shown has an empty one in its place, with every other character where it was.

use crate::secrets::SecretBytes;
use pipeline::fault::Place;
use pipeline::yaml::{Node, parse_documents};

/// A value that stood in a document.
pub(super) struct ClearValue {
    /// Index of the document in its file, counting those that are not empty.
    pub(super) document: usize,
    /// Where it stood.
    pub(super) at: Place,
    /// The value.
    pub(super) value: SecretBytes,
}

/// A text without clear values, and the values.
pub(super) struct Cleaned {
    /// The text; equal to what came in when there was nothing to take out.
    pub(super) text: String,
    /// What was taken out.
    pub(super) values: Vec<ClearValue>,
}

/// Takes the inline values out of `text`.
///
/// **Errors**: the place of a value that cannot be told apart from the text around it (an anchor, an alias). A text
/// that is no YAML comes back as it is: the parser says what is wrong with it.
pub(super) fn take_out(source: &str, text: &str) -> Result<Cleaned, Place> {
    let Ok(documents) = parse_documents(source, text) else {
        return Ok(Cleaned { text: text.to_owned(), values: Vec::new() });
    };
    let mut cleaned = text.to_owned();
    let mut values = Vec::new();
    for (document, node) in documents.iter().enumerate() {
        let Some(value) = inline_value(node) else { continue };
        let Some(clear) = value.as_str().filter(|clear| !clear.is_empty()) else { continue };
        cleaned = blank(&cleaned, &value.at).ok_or_else(|| value.at.clone())?;
        values.push(ClearValue {
            document,
            at: value.at.clone(),
            value: SecretBytes::new(clear.as_bytes().to_vec()),
        });
    }
    if let Some(first) = values.first() {
        // Trust the parser and not the scan above: everything else must read as it did, and the values must be gone.
        let faithful =
            parse_documents(source, &cleaned).is_ok_and(|after| same_but_values(&documents, &after));
        let place = first.at.clone();
        if !faithful {
            return Err(place);
        }
    }
    Ok(Cleaned { text: cleaned, values })
}

fn inline_value(document: &Node) -> Option<&Node> {
    let secret = document.get("secret")?;
    let kind = secret.get("type")?.as_str()?;
    let reference = secret.at_path(&["spec", "valueType"]).and_then(Node::as_str);
    let holds_value = ["SecretText", "SecretFile"].iter().any(|known| known.eq_ignore_ascii_case(kind));
    let is_reference = reference.is_some_and(|kind| kind.eq_ignore_ascii_case("Reference"));
    if holds_value && !is_reference { secret.at_path(&["spec", "value"]) } else { None }
}

fn same_but_values(before: &[Node], after: &[Node]) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|(before, after)| {
            let mut expected = before.to_json();
            if inline_value(before).is_some_and(|value| value.as_str().is_some_and(|text| !text.is_empty()))
                && let Some(value) = expected.pointer_mut("/secret/spec/value")
            {
                *value = serde_json::Value::from("");
            }
            expected == after.to_json()
        })
}

/// `text` with the scalar that begins at `at` replaced by `""` and blanks; line breaks stay, so that places stay.
fn blank(text: &str, at: &Place) -> Option<String> {
    let line_start = text
        .split_inclusive('\n')
        .take(usize::try_from(at.line).ok()?.checked_sub(1)?)
        .map(str::len)
        .sum::<usize>();
    let line = text.get(line_start..)?.lines().next()?;
    let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
    let mut start = line_start + line.char_indices().nth(column).map(|(at, _)| at)?;
    let mut rest = text.get(start..)?;
    // Where the parser points inside of a block scalar, its header stands behind the key on the line of the key.
    let mut first = rest.chars().next()?;
    if !matches!(first, '|' | '>' | '"' | '\'')
        && let Some(header) = block_header_before(text, start)
    {
        start = header;
        rest = text.get(start..)?;
        first = rest.chars().next()?;
    }
    let length = match first {
        '"' => quoted(rest, '"')?,
        '\'' => quoted(rest, '\'')?,
        '|' | '>' => block(text, start)?,
        '&' | '*' | '!' => return None,
        _ => plain(rest),
    };
    let end = start + length;
    let scalar = text.get(start..end)?;
    let mut blanked = String::with_capacity(text.len() + 2);
    blanked.push_str(text.get(..start)?);
    blanked.push_str("\"\"");
    // The two quotes stand for the first two characters; a value of one character moves the rest of its line by one.
    let is_break = |c: char| matches!(c, '\n' | '\r');
    let kept = scalar.chars().enumerate().filter(|(at, c)| *at >= 2 || is_break(*c));
    blanked.extend(kept.map(|(_, c)| if is_break(c) { c } else { ' ' }));
    blanked.push_str(text.get(end..)?);
    Some(blanked)
}

/// Length of a quoted scalar with both quotes.
fn quoted(rest: &str, quote: char) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote == '"' {
            chars.next();
        } else if c == quote {
            if quote == '\'' && chars.peek().is_some_and(|(_, next)| *next == '\'') {
                chars.next();
            } else {
                return Some(at + 1);
            }
        }
    }
    None
}

/// Length of a plain scalar on one line. Longer ones are noticed by the comparison afterwards.
fn plain(rest: &str) -> usize {
    let line = rest.lines().next().unwrap_or_default();
    let comment = line.find(" #").unwrap_or(line.len());
    let flow = line.find([',', '}']).unwrap_or(line.len());
    line.get(..comment.min(flow)).unwrap_or(line).trim_end().len()
}

/// The `|` or `>` of a block scalar whose content begins at `content`.
fn block_header_before(text: &str, content: usize) -> Option<usize> {
    let before = text.get(..content)?;
    let before = before.trim_end_matches([' ', '\t', '\n', '\r']);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.get(line_start..)?;
    let colon = line.find(": ")?;
    let header = line.get(colon + 2..)?.trim_start();
    let is_header = header.starts_with(['|', '>'])
        && header.chars().skip(1).all(|c| c.is_ascii_digit() || matches!(c, '+' | '-'));
    is_header.then(|| line_start + line.len() - header.len())
}

/// Length of a block scalar from its header on: all lines that are blank or deeper than the line of its key.
fn block(text: &str, start: usize) -> Option<usize> {
    let line_start = text.get(..start)?.rfind('\n').map_or(0, |at| at + 1);
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let own = indent(text.get(line_start..start)?);
    let mut lines = text.get(start..)?.split_inclusive('\n');
    let mut length = lines.next()?.len();
    let mut kept = length;
    for line in lines {
        if line.trim().is_empty() {
            length += line.len();
        } else if indent(line) > own {
            length += line.len();
            kept = length;
        } else {
            break;
        }
    }
    // The line break behind the last content line belongs to the next one.
    let scalar = text.get(start..start + kept)?;
    Some(scalar.trim_end_matches(['\n', '\r']).len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(yaml: &str) -> Cleaned {
        take_out("a.yaml", yaml).unwrap_or_else(|place| panic!("refused at {place:?}: {yaml}"))
    }

    fn secret(value: &str) -> String {
        format!(
            "secret:\n  type: SecretText\n  identifier: db\n  spec:\n    valueType: Inline\n    value: {value}\n    secretManagerIdentifier: local\n"
        )
    }

    #[test]
    fn every_way_to_write_a_value_is_taken_out() {
        let cases = [
            ("s3cr3t-hunter", "s3cr3t-hunter"),
            ("s3cr3t # why", "s3cr3t"),
            ("\"s3cr3t \\\" q\"", "s3cr3t \" q"),
            ("'s3cr3t '' q'", "s3cr3t ' q"),
            ("|\n      s3cr3t\n        line two\n\n      line three", "s3cr3t\n  line two\n\nline three\n"),
            ("|-\n      s3cr3t", "s3cr3t"),
            (">-\n      s3cr3t\n      folded", "s3cr3t folded"),
            ("\"s3cr3t\n      folded\"", "s3cr3t folded"),
        ];
        for (written, expected) in cases {
            let out = cleaned(&secret(written));
            assert_eq!(out.values.len(), 1, "{written}");
            assert_eq!(String::from_utf8_lossy(out.values[0].value.expose()), expected, "{written}");
            assert!(!out.text.contains("s3cr3t"), "{}", out.text);
            assert!(!out.text.contains("line t") && !out.text.contains("folded"), "{}", out.text);
            let node = &parse_documents("a.yaml", &out.text).unwrap()[0];
            assert_eq!(node.at_path(&["secret", "spec", "value"]).unwrap().as_str(), Some(""));
            let after = node.at_path(&["secret", "spec", "secretManagerIdentifier"]).unwrap();
            let before = &parse_documents("a.yaml", &secret(written)).unwrap()[0];
            assert_eq!(after.at, before.at_path(&["secret", "spec", "secretManagerIdentifier"]).unwrap().at);
        }
    }

    #[test]
    fn flow_style_and_several_documents_work() {
        let out = cleaned(
            "a: 1\n---\nsecret: {type: SecretText, name: x, spec: {value: s3cr3t, valueType: Inline}}\n",
        );
        assert_eq!(out.values[0].document, 1);
        assert!(!out.text.contains("s3cr3t"));
    }

    #[test]
    fn other_documents_stay_as_they_are() {
        for yaml in [
            "secret:\n  type: SSHKey\n  spec: {value: x}\n",
            "secret:\n  type: SecretText\n  spec: {valueType: Reference, value: path#key}\n",
            "connector:\n  spec: {value: x}\n",
            "secret:\n  type: SecretText\n  spec: {value: ''}\n",
            ": not [yaml",
        ] {
            let out = cleaned(yaml);
            assert_eq!(out.text, yaml);
            assert!(out.values.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused_and_never_kept() {
        for yaml in [
            "secret:\n  type: SecretText\n  name: &v s3cr3t\n  spec:\n    value: *v\n",
            "secret:\n  type: SecretText\n  name: x\n  spec:\n    value: s3cr3t\n      more\n",
        ] {
            match take_out("a.yaml", yaml) {
                Err(place) => assert!(place.line > 0),
                Ok(out) => panic!("kept: {}", out.text),
            }
        }
    }
}
