//! Processes stored events, one after another, until each has its result.

use super::{EventDoc, Outcome, Stored, Triggers, all, derived, doc_of, named};
use crate::engine::RunRequest;
use crate::preflight::{Refusal, Request, launch};
use crate::store::{StoreError, TriggerEvent};
use pipeline::fault::Fault;
use pipeline::trigger::{Source, TriggerFacts, Verdict, judge};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Events that are read at once.
const BATCH: u32 = 64;
/// How long a failing store is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Triggers {
    /// Runs until `stop`. What is not processed then is processed after the next start.
    pub async fn process(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let more = self.process_open(&stop).await;
            if let Err(error) = &more {
                tracing::error!(error = error as &dyn std::error::Error, "trigger events wait");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = std::future::ready(()), if matches!(more, Ok(true)) => {}
                () = self.app.clock.sleep(RETRY_AFTER), if more.is_err() => {}
                () = self.events.notified() => {}
            }
        }
    }

    /// Processes what waits; says whether there is more.
    async fn process_open(&self, stop: &CancellationToken) -> Result<bool, StoreError> {
        let open = self.app.store.open_trigger_events(BATCH).await?;
        let more = !open.is_empty();
        for mut event in open {
            if stop.is_cancelled() {
                return Ok(false);
            }
            let mut doc = doc_of(&event);
            doc.results = self.results(&event, &doc).await?;
            for result in &doc.results {
                tracing::info!(
                    event = %event.id, pipeline = %result.pipeline, trigger = %result.trigger,
                    status = result.status.name(), "trigger event processed"
                );
            }
            event.doc = serde_json::to_value(&doc).map_err(|error| StoreError::Backend(error.to_string()))?;
            self.app.store.finish_trigger_event(event).await?;
        }
        Ok(more)
    }

    async fn results(&self, event: &TriggerEvent, doc: &EventDoc) -> Result<Vec<Outcome>, StoreError> {
        let is_tick = doc.kind == "tick";
        let mut hits = named(all(&self.app).await?, &doc.scope, &event.pipeline, &event.trigger);
        hits.retain(|stored| matches!(stored.trigger.source, Source::Cron(_)) == is_tick);
        let mut results = Vec::new();
        for stored in &hits {
            results.push(self.one(event, doc, stored).await?);
        }
        if results.is_empty() {
            let (pipeline, trigger) = (event.pipeline.clone(), event.trigger.clone());
            let message = format!(
                "there is no trigger `{trigger}` of the pipeline `{pipeline}`; `delegate trigger list` shows all"
            );
            let status = Verdict::NoEnabledCustomTriggerFound;
            results.push(Outcome { pipeline, trigger, status, message, execution_id: None });
        }
        Ok(results)
    }

    async fn one(
        &self,
        event: &TriggerEvent,
        doc: &EventDoc,
        stored: &Stored,
    ) -> Result<Outcome, StoreError> {
        let trigger = &stored.trigger;
        let outcome = |status: Verdict, message: String, execution_id: Option<String>| Outcome {
            pipeline: trigger.pipeline.clone(),
            trigger: trigger.identifier.clone(),
            status,
            message,
            execution_id,
        };
        let pipeline = stored.pipeline_name();
        let id = derived(&["execution", &event.id, &pipeline, &trigger.identifier]);
        let requested =
            |id| outcome(Verdict::TargetExecutionRequested, "the execution was started".to_owned(), Some(id));
        // Started before a crash: the trigger may have changed since, the execution stays.
        if self.app.store.execution(&id).await?.is_some() {
            return Ok(requested(id));
        }
        let facts = match &trigger.source {
            Source::Custom { .. } => TriggerFacts::webhook(
                &trigger.identifier,
                &event.id,
                doc.payload.clone(),
                doc.headers.clone(),
            ),
            Source::Cron(_) => TriggerFacts::tick(&trigger.identifier, &event.id, doc.scheduled_at),
        };
        let now = self.app.clock.wall();
        if let Err((status, message)) = judge(trigger, &facts, i64::try_from(now).unwrap_or(i64::MAX)) {
            return Ok(outcome(status, message, None));
        }
        let request = Request {
            pipeline,
            with: RunRequest {
                input_sets: trigger.input_sets.clone(),
                inputs_yaml: trigger.input_yaml.clone(),
                ..RunRequest::default()
            },
            trigger: Some(facts),
            execution_id: id.clone(),
            started_by: if doc.by.is_empty() { trigger.identifier.clone() } else { doc.by.clone() },
            started_at: now,
        };
        match launch(&self.app, &self.engine, request).await {
            Ok(_) => Ok(requested(id)),
            Err(Refusal::Store(StoreError::Conflict { .. })) => Ok(requested(id)),
            Err(Refusal::Store(error)) => Err(error),
            Err(Refusal::Invalid(faults)) => {
                let status = if faults.iter().any(about_inputs) {
                    Verdict::InvalidRuntimeInputYaml
                } else {
                    Verdict::ExceptionWhileProcessing
                };
                let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
                Ok(outcome(status, texts.join("; "), None))
            }
            Err(Refusal::NoPipeline { id, .. }) => {
                let message = format!("the pipeline `{id}` does not exist");
                Ok(outcome(Verdict::ExceptionWhileProcessing, message, None))
            }
            Err(Refusal::Ambiguous { id, scopes }) => {
                let message = format!("the pipeline `{id}` exists in several scopes: {}", scopes.join(", "));
                Ok(outcome(Verdict::ExceptionWhileProcessing, message, None))
            }
        }
    }
}

/// Whether a fault is about what was given to the run rather than about the pipeline.
fn about_inputs(fault: &Fault) -> bool {
    fault.source == "inputYaml"
        || fault.source.starts_with("input set ")
        || fault.path.starts_with("pipeline.variables")
        || fault.path == "inputSet"
}
