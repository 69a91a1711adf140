//! Events of triggers: what came in, and what became of it.

use super::Millis;
use serde_json::Value;

/// Events that wait to be processed; more are refused.
pub const MAX_OPEN_EVENTS: u32 = 10_000;
/// Events that are kept for each trigger; older ones that are done go.
pub const KEPT_EVENTS: u32 = 1_000;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerEvent {
    /// Id. Equal ids are the same event.
    pub id: String,
    /// Pipeline that it names, or empty.
    pub pipeline: String,
    /// Trigger that it names, or empty.
    pub trigger: String,
    /// When it came in.
    pub at: Millis,
    /// Whether it was processed.
    pub done: bool,
    /// Body, headers, sender, results: only the triggers read it. Sealed at rest.
    pub doc: Value,
}
