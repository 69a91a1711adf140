//! Tasks of a step that does not end well are stopped, unless the step says otherwise or somebody goes on with it.

use super::watch::Watch;
use crate::session::{Session, ecs};
use aws::{Fault, Repeat};
use executor_api::{CancelReason, Class, Level, StepError};
use serde_json::json;
use std::time::Duration;

/// So long a stopped task is waited for; ECS gives its containers 30 s unless the task definition says otherwise.
const PATIENCE: Duration = Duration::from_secs(40);
/// Most letters of the reason that StopTask takes.
const REASON: usize = 1024;

impl Watch<'_> {
    /// Leaves things in order after `error`, and says in it what became of the tasks.
    pub(super) async fn stop(&mut self, mut error: StepError) -> StepError {
        let cancelled = match error.class {
            Class::Cancelled { reason } => Some(reason),
            _ => self.session.cx.cancel.requested().map(|(reason, _)| reason),
        };
        if cancelled.is_some_and(|reason| !reason.ends_the_target()) {
            return error;
        }
        let session = self.session.finishing();
        let unknown = self.take_unheard(&session).await;
        let running: Vec<String> = self
            .tasks
            .iter()
            .filter(|task| task.last_status != "STOPPED")
            .map(|task| task.id().to_owned())
            .collect();
        if !running.is_empty() && !self.wish.stop_on_abort {
            error.what = format!("{}; stopOnAbort is false: task {} goes on", error.what, running.join(", "));
        } else if !running.is_empty() {
            let words = match cancelled {
                Some(CancelReason::User) => "aborted".to_owned(),
                Some(CancelReason::Deadline) => "the step's timeout ran out".to_owned(),
                _ => format!("the step failed with {}", error.code),
            };
            let left = self.stop_all(&session, &running, &words).await;
            error.what = match left.is_empty() {
                true => format!("{}; stopped: task {}", error.what, running.join(", ")),
                false => format!("{}; could not be stopped and may go on: {}", error.what, left.join("; ")),
            };
        }
        if let Some(fault) = unknown {
            error.what = format!(
                "{}; whether the last RunTask started more is not known ({fault}): look for tasks that execution {} started",
                error.what,
                super::started_by(self.session)
            );
        }
        error
    }

    /// Tasks of a call whose answer was never heard.
    async fn take_unheard(&mut self, session: &Session) -> Option<Fault> {
        let open = self.memory.batches.iter().find(|batch| !batch.answered)?;
        let token = open.token.clone();
        match self.found(session, &token).await {
            Ok(found) => {
                for task in found {
                    if !self.tasks.iter().any(|known| known.arn == task.arn) {
                        self.tasks.push(task);
                    }
                }
                None
            }
            Err(fault) => Some(fault),
        }
    }

    /// Returns what is left, with the reasons.
    async fn stop_all(&mut self, session: &Session, ids: &[String], words: &str) -> Vec<String> {
        let execution = &self.session.cx.task.execution;
        let reason = format!("delegate: {words} (execution {}, {})", execution.execution_id, execution.node);
        let reason: String = reason.chars().take(REASON).collect();
        let calls: Vec<String> = ids.iter().map(|id| format!("StopTask {id}")).collect();
        let texts: Vec<&str> = calls.iter().map(String::as_str).collect();
        if let Err(error) = session.announce("stop the tasks", &texts, &*self.memory).await {
            return vec![error.what];
        }
        let mut left = Vec::new();
        for (id, call) in ids.iter().zip(&calls) {
            let input = json!({"cluster": session.cluster, "task": id, "reason": reason});
            match session.change(call, ecs("StopTask"), input, Repeat::Safe).await {
                Ok(_) => {}
                Err(fault) => left.push(format!("task {id}: {fault}")),
            }
        }
        if left.len() < ids.len() {
            self.wait_for_end(session).await;
        }
        left
    }

    /// Waits until the tasks have stopped and their last lines are shown. What does not work here changes nothing any more.
    async fn wait_for_end(&mut self, session: &Session) {
        let until = session.cx.clock.mono() + PATIENCE;
        while session.cx.clock.mono() < until {
            let looked = self.looked(session).await.is_ok();
            let read = self.tails.read(session, self.log).await.is_ok();
            let all = self.tasks.iter().all(|task| task.last_status == "STOPPED");
            if !looked || !read || (all && self.tails.complete()) {
                break;
            }
            session.cx.clock.sleep(session.settings.poll.min(Duration::from_secs(1))).await;
        }
        if self.tasks.iter().any(|task| task.last_status != "STOPPED")
            && let Err(error) = self.say(Level::Warn, &self.state()).await
        {
            tracing::debug!(%error, "the log is closed");
        }
    }
}
