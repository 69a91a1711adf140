//! Values of expressions, their text forms and the taint mark.

use crate::moment::Moment;
use indexmap::IndexMap;
use std::fmt;
use std::sync::Arc;

/// Ordered map from key to value.
pub type Map = IndexMap<Arc<str>, Value>;

/// A string with its taint mark.
///
/// A tainted string came from outside of the pipeline text: a trigger payload, an HTTP response, a step output, an
/// approver's input, or anything computed from one. It is used as it stands and never resolved again, so that a webhook
/// body cannot ask for a secret (pipeline.md §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Str {
    /// The characters.
    pub text: Arc<str>,
    /// Whether it came from outside.
    pub tainted: bool,
}

/// A value. Clones are cheap: strings, lists and maps are shared.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// No value.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number. Arithmetic that leaves this range goes on in [`Value::Float`].
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Str(Str),
    /// A list.
    List(Arc<Vec<Value>>),
    /// A map in the order of insertion.
    Map(Arc<Map>),
    /// A date or a time of the `datetime` functor; everywhere else it behaves as its text.
    Moment(Moment),
}

/// One part of a path: `.name`, `["name"]` or `[3]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// A name or a quoted key.
    Name(Arc<str>),
    /// A position in a list; on a map it is the key of the same digits.
    Index(i64),
}

impl Segment {
    /// The name, unless this is a position.
    pub fn name(&self) -> Option<&str> {
        match self {
            Segment::Name(name) => Some(name),
            Segment::Index(_) => None,
        }
    }
}

impl From<&str> for Segment {
    fn from(name: &str) -> Self {
        Segment::Name(name.into())
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Segment::Name(name) => f.write_str(name),
            Segment::Index(index) => write!(f, "{index}"),
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A path as an author writes it: `a.b[0]`; a key that is no identifier stands as `["key"]`.
pub fn path_text(path: &[Segment]) -> String {
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Name(name) if is_identifier(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Segment::Name(name) => {
                out.push_str("[\"");
                out.push_str(name);
                out.push_str("\"]");
            }
            Segment::Index(index) => {
                out.push('[');
                out.push_str(&index.to_string());
                out.push(']');
            }
        }
    }
    out
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$')
}

impl Value {
    /// Text written in the pipeline or its entities; expressions inside it are resolved when it is looked up.
    pub fn text(text: impl Into<Arc<str>>) -> Value {
        Value::Str(Str { text: text.into(), tainted: false })
    }

    /// Text from outside, or text that was rendered before: it is never resolved again.
    pub fn tainted(text: impl Into<Arc<str>>) -> Value {
        Value::Str(Str { text: text.into(), tainted: true })
    }

    /// Text with the given mark.
    pub fn text_marked(text: impl Into<Arc<str>>, tainted: bool) -> Value {
        Value::Str(Str { text: text.into(), tainted })
    }

    /// A list.
    pub fn list(items: Vec<Value>) -> Value {
        Value::List(Arc::new(items))
    }

    /// A map.
    pub fn map(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
        Value::Map(Arc::new(entries.into_iter().map(|(k, v)| (Arc::from(k), v)).collect()))
    }

    /// From JSON; `tainted` marks every string in it. A whole number beyond `i64` becomes a [`Value::Float`].
    pub fn from_json(json: &serde_json::Value, tainted: bool) -> Value {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => match n.as_i64() {
                Some(i) => Value::Int(i),
                None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(s) => Value::text_marked(s.as_str(), tainted),
            serde_json::Value::Array(items) => {
                Value::list(items.iter().map(|item| Value::from_json(item, tainted)).collect())
            }
            serde_json::Value::Object(entries) => Value::Map(Arc::new(
                entries.iter().map(|(k, v)| (Arc::from(k.as_str()), Value::from_json(v, tainted))).collect(),
            )),
        }
    }

    /// To JSON. A number that JSON cannot hold becomes null.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => serde_json::Value::Bool(*b),
            Value::Int(i) => serde_json::Value::from(*i),
            Value::Float(f) => serde_json::Value::from(*f),
            Value::Str(s) => serde_json::Value::String(s.text.to_string()),
            Value::List(items) => serde_json::Value::Array(items.iter().map(Value::to_json).collect()),
            Value::Map(entries) => {
                serde_json::Value::Object(entries.iter().map(|(k, v)| (k.to_string(), v.to_json())).collect())
            }
            Value::Moment(moment) => serde_json::Value::String(moment.to_string()),
        }
    }

    /// Whether any string in it is tainted.
    pub fn is_tainted(&self) -> bool {
        match self {
            Value::Str(s) => s.tainted,
            Value::List(items) => items.iter().any(Value::is_tainted),
            Value::Map(entries) => entries.values().any(Value::is_tainted),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Moment(_) => false,
        }
    }

    /// The same value with every string marked as coming from outside.
    #[must_use]
    pub fn into_tainted(self) -> Value {
        match self {
            Value::Str(s) => Value::tainted(s.text),
            Value::List(items) => Value::list(items.iter().cloned().map(Value::into_tainted).collect()),
            Value::Map(entries) => Value::Map(Arc::new(
                entries.iter().map(|(k, v)| (k.clone(), v.clone().into_tainted())).collect(),
            )),
            other => other,
        }
    }

    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The characters, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(&s.text),
            _ => None,
        }
    }

    /// Name of the type, for messages: `null`, `boolean`, `integer`, `number`, `text`, `list`, `map`, `time`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int(_) => "integer",
            Value::Float(_) => "number",
            Value::Str(_) => "text",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Moment(_) => "time",
        }
    }

    /// One step down: a map's entry or a list's element. `Ok(None)` is a missing entry of a map, which counts as null;
    /// a position outside of a list and a step into anything else are errors (pipeline.md §3.3).
    pub fn child(&self, segment: &Segment) -> Result<Option<Value>, String> {
        match self {
            Value::Map(entries) => {
                let found = match segment {
                    Segment::Name(name) => entries.get(name.as_ref()),
                    Segment::Index(index) => entries.get(index.to_string().as_str()),
                };
                Ok(found.cloned())
            }
            Value::List(items) => {
                let index = match segment {
                    Segment::Index(index) => *index,
                    Segment::Name(name) if matches!(name.as_ref(), "size" | "length") => {
                        return Ok(Some(Value::Int(count(items.len()))));
                    }
                    Segment::Name(name) => {
                        name.parse().map_err(|_| format!("a list has no property `{name}`"))?
                    }
                };
                let item = usize::try_from(index).ok().and_then(|i| items.get(i));
                item.cloned().map(Some).ok_or_else(|| {
                    format!("position {index} is outside of a list of {} elements", items.len())
                })
            }
            Value::Null => Ok(None),
            Value::Moment(moment) => match segment.name().and_then(|name| moment.property(name)) {
                Some(value) => Ok(Some(value)),
                None => Err(format!("a time has no property `{segment}`")),
            },
            other => Err(format!("a value of type {} has no property `{segment}`", other.type_name())),
        }
    }
}

/// A length as a number.
pub(crate) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        Value::from_json(&json, false)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::text(text)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Value::Int(n)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}

impl fmt::Display for Value {
    /// The text that rendering puts in place of an expression: `null`, compact JSON for lists and maps, Java's forms
    /// for numbers (pipeline.md §3.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(i) => write!(f, "{i}"),
            Value::Float(x) => f.write_str(&float_text(*x)),
            Value::Str(s) => f.write_str(&s.text),
            Value::List(_) | Value::Map(_) => write!(f, "{}", self.to_json()),
            Value::Moment(moment) => write!(f, "{moment}"),
        }
    }
}

/// A double as Java prints it: `1.5`, `3.0`, `1.0E10`.
fn float_text(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = x.abs();
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{x:?}");
    }
    let scientific = format!("{x:e}");
    match scientific.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => format!("{digits}E{exponent}"),
        Some((digits, exponent)) => format!("{digits}.0E{exponent}"),
        None => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_java_prints_them() {
        for (x, text) in [
            (1.5, "1.5"),
            (3.0, "3.0"),
            (-0.25, "-0.25"),
            (1e7, "1.0E7"),
            (9_999_999.0, "9999999.0"),
            (1.25e-5, "1.25E-5"),
            (0.001, "0.001"),
            (0.0, "0.0"),
        ] {
            assert_eq!(Value::Float(x).to_string(), text);
        }
    }

    #[test]
    fn containers_print_as_compact_json_in_their_order() {
        let json = serde_json::json!({"b": [1, "x", null], "a": {"k": true}});
        assert_eq!(Value::from(json.clone()).to_string(), r#"{"b":[1,"x",null],"a":{"k":true}}"#);
        assert_eq!(Value::from(json.clone()).to_json(), json);
    }

    #[test]
    fn taint_reaches_every_string_and_survives_containers() {
        let value = Value::from_json(&serde_json::json!({"a": [{"b": "x"}]}), true);
        assert!(value.is_tainted());
        assert!(!Value::from(serde_json::json!({"a": ["x"]})).is_tainted());
        assert!(Value::from(serde_json::json!({"a": ["x"]})).into_tainted().is_tainted());
    }

    #[test]
    fn a_missing_entry_is_null_but_a_missing_element_is_an_error() {
        let value = Value::from(serde_json::json!({"l": [1]}));
        assert_eq!(value.child(&"nope".into()), Ok(None));
        let list = value.child(&"l".into()).unwrap().unwrap();
        assert_eq!(list.child(&Segment::Index(0)), Ok(Some(Value::Int(1))));
        assert_eq!(list.child(&"0".into()), Ok(Some(Value::Int(1))));
        assert!(list.child(&Segment::Index(1)).unwrap_err().contains("outside of a list of 1"));
        assert!(Value::Int(1).child(&"x".into()).is_err());
    }
}
