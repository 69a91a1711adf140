//! What every backend must do. A backend's tests call [`run`] with a way to open its store.
//!
//! It is compiled into the library, because backends in other crates and the end-to-end tests use it; it panics on the
//! first promise that is not kept.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "A conformance suite ends at the first fault."
)]

mod agents;
mod claims;
mod entities;
mod executions;
mod tasks;
mod triggers;

use super::changes::Changes;
use super::{NewTask, Store};
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;

/// Opens the store under test.
pub trait Backend: Send + Sync {
    /// Opens it again with what it holds; every earlier handle was dropped. The first call makes it empty.
    fn open(&self, changes: Arc<Changes>) -> BoxFuture<'_, Arc<dyn Store>>;
}

/// One store with its changes.
struct Opened {
    store: Arc<dyn Store>,
    changes: Arc<Changes>,
}

async fn open(backend: &dyn Backend) -> Opened {
    let changes = Arc::new(Changes::default());
    let store = backend.open(Arc::clone(&changes)).await;
    Opened { store, changes }
}

/// Runs every case; `fresh` gives each of them an empty backend.
pub async fn run<B: Backend, F: Fn() -> B>(fresh: F) {
    entities::entities(&fresh()).await;
    entities::secrets_and_facts(&fresh()).await;
    entities::credentials(&fresh()).await;
    entities::host_keys(&fresh()).await;
    agents::agents(&fresh()).await;
    tasks::life_of_a_task(&fresh()).await;
    tasks::one_winner(&fresh()).await;
    tasks::answers(&fresh()).await;
    tasks::checkpoints_and_progress(&fresh()).await;
    tasks::news(&fresh()).await;
    tasks::changes(&fresh()).await;
    executions::life_of_an_execution(&fresh()).await;
    executions::parts_of_a_state(&fresh()).await;
    executions::effects_are_atomic(&fresh()).await;
    executions::one_transition_wins(&fresh()).await;
    executions::timers(&fresh()).await;
    executions::cancels(&fresh()).await;
    claims::queues(&fresh()).await;
    executions::durable(&fresh()).await;
    executions::owed(&fresh()).await;
    triggers::life_of_an_event(&fresh()).await;
    triggers::bounds(&fresh()).await;
}

fn task(id: &str, execution: &str, node: &str) -> NewTask {
    NewTask {
        id: id.to_owned(),
        execution_id: execution.to_owned(),
        node: node.to_owned(),
        attempt: 1,
        task_type: "DELEGATE_NOOP_TASK".to_owned(),
        selectors: json!([{ "origin": "step", "selectors": ["a"] }]),
        secrets: vec!["db".to_owned()],
        timeout_ms: 60_000,
        affinity: "e/h".to_owned(),
        data: r#"{"b":1,"a":"ü"}"#.to_owned(),
        abstractions: vec![("accountId".to_owned(), "x".to_owned()), ("level0".to_owned(), "y".to_owned())],
        created_at: 5,
    }
}
