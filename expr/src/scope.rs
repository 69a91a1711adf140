//! Where names come from.

use crate::value::{Segment, Value};
use std::sync::Arc;

/// What a scope knows about a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// The first `used` segments stand for `value`; the evaluator takes the rest of the path out of it.
    ///
    /// An untainted string with expressions in it is resolved by the evaluator before it is used.
    Found {
        /// The value.
        value: Value,
        /// How many segments of the path it stands for, from 1.
        used: usize,
    },
    /// The first name exists, but the rest leads nowhere: null in a condition, unresolved as a block of its own.
    Missing,
    /// Nobody defines the first name: an error in the outer text of a condition.
    Undefined,
    /// The path must not be used here, and why. Always raises (a missing runtime input).
    Refused(String),
}

/// Name resolution, supplied by the caller. The order of pipeline.md §3.4 is the pipeline crate's.
///
/// Implementations do no I/O and are quick: they are asked once per name and evaluation.
pub trait Scope {
    /// What `path` stands for. The path is never empty; its first segment is always a name.
    fn lookup(&self, path: &[Segment]) -> Lookup;

    /// A functor of the caller's own, such as `fileStore.getAsString("/p")`. `None`: there is no such functor or
    /// method. An error always raises.
    fn call(&self, functor: &str, method: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
        let _ = (functor, method, arguments);
        None
    }
}

/// Rewrites the spellings that Harness keeps for old pipelines (pipeline.md §3.4, aliases and R15). `None`: the path
/// stands as it is. A scope calls this first and falls back to the path itself when the rewritten one is missing.
pub fn alias(path: &[Segment]) -> Option<Vec<Segment>> {
    const TABLE: [(&[&str], &[&str]); 5] = [
        (&["serviceConfig", "artifacts"], &["artifacts"]),
        (&["serviceConfig", "serviceDefinition"], &["stage", "spec", "serviceConfig", "serviceDefinition"]),
        (&["serviceDefinition"], &["stage", "spec", "serviceConfig", "serviceDefinition"]),
        (&["artifact"], &["artifacts", "primary"]),
        (&["eventPayload"], &["trigger", "payload"]),
    ];
    for (from, to) in TABLE {
        let (Some(head), Some(rest)) = (path.get(..from.len()), path.get(from.len()..)) else { continue };
        if head.iter().zip(from).all(|(segment, name)| segment.name() == Some(name)) {
            return Some(to.iter().map(|name| Segment::from(*name)).chain(rest.iter().cloned()).collect());
        }
    }
    None
}

/// A scope over one tree of values: for the Http assertion on the agent, `delegate expression eval`, and tests.
#[derive(Clone, Debug, Default)]
pub struct MapScope {
    root: Value,
}

impl MapScope {
    /// Every key of `root`, which must be a map, is a name. Its strings are resolved when they hold expressions.
    pub fn new(root: &serde_json::Value) -> Self {
        MapScope { root: Value::from_json(root, false) }
    }

    /// The same, over values that carry their own marks.
    pub fn of(root: Value) -> Self {
        MapScope { root }
    }

    /// Adds or replaces one name.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        let mut entries = match self.root {
            Value::Map(entries) => Arc::unwrap_or_clone(entries),
            _ => crate::value::Map::new(),
        };
        entries.insert(Arc::from(name), value);
        self.root = Value::Map(Arc::new(entries));
        self
    }

    fn find(&self, path: &[Segment]) -> Lookup {
        let Some(first) = path.first() else { return Lookup::Undefined };
        match self.root.child(first) {
            Ok(Some(value)) => Lookup::Found { value, used: 1 },
            _ => Lookup::Undefined,
        }
    }
}

impl Scope for MapScope {
    fn lookup(&self, path: &[Segment]) -> Lookup {
        match self.find(path) {
            Lookup::Undefined => {}
            found => return found,
        }
        let Some(rewritten) = alias(path) else { return Lookup::Undefined };
        match self.find(&rewritten) {
            // The rewritten path may be longer or shorter, so it is walked here, to its end.
            Lookup::Found { mut value, used } => {
                for segment in rewritten.iter().skip(used) {
                    match value.child(segment) {
                        Ok(Some(child)) => value = child,
                        _ => return Lookup::Missing,
                    }
                }
                Lookup::Found { value, used: path.len() }
            }
            other => other,
        }
    }
}
