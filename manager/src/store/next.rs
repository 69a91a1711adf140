//! What a transition makes of the stored state.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The state after a transition.
#[derive(Clone, Debug, PartialEq)]
pub enum NextState {
    /// This one, instead of what is stored.
    Whole(Value),
    /// What is stored with these parts set, in this order. The next snapshot has them in place. A large state of which
    /// an event changes little is stored this way; write it whole now and then, because a reader puts all parts since
    /// then in place.
    Parts(Vec<Part>),
}

impl From<Value> for NextState {
    fn from(state: Value) -> Self {
        NextState::Whole(state)
    }
}

/// A change of one part of a state. A path is keys from the top; everything above its last key is there already and is
/// an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// From here on this value stands there.
    Set(Vec<String>, Value),
    /// From here on nothing stands there.
    Remove(Vec<String>),
    /// From here on these values stand behind those of the list there; where there is none, they make one. A list that
    /// only grows is not written again for each new item.
    Push(Vec<String>, Vec<Value>),
}

impl Part {
    /// A part that is set.
    pub fn set(path: &[&str], value: Value) -> Self {
        Part::Set(path.iter().map(|key| (*key).to_owned()).collect(), value)
    }

    /// A part that is removed; it may be absent.
    pub fn remove(path: &[&str]) -> Self {
        Part::Remove(path.iter().map(|key| (*key).to_owned()).collect())
    }

    /// Values behind those of a list.
    pub fn push(path: &[&str], values: Vec<Value>) -> Self {
        Part::Push(path.iter().map(|key| (*key).to_owned()).collect(), values)
    }

    /// For backends: puts the part in place; `false` when something above it is missing.
    pub fn put(self, state: &mut Value) -> bool {
        let (path, change) = match self {
            Part::Set(path, value) => (path, Change::Set(value)),
            Part::Remove(path) => (path, Change::Remove),
            Part::Push(path, values) => (path, Change::Push(values)),
        };
        let Some((last, above)) = path.split_last() else { return false };
        let above = above.iter().try_fold(state, |at, key| at.get_mut(key));
        let Some(object) = above.and_then(Value::as_object_mut) else { return false };
        match change {
            Change::Set(value) => drop(object.insert(last.clone(), value)),
            Change::Remove => drop(object.remove(last)),
            Change::Push(values) => {
                let list = object.entry(last.clone()).or_insert_with(|| Value::Array(Vec::new()));
                let Some(list) = list.as_array_mut() else { return false };
                list.extend(values);
            }
        }
        true
    }
}

/// What becomes of the value at a path.
enum Change {
    Set(Value),
    Remove,
    Push(Vec<Value>),
}
