//! One run of one step, from package to result.

use super::Deps;
use crate::client::Features;
use crate::dialect::{Dialect, Opened};
use crate::journal::{Entry, Journal};
use crate::logship::{Sink, TaskLogs, TaskStream};
use ::dialect::{Request, answer};
use executor_api::{
    Cancel, CancelReason, Checkpoint, CheckpointError, Checkpoints, Class, Clock, LearnedHostKeys,
    StepContext, StepError, StepOutput,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::failure::{Failure, FailureKind};
use proto::package::TaskPackage;
use proto::result::{StepResult, StepStatus, UnitProgress};
use secrecy::SecretString;
use secrets::Masker;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Changes of unit progress are gathered this long; a step that is over sooner tells them with its result.
const PROGRESS_LINGER: Duration = Duration::from_millis(100);
/// Checkpoints on their way to the manager. The journal has them; when the manager is slow the newest ones are left out.
const CHECKPOINT_QUEUE: usize = 64;

/// Everything one run needs.
pub(super) struct Run {
    pub(super) task: String,
    pub(super) fence: u64,
    pub(super) package: Arc<TaskPackage>,
    pub(super) dialect: Dialect,
    pub(super) history: Vec<Checkpoint>,
    pub(super) recover: bool,
    pub(super) cancel: Cancel,
    /// Fires when the run is to be given up.
    pub(super) abandon: CancellationToken,
    pub(super) deadline: Instant,
    /// Filled as soon as the logs are open.
    pub(super) logs: Arc<OnceLock<Arc<TaskLogs>>>,
}

/// How a run ended.
pub(super) enum Outcome {
    Result(Box<StepResult>),
    /// Ended by a drain: stays open in the journal.
    Keep,
}

/// Where the logs of a package go.
pub(super) fn stream_of(task: &str, package: &TaskPackage) -> TaskStream {
    TaskStream {
        task_id: task.to_owned(),
        base_key: package.log_base(),
        token: SecretString::from(package.logging.token.clone()),
        skip_base: package.skip_open_stream,
    }
}

/// Runs a step to its end. Never panics and always answers, whatever the package holds.
pub(super) async fn run(deps: Arc<Deps>, run: Run) -> Outcome {
    let Opened { mut task, secrets, request, notices } = match run.dialect.open(&run.package) {
        Ok(opened) => opened,
        Err(failure) => {
            tracing::warn!(
                task = run.task,
                code = failure.code,
                message = failure.message,
                "a task is refused"
            );
            return Outcome::Result(Box::new(finish(&deps, &run, StepResult::failed(failure))));
        }
    };
    let token = task.secret_token;
    let secrets =
        Arc::new(crate::secrets::of_task(&deps.masker, &run.package, token, secrets, &deps.key.pair));
    let masker = secrets.masker().clone();
    let logs = deps.ship.task(stream_of(&run.task, &run.package), masker.clone()).await;
    // Only one run exists for a task, so nobody filled it before.
    let _unused = run.logs.set(logs.clone());
    deps.executors.adjust(&mut task);
    let handed_over = run.package.ext.iter().flat_map(|ext| &ext.checkpoints);
    let handed_over: Vec<Checkpoint> =
        handed_over.filter_map(|one| serde_json::from_value(one.clone()).ok()).collect();
    // The journal knows at least as much as the manager, unless the task comes from another agent.
    let history = if run.history.len() >= handed_over.len() { run.history.clone() } else { handed_over };
    let recover = run.recover || !history.is_empty();
    let features = deps.features.borrow().clone().unwrap_or_default();
    let (checkpoints, upload) = JournalCheckpoints::new(&deps, &run, history, &features);
    let cx = StepContext {
        task_id: run.task.clone(),
        task: Arc::new(task),
        deadline: run.deadline,
        cancel: run.cancel.clone(),
        clock: deps.clock.clone(),
        checkpoints: checkpoints.clone(),
        logs: Arc::new(Sink {
            logs: logs.clone(),
            renamed: request.as_ref().map(|one| one.renamed.clone()).unwrap_or_default(),
        }),
        secrets,
        aliases: deps.aliases.clone(),
        learned: LearnedHostKeys::default(),
        scratch: deps.scratch.join(scratch_name(&run.task)),
        cache: deps.cache.clone(),
    };
    // Subscribed before the step begins, so that its first change is seen.
    let units = logs.watch_progress();
    let step = AssertUnwindSafe(deps.executors.run(&cx, recover)).catch_unwind();
    let telling = async {
        tokio::join!(tell_progress(&deps, &run, request.as_ref(), units, &features), upload);
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = step => outcome.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))),
        () = run.abandon.cancelled() => Err(StepError::new(
            Class::Bug, "AGT-012", format!("the step `{}` did not end when it was killed", cx.task.step.identifier),
        ).hint("look at the target: what the step started there may still run")),
        () = telling => Err(StepError::new(Class::Bug, "AGT-005", "the agent lost track of the step")),
    };
    let reason = run.cancel.requested().map(|(reason, _)| reason);
    if outcome.is_err() && reason == Some(CancelReason::Drain) {
        // Its logs stay open: an ended log is shipped and forgotten, and the next process, which goes on with the step, would
        // then log its output from the beginning again.
        return Outcome::Keep;
    }
    logs.end().await;
    let undo = checkpoints.undo();
    let mut result = judge(outcome, reason);
    result.undo = result.undo.or(undo);
    result.learned_host_keys = cx.learned.all();
    result.notices.extend(notices);
    result.units = logs.progress();
    if let Some(failure) = result.failure.as_mut().filter(|one| one.kind == FailureKind::RemoteFailed)
        && let Some(line) = logs.last_error().await
    {
        // What a script said last is mostly why it failed: nobody should have to open the log for that.
        failure.message = format!("{}; its last line on stderr: {line}", failure.message);
    }
    mask(&mut result, &masker);
    Outcome::Result(Box::new(finish(&deps, &run, result)))
}

/// The result of a task that was cancelled before it started.
pub(super) fn skipped(deps: &Deps, fence: u64, reason: CancelReason) -> StepResult {
    let error =
        StepError::new(Class::Cancelled { reason }, "AGT-013", "the step was cancelled before it started");
    let mut result = judge(Err(error), Some(reason));
    result.agent.clone_from(&deps.config.name);
    result.fence = fence;
    result
}

fn finish(deps: &Deps, run: &Run, mut result: StepResult) -> StepResult {
    result.agent.clone_from(&deps.config.name);
    result.fence = run.fence;
    result
}

/// From what an executor returned to the answer.
fn judge(outcome: Result<StepOutput, StepError>, reason: Option<CancelReason>) -> StepResult {
    match outcome {
        Ok(output) => StepResult {
            outputs: output.outputs,
            undo: output.undo,
            notices: output.notices,
            ..StepResult::bare(if output.skipped { StepStatus::Skipped } else { StepStatus::Success }, None)
        },
        Err(error) => {
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                tracing::debug!(code = error.code, %cause, "cause of a failed step");
                source = cause.source();
            }
            let reason = match error.class {
                Class::Cancelled { reason } => Some(reason),
                _ => reason,
            };
            let mut failure = error.to_failure();
            let status = match reason {
                Some(CancelReason::User) => StepStatus::Aborted,
                Some(CancelReason::LeaseLost) => {
                    retype(&mut failure, FailureKind::DelegateRestart);
                    StepStatus::Aborted
                }
                Some(CancelReason::Deadline) => {
                    retype(&mut failure, FailureKind::Timeout);
                    StepStatus::Failed
                }
                Some(CancelReason::Drain) | None => StepStatus::Failed,
            };
            StepResult::bare(status, Some(failure))
        }
    }
}

fn retype(failure: &mut Failure, kind: FailureKind) {
    failure.kind = kind;
    failure.class = kind.harness_type();
}

/// Masks what people see (settled facts §1.8). Undo data and Secret outputs stay: they are sealed, not shown.
fn mask(result: &mut StepResult, masker: &Masker) {
    for output in result.outputs.values_mut().filter(|output| !output.secret) {
        output.value = masker.mask_json(&output.value);
    }
    if let Some(failure) = &mut result.failure {
        failure.message = masker.mask_str(&failure.message).into_owned();
        failure.hint = failure.hint.as_ref().map(|text| masker.mask_str(text).into_owned());
        failure.target = failure.target.as_ref().map(|text| masker.mask_str(text).into_owned());
    }
    for notice in &mut result.notices {
        *notice = masker.mask_str(notice).into_owned();
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> StepError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = text, "a step panicked");
    // The text may quote data, so it stays in the agent's own log.
    StepError::new(Class::Bug, "AGT-005", "the agent met a fault of its own in this step")
        .hint("the agent's own log has the details; please report it")
}

/// A directory name for any task id.
pub(super) fn scratch_name(task: &str) -> String {
    use sha2::Digest;
    let mut name = hex::encode(sha2::Sha256::digest(task.as_bytes()));
    name.truncate(32);
    name
}

/// Tells the manager of unit progress, newest state only, until dropped.
async fn tell_progress(
    deps: &Deps,
    run: &Run,
    request: Option<&Request>,
    mut units: watch::Receiver<Vec<UnitProgress>>,
    features: &Features,
) {
    let task = run.task.as_str();
    let callback = run.package.delegate.token.as_str();
    if !features.progress && (request.is_none() || callback.is_empty()) {
        return;
    }
    while units.changed().await.is_ok() {
        deps.clock.sleep(PROGRESS_LINGER).await;
        let now = units.borrow_and_update().clone();
        let told = match request {
            Some(request) => {
                let body = answer::progress_call(&deps.config.account_id, request, callback, &now);
                deps.client.harness_progress(body.into()).await
            }
            None => deps.client.progress(task, &now).await,
        };
        if let Err(fault) = told {
            // The result carries the units once more.
            tracing::debug!(task, %fault, "progress could not be told");
        }
    }
}

/// Checkpoints: durable in the journal first, then on their way to the manager.
struct JournalCheckpoints {
    journal: Journal,
    task: String,
    known: Mutex<Vec<Checkpoint>>,
    upload: Option<mpsc::Sender<Checkpoint>>,
}

impl JournalCheckpoints {
    fn new<'a>(
        deps: &'a Arc<Deps>,
        run: &'a Run,
        history: Vec<Checkpoint>,
        features: &Features,
    ) -> (Arc<Self>, BoxFuture<'a, ()>) {
        let (sender, mut receiver) = mpsc::channel::<Checkpoint>(CHECKPOINT_QUEUE);
        let one = JournalCheckpoints {
            journal: deps.journal.clone(),
            task: run.task.clone(),
            known: Mutex::new(history),
            upload: features.checkpoint.then_some(sender),
        };
        let upload = async move {
            while let Some(checkpoint) = receiver.recv().await {
                let size = serde_json::to_vec(&checkpoint).map_or(usize::MAX, |bytes| bytes.len());
                if size > proto::limits::MAX_CHECKPOINT_BYTES {
                    tracing::warn!(
                        task = run.task,
                        size,
                        "a checkpoint is too large for the manager; the journal has it"
                    );
                    continue;
                }
                if let Err(fault) = deps.client.checkpoint(&run.task, run.fence, &checkpoint).await {
                    tracing::debug!(task = run.task, %fault, "a checkpoint did not reach the manager; the journal has it");
                }
            }
        };
        (Arc::new(one), Box::pin(upload))
    }

    fn undo(&self) -> Option<serde_json::Value> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().rev().find_map(|checkpoint| checkpoint.undo.clone())
    }
}

impl Checkpoints for JournalCheckpoints {
    fn record(&self, checkpoint: Checkpoint) -> BoxFuture<'_, Result<(), CheckpointError>> {
        Box::pin(async move {
            let entry = Entry::Checkpoint { checkpoint: checkpoint.clone() };
            self.journal
                .append(&self.task, &entry)
                .await
                .map_err(|error| CheckpointError(error.to_string()))?;
            self.known.lock().unwrap_or_else(PoisonError::into_inner).push(checkpoint.clone());
            if let Some(upload) = &self.upload
                && upload.try_send(checkpoint).is_err()
            {
                tracing::debug!(
                    task = self.task,
                    "the manager is slow; a checkpoint stays in the journal only"
                );
            }
            Ok(())
        })
    }

    fn history(&self) -> Vec<Checkpoint> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// When a task's time is over: its timeout counts from the moment it was accepted, over restarts.
pub(super) fn deadline(clock: &dyn Clock, accepted_at: u64, timeout_ms: u64) -> Instant {
    /// What Harness gives a task that names none (protocol.md §4.6).
    const DEFAULT_MS: u64 = 600_000;
    /// Beyond this `Instant` may overflow; nobody waits for a year.
    const LONGEST_MS: u64 = 365 * 24 * 3600 * 1000;
    let timeout = if timeout_ms == 0 { DEFAULT_MS } else { timeout_ms.min(LONGEST_MS) };
    let passed = clock.wall().saturating_sub(accepted_at);
    clock.mono() + Duration::from_millis(timeout.saturating_sub(passed))
}
