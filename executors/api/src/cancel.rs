//! Cancellation with a reason and two stages (D8).

use std::sync::Arc;
use tokio::sync::watch;

/// Why a step is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// A person aborted the execution.
    User,
    /// The step's timer ran out.
    Deadline,
    /// The agent shuts down and the drain limit is over. The step is to be left running and recoverable where the
    /// target allows that (a detached script), not killed.
    Drain,
    /// Another agent may own the task: stop touching the target and leave it observable.
    LeaseLost,
}

impl CancelReason {
    /// Whether the target is to be stopped too. On `Drain` and `LeaseLost` the work is left as it is.
    pub fn ends_the_target(self) -> bool {
        matches!(self, CancelReason::User | CancelReason::Deadline)
    }

    /// For people: why the step ends.
    pub fn words(self) -> &'static str {
        match self {
            CancelReason::User => "aborted",
            CancelReason::Deadline => "the step's timeout ran out",
            CancelReason::Drain => "the agent shuts down",
            CancelReason::LeaseLost => "the agent lost the task",
        }
    }
}

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelStage {
    /// End in order: TERM, then wait.
    Ask,
    /// End now: KILL.
    Kill,
}

/// The request so far.
type Request = Option<(CancelReason, CancelStage)>;

/// The receiving side of a cancellation. Cheap to clone; level-triggered, so that a late listener misses nothing.
#[derive(Clone, Debug)]
pub struct Cancel {
    state: watch::Receiver<Request>,
    // Keeps the channel open when a test or a tool never cancels.
    _keep: Option<Arc<watch::Sender<Request>>>,
}

/// The sending side; the agent's supervisor owns one per running task.
#[derive(Debug)]
pub struct CancelHandle(watch::Sender<Request>);

impl Cancel {
    /// A handle and its receiving side.
    pub fn pair() -> (CancelHandle, Cancel) {
        let (sender, state) = watch::channel(None);
        (CancelHandle(sender), Cancel { state, _keep: None })
    }

    /// One that never fires.
    pub fn never() -> Cancel {
        let (sender, state) = watch::channel(None);
        Cancel { state, _keep: Some(Arc::new(sender)) }
    }

    /// The request so far, if any.
    pub fn requested(&self) -> Option<(CancelReason, CancelStage)> {
        *self.state.borrow()
    }

    /// Waits until at least `stage` is requested and returns the request. Never returns if the handle was dropped
    /// without a request.
    ///
    /// **Cancel**: safe to drop and call again.
    pub async fn wait_for(&self, stage: CancelStage) -> (CancelReason, CancelStage) {
        let mut state = self.state.clone();
        loop {
            if let Some(request) = *state.borrow_and_update()
                && request.1 >= stage
            {
                return request;
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until anything is requested.
    pub async fn wait(&self) -> (CancelReason, CancelStage) {
        self.wait_for(CancelStage::Ask).await
    }
}

impl CancelHandle {
    /// Requests an end. The first reason stays; the stage only grows.
    ///
    /// **Repeat**: safe.
    pub fn cancel(&self, reason: CancelReason, stage: CancelStage) {
        self.0.send_if_modified(|state| match state {
            None => {
                *state = Some((reason, stage));
                true
            }
            Some((_, old)) if *old < stage => {
                *old = stage;
                true
            }
            Some(_) => false,
        });
    }
}
