//! What an approved execution owes to older ones: their approvals at the same step are rejected
//! (`isAutoRejectEnabled`).
//!
//! The debt is written by the very transition that approves, and dropped when every older approval is rejected. A crash
//! in between leaves it in the store, and the next start pays it; rejecting twice is refused by the step itself.

use super::{Engine, EngineError, Record};
use crate::store::{Effect, Millis};
use pipeline::machine::state::Phase;
use pipeline::machine::{Actor, UserAction};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Facts of this name are debts: `PREFIX EXECUTION/NODE`, with the time of the approval.
const PREFIX: &str = "approval.reject-older/";
/// How long a failing store is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The debt of a transition.
pub(super) fn effect(execution_id: &str, node: &str, now: Millis) -> Effect {
    Effect::PutFact { name: format!("{PREFIX}{execution_id}/{node}"), value: now.to_string() }
}

/// Runs until `stop`.
pub(super) async fn run(engine: Engine, stop: CancellationToken) {
    loop {
        let paid = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            paid = pay_all(&engine) => paid,
        };
        if let Err(error) = &paid {
            tracing::error!(error = error as &dyn std::error::Error, "older approvals still wait");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = engine.shared.owed.notified() => {}
            () = engine.shared.clock.sleep(RETRY_AFTER), if paid.is_err() => {}
        }
    }
}

async fn pay_all(engine: &Engine) -> Result<(), EngineError> {
    for (name, value) in engine.shared.store.facts(PREFIX).await? {
        let debt = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/'));
        if let (Some((execution, node)), Ok(approved_at)) = (debt, value.parse::<Millis>()) {
            pay(engine, execution, node, approved_at).await?;
        }
        engine.shared.store.drop_fact(&name).await?;
    }
    Ok(())
}

/// Rejects what older executions of the pipeline have been asking at `node` since before `approved_at`.
async fn pay(engine: &Engine, execution: &str, node: &str, approved_at: Millis) -> Result<(), EngineError> {
    let Some(record) = readable(engine, execution).await? else { return Ok(()) };
    let facts = &record.machine.plan.run;
    for id in engine.shared.store.open_executions().await? {
        let Some(other) = readable(engine, &id).await? else { continue };
        let run = &other.machine.plan.run;
        let is_older = run.pipeline == facts.pipeline
            && (&run.org, &run.project) == (&facts.org, &facts.project)
            && run.sequence_id < facts.sequence_id;
        let waits = other.machine.runs.get(node).is_some_and(|run| {
            run.phase == Phase::Approval
                && run.approval.as_ref().is_some_and(|asked| asked.asked_at <= approved_at)
        });
        if !is_older || !waits {
            continue;
        }
        let action = UserAction::Supersede { execution: facts.execution_id.clone() };
        let by = Actor { name: "isAutoRejectEnabled".to_owned(), ..Actor::default() };
        match engine.act(&id, node, by, action).await {
            // Somebody decided in the same moment: that counts.
            Ok(()) | Err(EngineError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An execution that cannot be read is left out, so that it does not keep others from being rejected for ever.
async fn readable(engine: &Engine, id: &str) -> Result<Option<Record>, EngineError> {
    match engine.record(id).await {
        Ok(found) => Ok(found.map(|(_, record)| record)),
        Err(error @ (EngineError::Unreadable { .. } | EngineError::TooNew { .. })) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(execution = %id, error, "an approval cannot be looked at");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
