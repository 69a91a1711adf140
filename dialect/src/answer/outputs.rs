//! Reading the outputs of a step. They are the executors' own, so what has another shape than expected is left out.

use super::bounds::{MAX_INSTANCES, MAX_NAME, cut};
use proto::result::StepResult;
use serde_json::Value;

/// The outputs of a result by path.
pub(super) struct Outputs<'a>(pub(super) &'a StepResult);

impl<'a> Outputs<'a> {
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.outputs.get(name).map(|output| &output.value)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        text(self.value(name)?)
    }

    pub(super) fn int(&self, name: &str) -> Option<i32> {
        int(self.value(name)?)
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.value(name)?.as_bool()
    }

    /// The elements of a list, at most [`MAX_INSTANCES`].
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = &'a Value> {
        self.value(name).and_then(Value::as_array).into_iter().flatten().take(MAX_INSTANCES)
    }
}

/// A name; numbers and flags count as their text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(cut(text, MAX_NAME).into_owned()),
        Value::Null => None,
        other => Some(cut(&other.to_string(), MAX_NAME).into_owned()),
    }
}

/// A number as Java's `int` holds it: what is beyond is the nearest that it does.
pub(super) fn int(value: &Value) -> Option<i32> {
    let number = value.as_i64().or_else(|| value.as_u64().map(|_| i64::MAX))?;
    Some(i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX }))
}

/// A field of an object as a name.
pub(super) fn field(value: &Value, name: &str) -> Option<String> {
    text(value.get(name)?)
}
