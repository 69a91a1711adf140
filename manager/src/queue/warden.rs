//! Ends tasks that no connected agent fits (settled facts §1.5) and notices agents that fall silent.

use super::{Explanation, Queue};
use crate::store::{NewTask, Store};
use proto::failure::{Failure, FailureKind};
use proto::result::StepResult;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause after the store failed.
const AGAIN: Duration = Duration::from_secs(1);

/// A task that no agent could take: the result that its step gets. Page: `docs/errors/MGR-009.md`.
pub(super) fn no_agent(why: &Explanation, waited: Duration) -> StepResult {
    let failure = Failure::new(
        FailureKind::DelegateProvisioning,
        "MGR-009",
        format!("{} (waited {} s)", why.sentence(), waited.as_secs()),
    )
    .hint("start an agent with these tags (DELEGATE_TAGS), or change delegateSelectors; `delegate agents` lists what there is");
    StepResult::failed(failure)
}

pub(super) async fn run(queue: &Queue, store: &dyn Store, wait: Duration, stop: &CancellationToken) {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    loop {
        let changed = queue.changed.notified();
        let (given_up, next) = queue.sweep(wait_ms);
        let mut failed = false;
        for (task, why) in given_up {
            failed |= !end(queue, store, &task, &why, wait).await;
        }
        let until = if failed {
            Some(queue.clock.mono() + AGAIN)
        } else {
            next.map(|at| queue.clock.mono() + Duration::from_millis(at.saturating_sub(queue.now())))
        };
        let timer = async {
            match until {
                Some(until) => queue.clock.sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed => {}
            () = timer => {}
        }
    }
}

async fn end(queue: &Queue, store: &dyn Store, task: &NewTask, why: &Explanation, waited: Duration) -> bool {
    let result = match serde_json::to_value(no_agent(why, waited)) {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(task = %task.id, %error, "a result cannot be written");
            return false;
        }
    };
    match store.end_queued(&task.id, result, queue.now()).await {
        Ok(ended) => {
            if ended {
                tracing::info!(task = %task.id, why = %why.sentence(), "no agent took the task");
            }
            true
        }
        Err(error) => {
            tracing::error!(task = %task.id, %error, "a task that no agent fits cannot be ended");
            false
        }
    }
}
