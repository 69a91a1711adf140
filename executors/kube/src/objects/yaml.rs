//! Objects as canonical YAML: keys sorted, block style. The same document always gives the same text.

use serde_json::Value;

/// `value` as YAML with a newline at the end.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut text),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut text),
        other => {
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for key in keys {
                let Some(value) = map.get(key) else { continue };
                text.push_str(&indent);
                text.push_str(&plain(key));
                text.push(':');
                entry(value, depth, text);
            }
        }
        Value::Array(list) => {
            for value in list {
                text.push_str(&indent);
                text.push('-');
                match value {
                    Value::Object(map) if !map.is_empty() => {
                        let mut inner = String::new();
                        block(value, depth + 1, &mut inner);
                        // The first key stands on the line of the dash.
                        text.push(' ');
                        text.push_str(inner.trim_start());
                    }
                    _ => entry(value, depth, text),
                }
            }
        }
        _ => {}
    }
}

fn entry(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            block(value, depth + 1, text);
        }
        Value::Array(list) if !list.is_empty() => {
            text.push('\n');
            block(value, depth + 1, text);
        }
        Value::String(lines) if is_block(lines) => {
            // `-` when no newline ends the text, `+` when several do.
            let chomp = match lines.strip_suffix('\n') {
                None => "-",
                Some(rest) if rest.ends_with('\n') => "+",
                Some(_) => "",
            };
            text.push_str(&format!(" |{chomp}\n"));
            let indent = "  ".repeat(depth + 1);
            for line in lines.strip_suffix('\n').unwrap_or(lines).split('\n') {
                if !line.is_empty() {
                    text.push_str(&indent);
                    text.push_str(line);
                }
                text.push('\n');
            }
        }
        other => {
            text.push(' ');
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

/// Whether a text can stand as a literal block: several lines, no character that needs an escape, no line that YAML
/// would read differently.
fn is_block(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control())
        && !text.contains(['\u{feff}', '\u{85}', '\u{2028}', '\u{2029}'])
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// A text as a plain scalar where every reader takes it for a text, else quoted as in JSON, which YAML includes.
fn plain(text: &str) -> String {
    let safe = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@ ".contains(c) || c == ':')
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null"
        );
    if safe { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::parse_text;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_and_odd_texts_quoted() {
        let text = to_yaml(&json!({"b": [{"y": 1, "x": "on"}, "a: b", [1], {}], "a": {"k": "l1\nl2\n"}}));
        assert_eq!(
            text,
            "a:\n  k: |\n    l1\n    l2\nb:\n  - x: \"on\"\n    \"y\": 1\n  - \"a: b\"\n  -\n    - 1\n  - {}\n"
        );
    }

    fn document() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\n\téü\u{2028}]{0,20}".prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z0-9:# .-]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(value in document()) {
            let whole = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": value});
            let read = parse_text("t", &to_yaml(&whole)).unwrap();
            proptest::prop_assert_eq!(&read[0].value, &whole);
        }
    }
}
