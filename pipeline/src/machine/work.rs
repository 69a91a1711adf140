//! Steps that the manager itself performs, without an agent.

use super::state::{Phase, State};
use super::{Machine, Millis, state::Status};
use proto::result::StepResult;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// What the manager does for a step.
///
/// **Shape**: everything it needs, resolved when the step started; it is stored with the run, so that a restart gives
/// the same work again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ManagerWork {
    /// Evaluates policy sets over a document (step type `Policy`).
    Policy {
        /// References of the policy sets.
        sets: Vec<String>,
        /// What the document is, as Harness names it: `Custom`.
        entity: String,
        /// The document.
        payload: Json,
        /// When the step began: the time that policies see, also when the work is repeated after a crash.
        #[serde(default)]
        at: Millis,
    },
}

/// Work that was asked for and not answered.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingWork {
    /// Node.
    pub node: String,
    /// Attempt of the node.
    pub attempt: u32,
    /// What to do.
    pub work: ManagerWork,
}

/// What the manager still has to perform: whoever reads a state back after a crash does it again.
pub fn pending_work(state: &State) -> Vec<PendingWork> {
    if state.finished {
        return Vec::new();
    }
    let pending = state.runs.iter().filter(|(_, run)| run.phase == Phase::Perform);
    pending
        .filter_map(|(id, run)| {
            let work = run.work.as_deref()?.clone();
            Some(PendingWork { node: id.clone(), attempt: run.attempt, work })
        })
        .collect()
}

impl Machine<'_> {
    pub(super) fn performed(&mut self, id: &str, attempt: u32, result: &StepResult) {
        let Some(run) = self.run(id) else { return };
        if run.phase != Phase::Perform || run.attempt != attempt || run.status != Status::Running {
            return;
        }
        self.update(id, |run| run.work = None);
        self.take_result(id, result);
        self.follow(id, result);
    }
}
