//! The closed list of methods (pipeline.md §3.3). There is no reflection: what is not here does not exist.

use crate::error::Kind;
use crate::ops::{Fault, same, too_large};
use crate::regexes;
use crate::value::{Str, Value, count};
use std::sync::Arc;

/// Calls `name` on `target`.
pub(crate) fn call(target: &Value, name: &str, arguments: &[Value]) -> Result<Value, Fault> {
    let result = match target {
        Value::Str(s) => text(s, name, arguments)?,
        Value::Int(_) | Value::Float(_) => number(target, name, arguments),
        Value::Bool(_) if name == "toString" => Some(Value::text(target.to_string())),
        Value::List(items) => list(items, target, name, arguments)?,
        Value::Map(entries) => match (name, arguments) {
            ("get", [key]) => Some(entries.get(key.to_string().as_str()).cloned().unwrap_or_default()),
            ("getOrDefault", [key, default]) => {
                Some(entries.get(key.to_string().as_str()).cloned().unwrap_or_else(|| default.clone()))
            }
            ("containsKey", [key]) => Some(Value::Bool(entries.contains_key(key.to_string().as_str()))),
            ("keySet", []) => {
                let tainted = target.is_tainted();
                let keys = entries.keys().map(|k| Value::text_marked(Arc::clone(k), tainted));
                Some(Value::list(keys.collect()))
            }
            ("values", []) => Some(Value::list(entries.values().cloned().collect())),
            ("size", []) => Some(Value::Int(count(entries.len()))),
            ("isEmpty", []) => Some(Value::Bool(entries.is_empty())),
            ("toString", []) => Some(Value::text_marked(target.to_string(), target.is_tainted())),
            _ => None,
        },
        Value::Moment(moment) => match (name, arguments) {
            ("toString", []) => Some(Value::text(moment.to_string())),
            (name, [Value::Int(n)]) => match moment.plus(name, *n) {
                Some(moved) => Some(Value::Moment(moved.map_err(|message| (Kind::Type, message))?)),
                None => None,
            },
            _ => None,
        },
        Value::Null => {
            return Err((Kind::Type, format!("`.{name}()` is called on something without a value (null)")));
        }
        Value::Bool(_) => None,
    };
    result.ok_or_else(|| {
        let plural = if arguments.len() == 1 { "" } else { "s" };
        let message = format!(
            "a {} has no method `{name}` with {} argument{plural}",
            target.type_name(),
            arguments.len()
        );
        (Kind::NotAllowed, message)
    })
}

fn number(target: &Value, name: &str, arguments: &[Value]) -> Option<Value> {
    match (name, arguments, target) {
        ("toString", [], _) => Some(Value::text(target.to_string())),
        ("intValue" | "longValue", [], Value::Int(i)) => Some(Value::Int(*i)),
        // A conversion in Java cuts the fraction and stays within the range, as `as` does.
        #[expect(clippy::cast_possible_truncation, reason = "Cutting is what intValue means.")]
        ("intValue" | "longValue", [], Value::Float(x)) => Some(Value::Int(*x as i64)),
        _ => None,
    }
}

fn list(
    items: &Arc<Vec<Value>>,
    target: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Option<Value>, Fault> {
    let position = |wanted: &Value| items.iter().position(|item| same(item, wanted));
    Ok(Some(match (name, arguments) {
        ("get", [Value::Int(i)]) => match target.child(&crate::value::Segment::Index(*i)) {
            Ok(item) => item.unwrap_or_default(),
            Err(message) => return Err((Kind::Type, message)),
        },
        ("size", []) => Value::Int(count(items.len())),
        ("isEmpty", []) => Value::Bool(items.is_empty()),
        ("contains", [wanted]) => Value::Bool(position(wanted).is_some()),
        ("indexOf", [wanted]) => Value::Int(position(wanted).map_or(-1, count)),
        ("toString", []) => Value::text_marked(target.to_string(), target.is_tainted()),
        _ => return Ok(None),
    }))
}

fn text(s: &Str, name: &str, arguments: &[Value]) -> Result<Option<Value>, Fault> {
    let text = s.text.as_ref();
    let tainted = s.tainted || arguments.iter().any(Value::is_tainted);
    let made = |text: String| Value::text_marked(text, tainted);
    let argument = |i: usize| arguments.get(i).map(ToString::to_string).unwrap_or_default();
    let value = match (name, arguments) {
        ("length" | "size", []) => Value::Int(count(text.chars().count())),
        ("isEmpty", []) => Value::Bool(text.is_empty()),
        ("contains", [_]) => Value::Bool(text.contains(&argument(0))),
        ("startsWith", [_]) => Value::Bool(text.starts_with(&argument(0))),
        ("endsWith", [_]) => Value::Bool(text.ends_with(&argument(0))),
        ("equals", [other]) => Value::Bool(other.as_str() == Some(text)),
        ("equalsIgnoreCase", [other]) => {
            Value::Bool(other.as_str().is_some_and(|other| other.to_lowercase() == text.to_lowercase()))
        }
        ("indexOf", [_]) => Value::Int(position(text, text.find(&argument(0)))),
        ("lastIndexOf", [_]) => Value::Int(position(text, text.rfind(&argument(0)))),
        ("substring", [Value::Int(from)]) => made(slice(text, *from, None)?),
        ("substring", [Value::Int(from), Value::Int(to)]) => made(slice(text, *from, Some(*to))?),
        ("charAt", [Value::Int(at)]) => made(slice(text, *at, at.checked_add(1))?),
        ("concat", [_]) => made(format!("{text}{}", argument(0))),
        ("replace", [_, _]) => made(replace(text, &argument(0), &argument(1))?),
        ("replaceAll", [_, _]) => {
            made(regexes::replace_all(&regexes::find(&argument(0))?, text, &argument(1))?)
        }
        ("split", [_]) => strings(regexes::split(&argument(0), text, 0)?, tainted),
        ("split", [_, Value::Int(limit)]) => strings(regexes::split(&argument(0), text, *limit)?, tainted),
        ("toLowerCase", []) => made(text.to_lowercase()),
        ("toUpperCase", []) => made(text.to_uppercase()),
        ("trim", []) => made(text.trim_matches(|c: char| c <= ' ').to_owned()),
        ("matches", [_]) => Value::Bool(regexes::whole(&argument(0))?.is_match(text)),
        ("toString", []) => Value::Str(s.clone()),
        _ => return Ok(None),
    };
    if value.as_str().is_some_and(|made| made.len() > crate::MAX_TEXT) {
        return Err(too_large());
    }
    Ok(Some(value))
}

fn strings(parts: Vec<String>, tainted: bool) -> Value {
    Value::list(parts.into_iter().map(|part| Value::text_marked(part, tainted)).collect())
}

/// A byte position as a number of characters; -1 for none.
fn position(text: &str, at: Option<usize>) -> i64 {
    at.map_or(-1, |at| count(text.get(..at).unwrap_or("").chars().count()))
}

fn slice(text: &str, from: i64, to: Option<i64>) -> Result<String, Fault> {
    let length = text.chars().count();
    let end = to.unwrap_or_else(|| count(length));
    let outside = || {
        let message = format!("positions {from} to {end} are outside of a text of {length} characters");
        (Kind::Type, message)
    };
    let (Ok(start), Ok(stop)) = (usize::try_from(from), usize::try_from(end)) else { return Err(outside()) };
    if start > stop || stop > length {
        return Err(outside());
    }
    Ok(text.chars().skip(start).take(stop - start).collect())
}

fn replace(text: &str, from: &str, to: &str) -> Result<String, Fault> {
    let times = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
    if times.saturating_mul(to.len()).saturating_add(text.len()) > crate::MAX_TEXT {
        return Err(too_large());
    }
    Ok(text.replace(from, to))
}
