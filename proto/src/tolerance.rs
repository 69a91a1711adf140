//! Decoding rules for what foreign clients write: `null` for "not set", a number where a string belongs and back.

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

/// `null` is the default value.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A string, or a number written as one; `null` and the empty string are `None`.
pub(crate) fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(other) => {
            Err(D::Error::custom(format!("expected a string or a number, found {}", kind(&other))))
        }
    }
}

/// An integer, or a string or fraction that stands for one; `null` is 0. Fractions are cut.
pub(crate) fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        None | Some(Value::Null) => Ok(0),
        Some(Value::Number(number)) => number
            .as_i64()
            .or_else(|| number.as_f64().and_then(whole))
            .ok_or_else(|| D::Error::custom(format!("number {number} is out of range"))),
        Some(Value::String(text)) => {
            text.trim().parse().map_err(|_| D::Error::custom(format!("expected an integer, found `{text}`")))
        }
        Some(other) => Err(D::Error::custom(format!("expected an integer, found {}", kind(&other)))),
    }
}

fn whole(number: f64) -> Option<i64> {
    // Above 2^53 a double holds no exact integers; nothing on this wire is that large.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "The range was checked on the line before.")]
    (number.abs() <= EXACT).then_some(number as i64)
}

/// What a JSON value is, for error texts that must not repeat the value.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
