//! YAML and JSON text to objects.
//!
//! Scalars are read as `kubectl` reads them (the rules of YAML 1.1: `0644` is octal, `yes` is true), because manifests
//! are written against that; a reader of YAML 1.2 would give files other permissions than their author meant.

use super::Object;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Longest text of one file. Large CRD bundles are a tenth of it.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Deepest nesting.
const MAX_DEPTH: usize = 100;
/// Most values in one file, aliases counted as expanded.
const MAX_NODES: usize = 2_000_000;

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentFault {
    /// File.
    pub source: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl fmt::Display for DocumentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.source, self.line, self.problem)
    }
}

/// Reads every object of a text with one or more documents. `kind: List` is taken apart, empty documents are left out.
///
/// **Errors**: every document that is not an object; a syntax error ends the reading.
pub fn parse_text(source: &str, text: &str) -> Result<Vec<Object>, Vec<DocumentFault>> {
    let mut objects = Vec::new();
    let mut faults = Vec::new();
    let documents = match documents(text) {
        Ok(documents) => documents,
        Err((line, problem)) => {
            return Err(vec![DocumentFault { source: source.to_owned(), line, problem }]);
        }
    };
    for (line, value) in documents {
        let mut fault = |problem: String| {
            faults.push(DocumentFault { source: source.to_owned(), line, problem });
        };
        match value {
            Value::Null => {}
            Value::Object(mut map) => {
                let list = map.get("kind").and_then(Value::as_str) == Some("List");
                match map.get_mut("items").map(Value::take) {
                    Some(Value::Array(items)) if list => {
                        for (number, item) in items.into_iter().enumerate() {
                            match Object::new(item, source) {
                                Ok(object) => objects.push(object),
                                Err(problem) => fault(format!("items[{number}]: {problem}")),
                            }
                        }
                    }
                    other => {
                        if let Some(items) = other {
                            map.insert("items".to_owned(), items);
                        }
                        match Object::new(Value::Object(map), source) {
                            Ok(object) => objects.push(object),
                            Err(problem) => fault(problem),
                        }
                    }
                }
            }
            other => {
                let found = if other.is_array() { "a list" } else { "a single value" };
                fault(format!("a document must be a map with apiVersion, kind and metadata, found {found}"));
            }
        }
    }
    if faults.is_empty() { Ok(objects) } else { Err(faults) }
}

/// Reads a text that holds one document of any shape, such as a patch.
///
/// **Errors**: the line and what is wrong with it.
pub fn parse_document(text: &str) -> Result<Value, (usize, String)> {
    let found = documents(text)?;
    match found.len() {
        0 | 1 => Ok(found.into_iter().next().map_or(Value::Null, |(_, value)| value)),
        many => Err((1, format!("expected one document, found {many}"))),
    }
}

type Problem = (usize, String);

fn documents(text: &str) -> Result<Vec<(usize, Value)>, Problem> {
    if text.len() > MAX_BYTES {
        return Err((1, format!("the file has {} bytes; the limit is {MAX_BYTES}", text.len())));
    }
    let mut builder = Builder::default();
    for item in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        match item {
            Ok((event, span)) => builder.event(event, span.start)?,
            Err(error) => {
                return Err((error.marker().line(), format!("is not valid YAML: {}", error.info())));
            }
        }
    }
    Ok(builder.documents)
}

enum Open {
    List { items: Vec<Value>, anchor: usize, before: usize },
    Map { map: Map<String, Value>, merges: Vec<Value>, key: Option<String>, anchor: usize, before: usize },
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    documents: Vec<(usize, Value)>,
    start: usize,
    anchors: BTreeMap<usize, (Value, usize)>,
    nodes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, mark: Marker) -> Result<(), Problem> {
        let line = mark.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, line)?;
                // A key is a text as written: `n: 1` and `on: x` are fields, whatever YAML 1.1 says.
                let is_key = matches!(self.stack.last(), Some(Open::Map { key: None, .. }));
                let tagged = tag.is_some_and(|tag| tag.suffix == "str");
                let as_text = style != ScalarStyle::Plain || is_key || tagged;
                let value = if as_text {
                    Value::String(text.into_owned())
                } else {
                    resolve(&text).map_err(|problem| (line, problem))?
                };
                self.add(value, anchor, 1, line)
            }
            Event::SequenceStart(anchor, _) => {
                self.deeper(line)?;
                self.stack.push(Open::List { items: Vec::new(), anchor, before: self.nodes });
                Ok(())
            }
            Event::MappingStart(anchor, _) => {
                self.deeper(line)?;
                let (map, merges) = (Map::new(), Vec::new());
                self.stack.push(Open::Map { map, merges, key: None, anchor, before: self.nodes });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::List { items, anchor, before }) => {
                    let size = self.nodes - before + 1;
                    self.add(Value::Array(items), anchor, size, line)
                }
                Some(Open::Map { mut map, merges, anchor, before, .. }) => {
                    merges.into_iter().for_each(|from| merge(&mut map, from));
                    let size = self.nodes - before + 1;
                    self.add(Value::Object(map), anchor, size, line)
                }
                None => Ok(()),
            },
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((value, size)) => {
                    self.count(size, line)?;
                    self.add(value, 0, size, line)
                }
                None => Err((line, "the alias stands inside its own anchor".to_owned())),
            },
            Event::DocumentStart(_) => {
                self.anchors.clear();
                self.start = line;
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn count(&mut self, more: usize, line: usize) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MAX_NODES {
            return Err((line, format!("the file has more than {MAX_NODES} values, aliases expanded")));
        }
        Ok(())
    }

    fn deeper(&mut self, line: usize) -> Result<(), Problem> {
        if self.stack.len() >= MAX_DEPTH {
            return Err((line, format!("the document is nested deeper than {MAX_DEPTH} levels")));
        }
        self.count(1, line)
    }

    fn add(&mut self, value: Value, anchor: usize, size: usize, line: usize) -> Result<(), Problem> {
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), size));
        }
        match self.stack.last_mut() {
            None => self.documents.push((self.start.max(1), value)),
            Some(Open::List { items, .. }) => items.push(value),
            Some(Open::Map { map, merges, key, .. }) => match key.take() {
                None => *key = Some(key_text(value).map_err(|problem| (line, problem))?),
                Some(name) if name == "<<" => merges.push(value),
                Some(name) => {
                    if map.contains_key(&name) {
                        return Err((line, format!("the key `{name}` is written twice")));
                    }
                    map.insert(name, value);
                }
            },
        }
        Ok(())
    }
}

fn key_text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err("a key must be a text, found a list or map".to_owned()),
    }
}

fn merge(map: &mut Map<String, Value>, from: Value) {
    match from {
        Value::Object(other) => {
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
        }
        Value::Array(list) => list.into_iter().for_each(|value| merge(map, value)),
        _ => {}
    }
}

/// A plain scalar by the rules of YAML 1.1 as `kubectl` applies them.
fn resolve(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Ok(Value::Bool(true));
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Ok(Value::Bool(false));
        }
        _ => {}
    }
    let starts = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if !starts {
        return Ok(Value::String(text.to_owned()));
    }
    if matches!(text.trim_start_matches(['+', '-']), ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Err(format!("`{text}` has no form in JSON; put it in quotes if it is a text"));
    }
    let plain = text.replace('_', "");
    if let Some(number) = integer(&plain) {
        return Ok(Value::Number(number));
    }
    let number = is_float(&plain).then(|| plain.parse().ok().and_then(Number::from_f64)).flatten();
    Ok(number.map_or_else(|| Value::String(text.to_owned()), Value::Number))
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = if let Some(body) = lower.strip_prefix("0x") {
        (16, body)
    } else if let Some(body) = lower.strip_prefix("0b") {
        (2, body)
    } else if let Some(body) = lower.strip_prefix("0o") {
        (8, body)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, lower.get(1..)?)
    } else {
        (10, lower.as_str())
    };
    if body.is_empty() || !body.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let value = u64::from_str_radix(body, radix).ok()?;
    if negative {
        let value = i64::try_from(value).ok()?;
        Some(Number::from(value.checked_neg()?))
    } else {
        Some(Number::from(value))
    }
}

fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa_ok && exponent_ok
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(text: &str) -> Value {
        documents(text).unwrap().remove(0).1
    }

    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        let found = value(
            "a: 0644\nb: yes\nc: \"yes\"\nd: 1e3\ne: 0x1F\nf: 1.20\ng: 1.2.3\nh: off\ni: 08\nj: -5\nk: 100m\nl: ~\nm: !!str 12\nn: 1_000\no: 2024-01-02\n1: x\ntrue: y2\n",
        );
        let wanted = json!({"a": 420, "b": true, "c": "yes", "d": 1000.0, "e": 31, "f": 1.2, "g": "1.2.3", "h": false,
            "i": 8.0, "j": -5, "k": "100m", "l": null, "m": "12", "n": 1000, "o": "2024-01-02", "1": "x", "true": "y2"});
        assert_eq!(found, wanted);
    }

    #[test]
    fn lists_anchors_and_several_documents_become_objects() {
        let text = "# a comment\n---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: &m {name: a, labels: {x: \"1\"}}\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n- &d {apiVersion: v1, kind: Secret, metadata: {name: c}}\n- <<: *d\n  metadata: {name: d, namespace: n}\n";
        let objects = parse_text("f.yaml", text).unwrap();
        let names: Vec<String> = objects.iter().map(|o| o.reference().to_string()).collect();
        assert_eq!(names, ["ConfigMap/a", "Secret/b", "Secret/c", "n/Secret/d"]);
    }

    #[test]
    fn every_wrong_document_is_named_with_its_line() {
        let text = "apiVersion: v1\nkind: ConfigMap\n---\n- 1\n---\napiVersion: v1\nkind: X\nmetadata: {name: a, labels: {v: 1}}\n";
        let faults = parse_text("f.yaml", text).unwrap_err();
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("f.yaml:1: `metadata.name`"), "{faults:?}");
        assert!(faults[1].contains("found a list"), "{faults:?}");
        assert!(faults[2].contains("`metadata.labels.v` must be a text, found a number"), "{faults:?}");
        assert!(parse_text("f", "a: 1\na: 2\n").unwrap_err()[0].problem.contains("twice"));
        assert!(parse_text("f", "a: [1\n").unwrap_err()[0].problem.contains("YAML"));
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 1..9 {
            let refs = vec![format!("*a{}", n - 1); 10].join(",");
            text.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
        }
        assert!(parse_text("f", &text).unwrap_err()[0].problem.contains("values"));
        assert!(parse_text("f", &"[".repeat(5000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\n]{0,200}") {
            let _either = parse_text("f", &text);
        }
    }
}
