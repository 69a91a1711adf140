//! Steps that the manager itself performs: off the shards, so that a slow one holds up no transition.

use super::{Command, Input};
use async_trait::async_trait;
use futures::FutureExt as _;
use pipeline::machine::{Action, ManagerWork, PendingWork};
use pipeline::plan::RunFacts;
use proto::failure::{Failure, FailureKind};
use proto::result::StepResult;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Steps performed at the same time; more wait for their turn.
const MAX_AT_ONCE: usize = 32;

/// One step to perform.
#[derive(Clone, Debug)]
pub struct Job {
    /// Execution.
    pub execution_id: String,
    /// Node.
    pub node: String,
    /// Attempt of the node.
    pub attempt: u32,
    /// What to do.
    pub work: ManagerWork,
    /// Which run asks: account, organisation, project, pipeline.
    pub facts: RunFacts,
}

/// Does what a step asks of the manager.
#[async_trait]
pub trait Performer: Send + Sync + 'static {
    /// Performs one step. Errors are a `Failed` result that says why.
    ///
    /// **Repeat**: after a crash the same job comes again; it must be safe. The future may be dropped at any point.
    async fn perform(&self, job: Job) -> StepResult;
}

/// Refuses every job: for a manager without what the steps need.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotConfigured;

#[async_trait]
impl Performer for NotConfigured {
    async fn perform(&self, job: Job) -> StepResult {
        let message = format!("this manager is not configured to perform `{}`", job.node);
        StepResult::failed(
            Failure::new(FailureKind::BadSpec, "MGR-107", message)
                .hint("run this step on a manager that has it, or take it out of the pipeline"),
        )
    }
}

/// Takes what is to be performed out of the actions of a transition. The state itself remembers it, so the store needs
/// no effect for it.
pub(super) fn take(actions: &mut Vec<Action>) -> Vec<PendingWork> {
    let mut work = Vec::new();
    for action in std::mem::take(actions) {
        match action {
            Action::Perform { node, attempt, work: what } => {
                work.push(PendingWork { node, attempt, work: *what });
            }
            other => actions.push(other),
        }
    }
    work
}

/// Owns the tasks that perform steps.
pub(super) struct Desk {
    performer: Arc<dyn Performer>,
    stop: CancellationToken,
    tasks: TaskTracker,
    turns: Arc<Semaphore>,
    /// What is under way: a second look at an execution does not begin it again.
    busy: Mutex<BTreeSet<(String, String, u32)>>,
}

impl Desk {
    pub(super) fn new(performer: Arc<dyn Performer>, stop: CancellationToken) -> Self {
        let turns = Arc::new(Semaphore::new(MAX_AT_ONCE));
        Desk { performer, stop, tasks: TaskTracker::new(), turns, busy: Mutex::default() }
    }

    /// Performs a job and sends the answer to `shard`. A job that is under way is not begun again.
    pub(super) fn start(&self, job: Job, shard: mpsc::Sender<Command>) {
        let key = (job.execution_id.clone(), job.node.clone(), job.attempt);
        if !self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(key) {
            return;
        }
        let (performer, turns, stop) = (self.performer.clone(), self.turns.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let (execution_id, node, attempt) = (job.execution_id.clone(), job.node.clone(), job.attempt);
            let work = async move {
                // It is never closed.
                let _turn = turns.acquire_owned().await.ok();
                let outcome = AssertUnwindSafe(performer.perform(job)).catch_unwind().await;
                let result = Box::new(outcome.unwrap_or_else(|_| {
                    let message = "the manager failed in the middle of the step".to_owned();
                    StepResult::failed(Failure::new(FailureKind::Bug, "MGR-107", message))
                }));
                let input = Input::Performed { node, attempt, result };
                if shard.send(Command { execution_id, input, done: None }).await.is_err() {
                    tracing::debug!("the engine stopped before the answer of a step; it is performed again");
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// The answer of a job has arrived.
    pub(super) fn done(&self, execution_id: &str, node: &str, attempt: u32) {
        let key = (execution_id.to_owned(), node.to_owned(), attempt);
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Waits until every task has ended; the token was cancelled before.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
