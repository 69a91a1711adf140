//! What the step knows of itself after a crash: the state inside its checkpoints.

use crate::error::Error;
use executor_api::{Checkpoint, Class, StepContext, StepError};
use proto::failure::{Failure, FailureKind};
use proto::result::Output;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of this state. A newer one is not understood and fails the step, see [`Memory::restore`].
const VERSION: u32 = 1;

/// State of a Command step. Readers of version 1 ignore fields they do not know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    v: u32,
    /// Folders on the host of units that were announced, in order.
    pub(crate) launched: Vec<String>,
    /// Units that are through, by identifier.
    pub(crate) done: BTreeMap<String, UnitEnd>,
    /// How the step ended, once only the cleaning up is left.
    pub(crate) end: Option<Finished>,
}

/// What is kept of a unit that is through.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct UnitEnd {
    pub(crate) code: i32,
    /// Outputs of the unit itself (`path`, `sha256` …).
    #[serde(default)]
    pub(crate) outputs: BTreeMap<String, Value>,
}

/// How the step ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Finished {
    Success(BTreeMap<String, Output>),
    Failed(Failure, Option<String>),
}

impl Memory {
    /// From the newest checkpoint that this executor wrote.
    pub(crate) fn restore(history: &[Checkpoint]) -> Memory {
        history
            .iter()
            .rev()
            .find_map(|c| serde_json::from_value::<Memory>(c.state.clone()).ok().filter(|m| m.v == VERSION))
            .unwrap_or_else(|| Memory { v: VERSION, ..Memory::default() })
    }

    /// Writes a checkpoint with this state.
    pub(crate) async fn record(
        &self,
        cx: &StepContext,
        intent: String,
        calls: Vec<String>,
    ) -> Result<(), Error> {
        let state = serde_json::to_value(self).map_err(|e| executor_api::CheckpointError(e.to_string()))?;
        Ok(cx.checkpoints.record(Checkpoint { intent, calls, state, undo: None }).await?)
    }

    /// Only the cleaning up is left.
    pub(crate) fn finish(&mut self, outcome: &Result<BTreeMap<String, Output>, StepError>) {
        self.v = VERSION;
        self.end = Some(match outcome {
            Ok(outputs) => Finished::Success(outputs.clone()),
            Err(error) => {
                let reason = match error.class {
                    Class::Cancelled { reason } => Some(format!("{reason:?}")),
                    _ => None,
                };
                Finished::Failed(error.to_failure(), reason)
            }
        });
    }
}

/// Codes that a failure of this step may carry; a stored one is looked up here.
const CODES: [&str; 26] = [
    "SSH-001", "SSH-002", "SSH-003", "SSH-004", "SSH-005", "SSH-006", "SSH-007", "SSH-008", "SSH-009",
    "SSH-010", "SSH-011", "SSH-012", "SSH-013", "SSH-014", "SSH-015", "SSH-016", "SSH-017", "SSH-018",
    "SSH-019", "SSH-020", "SSH-021", "SSH-022", "SSH-023", "SSH-024", "SSH-025", "SSH-026",
];

impl Finished {
    /// The exit code that stands for it.
    pub(crate) fn code(&self) -> i32 {
        match self {
            Finished::Success(_) => 0,
            Finished::Failed(failure, _) => failure.exit_code.unwrap_or(1),
        }
    }

    /// The result as it was before the crash.
    pub(crate) fn into_result(self, host: &str) -> Result<BTreeMap<String, Output>, StepError> {
        let (failure, reason) = match self {
            Finished::Success(outputs) => return Ok(outputs),
            Finished::Failed(failure, reason) => (failure, reason),
        };
        use executor_api::CancelReason;
        let class = match (reason.as_deref(), failure.kind) {
            (Some("User"), _) => Class::Cancelled { reason: CancelReason::User },
            (Some(_), _) => Class::Cancelled { reason: CancelReason::Deadline },
            (None, FailureKind::Authentication) => Class::Authentication,
            (None, FailureKind::Authorization) => Class::Authorization,
            (None, FailureKind::Connectivity) => Class::Connectivity,
            (None, FailureKind::Timeout) => Class::Timeout,
            (None, FailureKind::Verification) => Class::Verification,
            (None, FailureKind::RemoteFailed) => Class::RemoteFailed { code: failure.exit_code.unwrap_or(1) },
            (None, FailureKind::BadSpec) => Class::BadSpec,
            (None, FailureKind::Throttled) => Class::Throttled { retry_after: None },
            (None, _) => Class::Bug,
        };
        // A code of another crate (a download) has no constant here; its text names it.
        let known = CODES.iter().find(|c| **c == failure.code);
        let what = match known {
            Some(_) => failure.message,
            None => format!("{} [{}]", failure.message, failure.code),
        };
        let mut error = StepError::new(class, known.copied().unwrap_or("SSH-027"), what);
        error.hint = failure.hint;
        error.target = failure.target.or_else(|| Some(host.to_owned()));
        Err(error)
    }
}
