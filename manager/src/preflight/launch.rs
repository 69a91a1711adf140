//! From a request to an execution that runs: the one way in which executions begin.

use super::{Refusal, Request, Warning, prepare};
use crate::app::App;
use crate::engine::{Engine, Record};
use crate::store::{ExecutionRow, StoreError};
use pipeline::fault::Notice;
use pipeline::machine::State;
use pipeline::plan::RunFacts;

/// An execution that was created.
pub(crate) struct Launched {
    /// Its row.
    pub(crate) row: ExecutionRow,
    /// What to tell the person who starts it.
    pub(crate) warnings: Vec<Warning>,
    /// Applied rules.
    pub(crate) notices: Vec<Notice>,
}

/// Plans a run, stores it and starts it.
///
/// **Errors**: [`Refusal`]; nothing was created then. **Repeat**: with an execution id that exists it is a `Conflict` of
/// the store and changes nothing, so that who derives the id from an event starts it once.
pub(crate) async fn launch(app: &App, engine: &Engine, request: Request) -> Result<Launched, Refusal> {
    let asked = request.with.clone();
    let prepared = prepare(app, request).await?;
    let policy_warnings = super::governance::judge(app, &prepared).await?;
    let (facts, notices) = (prepared.plan.run.clone(), prepared.plan.notices.clone());
    let mut warnings = prepared.warnings.clone();
    warnings.extend(policy_warnings.into_iter().map(Warning::of_policy));
    let first = move |sequence_id| {
        let plan = prepared.into_plan(sequence_id).map_err(|faults| {
            faults.first().map_or_else(|| "the plan was refused".to_owned(), ToString::to_string)
        })?;
        Ok(Record { request: Some(asked), ..Record::new(State::new(plan)) })
    };
    Ok(Launched { row: create(app, engine, &facts, first).await?, warnings, notices })
}

/// Stores an execution and starts it. `first` makes what is stored, under the sequence id that was allotted.
///
/// **Errors**: the store's and those of `first`; nothing was created then.
pub(crate) async fn create(
    app: &App,
    engine: &Engine,
    facts: &RunFacts,
    first: impl FnOnce(u64) -> Result<Record, String> + Send + 'static,
) -> Result<ExecutionRow, StoreError> {
    let RunFacts { execution_id: id, pipeline, rehearsal, started_by, started_at, .. } = facts;
    let build = |sequence_id| serde_json::to_value(first(sequence_id)?).map_err(|error| error.to_string());
    let row = app
        .store
        .create_execution(id, pipeline, *rehearsal, started_by, *started_at, Box::new(build))
        .await?;
    if let Err(error) = engine.resume(id).await {
        // It exists and starts as soon as the engine can: at the latest after a restart.
        tracing::error!(execution = %id, error = &error as &dyn std::error::Error, "execution not started yet");
    }
    Ok(row)
}
