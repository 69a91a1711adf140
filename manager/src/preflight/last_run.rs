//! What each stage deployed when it last succeeded: rollback Commands of later runs use it (settled facts §2.6).

use crate::store::{Store, StoreError};
use pipeline::machine::{State, stage_records};
use pipeline::plan::StageRecord;
use std::collections::BTreeMap;

/// Executions of a pipeline that end at the same time must not overwrite each other's records.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The fact that holds the records of all stages of a pipeline.
fn fact(pipeline: &str) -> String {
    format!("last-run/{pipeline}")
}

/// The records of a pipeline, by stage key.
pub(super) async fn all(
    store: &dyn Store,
    pipeline: &str,
) -> Result<BTreeMap<String, StageRecord>, StoreError> {
    let Some(text) = store.get_fact(&fact(pipeline)).await? else { return Ok(BTreeMap::new()) };
    Ok(serde_json::from_str(&text).unwrap_or_else(|error| {
        // Rollback steps then take this run's artifact and say so; that is better than no run at all.
        tracing::error!(%error, pipeline, "the record of the last successful run cannot be read");
        BTreeMap::new()
    }))
}

/// Remembers what the successful stages of `state`, which is about to be committed as ended, deployed.
///
/// Called before the commit: should the manager die in between, the same end is decided and remembered again.
pub(crate) async fn remember(store: &dyn Store, state: &State) -> Result<(), StoreError> {
    let fresh = stage_records(state);
    if fresh.is_empty() {
        return Ok(());
    }
    let pipeline = &state.plan.run.pipeline;
    let _one = ONE.lock().await;
    let mut records = all(store, pipeline).await?;
    records.extend(fresh);
    let text = serde_json::to_string(&records).map_err(|error| StoreError::Backend(error.to_string()))?;
    store.put_fact(&fact(pipeline), &text).await
}
