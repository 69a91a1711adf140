//! What the step knows of itself after a crash: the state inside its checkpoints.

use executor_api::{CancelReason, Checkpoint, CheckpointError, StepContext};
use serde::{Deserialize, Serialize};

/// The version of this state.
const VERSION: u32 = 1;

/// State of a ShellScript step. Readers ignore fields that they do not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    v: u32,
    /// It was to be ended, and why.
    #[serde(default)]
    pub(crate) ending: Option<Asked>,
}

/// Reasons that end the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Asked {
    User,
    Deadline,
}

impl From<Asked> for CancelReason {
    fn from(asked: Asked) -> CancelReason {
        match asked {
            Asked::User => CancelReason::User,
            Asked::Deadline => CancelReason::Deadline,
        }
    }
}

impl Memory {
    /// From the newest checkpoint.
    pub(crate) fn restore(history: &[Checkpoint]) -> Memory {
        history
            .iter()
            .rev()
            .find_map(|one| serde_json::from_value::<Memory>(one.state.clone()).ok())
            .unwrap_or_default()
    }

    /// Writes a checkpoint with this state.
    pub(crate) async fn record(
        &mut self,
        cx: &StepContext,
        intent: &str,
        call: &str,
    ) -> Result<(), CheckpointError> {
        self.v = VERSION;
        let state = serde_json::to_value(&*self).map_err(|e| CheckpointError(e.to_string()))?;
        let (intent, calls) = (intent.to_owned(), vec![call.to_owned()]);
        cx.checkpoints.record(Checkpoint { intent, calls, state, undo: None }).await
    }
}
