//! From a request to an execution that runs: the one way in which executions begin.

use super::{Refusal, Request, Warning, prepare};
use crate::app::App;
use crate::engine::{Engine, Record, RunRequest};
use crate::store::ExecutionRow;
use pipeline::fault::Notice;
use pipeline::machine::State;

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
    let (id, by) = (request.execution_id.clone(), request.started_by.clone());
    let (rehearsal, now) = (request.rehearsal, request.started_at);
    let asked = RunRequest {
        inputs: request.inputs.clone(),
        inputs_yaml: request.inputs_yaml.clone(),
        input_sets: request.input_sets.clone(),
        source: request.source.clone(),
        rehearsal,
    };
    let prepared = prepare(app, request).await?;
    let policy_warnings = super::governance::judge(app, &prepared).await?;
    let (pipeline, mut warnings) = (prepared.pipeline.clone(), prepared.warnings.clone());
    warnings.extend(policy_warnings.into_iter().map(Warning::of_policy));
    let notices = prepared.notices.clone();
    let build = move |sequence_id| {
        let plan = prepared.plan(sequence_id).map_err(|faults| {
            faults.first().map_or_else(|| "the plan was refused".to_owned(), ToString::to_string)
        })?;
        let record = Record { request: Some(asked), ..Record::new(State::new(plan)) };
        serde_json::to_value(record).map_err(|error| error.to_string())
    };
    let row = app.store.create_execution(&id, &pipeline, rehearsal, &by, now, Box::new(build)).await?;
    if let Err(error) = engine.resume(&id).await {
        // It exists and starts as soon as the engine can: at the latest after a restart.
        tracing::error!(execution = %id, error = &error as &dyn std::error::Error, "execution not started yet");
    }
    Ok(Launched { row, warnings, notices })
}
