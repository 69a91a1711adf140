//! What belongs to one held task beside its state: package, result, cancellation, logs.

use crate::dialect::Dialect;
use crate::logship::TaskLogs;
use bytes::Bytes;
use executor_api::{CancelHandle, Checkpoint};
use proto::package::TaskPackage;
use proto::result::StepResult;
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The I/O side of one held task.
pub(super) struct Held {
    pub(super) fence: u64,
    pub(super) task_type: String,
    pub(super) accepted_at: u64,
    pub(super) timeout_ms: u64,
    pub(super) package: Option<Arc<TaskPackage>>,
    pub(super) body: Bytes,
    pub(super) dialect: Dialect,
    pub(super) history: Vec<Checkpoint>,
    pub(super) result: Option<Arc<StepResult>>,
    pub(super) cancel: Option<CancelHandle>,
    pub(super) abandon: CancellationToken,
    /// Ends the timers of this task.
    pub(super) over: CancellationToken,
    pub(super) logs: Arc<OnceLock<Arc<TaskLogs>>>,
    pub(super) reports: u32,
    pub(super) started: Option<Instant>,
}

impl Held {
    pub(super) fn new(
        fence: u64,
        task_type: String,
        accepted_at: u64,
        timeout_ms: u64,
        package: Option<Arc<TaskPackage>>,
        body: Bytes,
        dialect: Dialect,
    ) -> Held {
        Held {
            fence,
            task_type,
            accepted_at,
            timeout_ms,
            package,
            body,
            dialect,
            history: Vec::new(),
            result: None,
            cancel: None,
            abandon: CancellationToken::new(),
            over: CancellationToken::new(),
            logs: Arc::new(OnceLock::new()),
            reports: 0,
            started: None,
        }
    }
}
