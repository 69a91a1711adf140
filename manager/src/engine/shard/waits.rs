//! What an execution waits for: its timers, agents that are away, infrastructures that others hold.

use super::super::{EngineError, record};
use super::Driver;
use crate::store::TaskStatus;
use pipeline::machine::{self, Event, Holdup, Status};
use serde_json::Value;

impl Driver {
    /// Tells the machine which of the infrastructures that its stages wait for are its own by now.
    pub(super) async fn claims(&mut self) -> Result<(), EngineError> {
        let runs = self.current()?.record.machine.runs.iter();
        let waiting: Vec<(String, String)> = runs
            .filter(|(_, run)| run.status == Status::ResourceWaiting)
            .filter_map(|(id, run)| Some((id.clone(), run.claim.clone()?)))
            .collect();
        for (node, key) in waiting {
            let queue = self.shared.store.claims(&key).await?;
            // What was claimed in this very transition stands in no queue yet; its commit tells when it does.
            let holds = queue.first().is_some_and(|first| first.execution_id == self.execution_id);
            if holds && queue.iter().any(|c| c.execution_id == self.execution_id && c.node == node) {
                self.apply(Event::Granted { node, at: self.shared.now() }).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn fired(&self, timer: String) -> Result<Event, EngineError> {
        let holdup = self.holdup(&timer).await?;
        Ok(Event::TimerFired { timer, at: self.shared.now(), holdup })
    }

    /// Why nobody works on the task whose step times out, or did not confirm its end; `None` when its agent is there.
    async fn holdup(&self, timer: &str) -> Result<Option<Holdup>, EngineError> {
        if let Some((node, attempt)) = machine::step_grace(timer) {
            let undo = self.undo_of(&record::task_id(&self.execution_id, node, attempt)).await?;
            return Ok(undo.map(|undo| Holdup::Unanswered { undo }));
        }
        let Some((node, attempt)) = machine::step_timeout(timer) else { return Ok(None) };
        let task = &record::task_id(&self.execution_id, node, attempt);
        if !self.current()?.record.open.contains_key(task) {
            return Ok(None);
        }
        let Some(row) = self.shared.store.task(task).await? else { return Ok(None) };
        let queue = &self.shared.queue;
        Ok(match (row.status, &row.agent_id) {
            (TaskStatus::Queued, _) => {
                queue.explain(task).map(|explanation| Holdup::Waiting { why: explanation.sentence() })
            }
            (TaskStatus::Assigned, Some(agent)) => match queue.lost(agent) {
                Some((agent, since)) => Some(Holdup::Lost { agent, since, undo: self.undo_of(task).await? }),
                None => None,
            },
            (TaskStatus::Assigned | TaskStatus::Ended, _) => None,
        })
    }

    /// What undoes the work of a task as far as it came: every checkpoint says so before the change that it announces.
    async fn undo_of(&self, task: &str) -> Result<Option<Value>, EngineError> {
        let checkpoints = self.shared.store.checkpoints(task).await?;
        let undo = checkpoints.into_iter().rev().find_map(|mut checkpoint| {
            Some(checkpoint.get_mut("undo")?.take()).filter(|undo| !undo.is_null())
        });
        Ok(undo)
    }
}
