//! Durable marks before every mutation (D4).

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is about to be done, how to find it again, and how to undo it. Written before the mutation it announces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// For people: `start unit backup on web-1`.
    pub intent: String,
    /// The remote calls it covers, in order. A batch counts once for each call it lists (settled facts §2.7).
    pub calls: Vec<String>,
    /// What the executor needs to find its work again: directory, marker, revision. Typed by the executor, versioned
    /// by it (`"v": 1`); never holds a clear secret beyond what the sealed journal may hold.
    pub state: Value,
    /// Undo data as of now; replaces the one of earlier checkpoints. `None` leaves it as it was.
    #[serde(default)]
    pub undo: Option<Value>,
}

/// A checkpoint could not be made durable. The mutation must not happen.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint could not be written: {0}")]
pub struct CheckpointError(pub String);

/// Where checkpoints go: the journal, and from there to our manager.
pub trait Checkpoints: Send + Sync {
    /// Writes one; returns only once it is durable.
    ///
    /// **Cancel**: dropping the future leaves it unknown whether it was written. **Repeat**: appends another one.
    fn record(&self, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), CheckpointError>>;

    /// Every checkpoint of this task so far, oldest first, those of an earlier process included.
    fn history(&self) -> Vec<Checkpoint>;
}
