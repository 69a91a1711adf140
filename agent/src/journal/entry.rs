//! What the journal says of a task, and what follows from it. Pure: live and replay use the same function.

use crate::dialect::Dialect;
use executor_api::Checkpoint;
use proto::result::StepResult;
use serde::{Deserialize, Serialize};

/// One durable fact about one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Entry {
    /// The task was acquired. Nothing is started before this is durable. A second one, under a higher fence, replaces the
    /// package and keeps what was done so far.
    Accepted {
        fence: u64,
        /// Epoch milliseconds.
        at: u64,
        task_type: String,
        /// Milliseconds; 0 is none.
        timeout: u64,
        /// The acquire reply as it arrived. Everything that its answer needs is made of it again.
        package: String,
        /// In which form it came, and its answer goes.
        #[serde(default, skip_serializing_if = "Dialect::is_ours")]
        dialect: Dialect,
    },
    /// An executor is about to change something.
    Checkpoint { checkpoint: Checkpoint },
    /// The step ended with this.
    Ended { result: Box<StepResult> },
    /// The manager has the result.
    Reported { fence: u64 },
}

impl Entry {
    /// Its number in the database. Never reused.
    pub(crate) fn kind(&self) -> i64 {
        match self {
            Entry::Accepted { .. } => 1,
            Entry::Checkpoint { .. } => 2,
            Entry::Ended { .. } => 3,
            Entry::Reported { .. } => 4,
        }
    }
}

/// What is known of one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum TaskState {
    /// Nothing.
    #[default]
    Unknown,
    /// Taken, and perhaps under way.
    Open(Record),
    /// Ended, and the manager does not know.
    Ended(Record, Box<StepResult>),
    /// Over. Kept for a while, so that a late offer of it is recognised.
    Reported { fence: u64 },
}

/// What was accepted, and what was done so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) fence: u64,
    pub(crate) at: u64,
    pub(crate) task_type: String,
    pub(crate) timeout: u64,
    pub(crate) package: String,
    pub(crate) dialect: Dialect,
    pub(crate) checkpoints: Vec<Checkpoint>,
}

/// An entry that cannot follow what stands before it: the journal is not one that this agent wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry of kind {kind} cannot follow state `{state}`")]
pub(crate) struct IllegalEntry {
    kind: i64,
    state: &'static str,
}

impl TaskState {
    fn name(&self) -> &'static str {
        match self {
            TaskState::Unknown => "unknown",
            TaskState::Open(_) => "open",
            TaskState::Ended(..) => "ended",
            TaskState::Reported { .. } => "reported",
        }
    }

    /// The state after `entry`.
    pub(crate) fn apply(self, entry: Entry) -> Result<TaskState, IllegalEntry> {
        let illegal = IllegalEntry { kind: entry.kind(), state: self.name() };
        match (self, entry) {
            (TaskState::Unknown, Entry::Accepted { fence, at, task_type, timeout, package, dialect }) => {
                Ok(TaskState::Open(Record {
                    fence,
                    at,
                    task_type,
                    timeout,
                    package,
                    dialect,
                    checkpoints: Vec::new(),
                }))
            }
            (TaskState::Open(old), Entry::Accepted { fence, at, task_type, timeout, package, dialect })
                if fence > old.fence =>
            {
                let checkpoints = old.checkpoints;
                Ok(TaskState::Open(Record { fence, at, task_type, timeout, package, dialect, checkpoints }))
            }
            // Reported under an older fence and given out once more: a new run.
            (
                TaskState::Reported { fence: old },
                Entry::Accepted { fence, at, task_type, timeout, package, dialect },
            ) if fence > old => Ok(TaskState::Open(Record {
                fence,
                at,
                task_type,
                timeout,
                package,
                dialect,
                checkpoints: Vec::new(),
            })),
            (TaskState::Open(mut record), Entry::Checkpoint { checkpoint }) => {
                record.checkpoints.push(checkpoint);
                Ok(TaskState::Open(record))
            }
            (TaskState::Open(record), Entry::Ended { result }) => Ok(TaskState::Ended(record, result)),
            (TaskState::Ended(..) | TaskState::Unknown, Entry::Reported { fence }) => {
                Ok(TaskState::Reported { fence })
            }
            // A commit whose acknowledgement was lost may be written twice.
            (TaskState::Reported { fence: old }, Entry::Reported { fence }) if old == fence => {
                Ok(TaskState::Reported { fence })
            }
            _ => Err(illegal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepted(fence: u64) -> Entry {
        let dialect = Dialect::Ours;
        Entry::Accepted { fence, at: 1, task_type: "T".into(), timeout: 0, package: "{}".into(), dialect }
    }

    fn checkpoint() -> Entry {
        Entry::Checkpoint {
            checkpoint: Checkpoint {
                intent: "i".into(),
                calls: vec![],
                state: serde_json::Value::Null,
                undo: None,
            },
        }
    }

    #[test]
    fn a_higher_fence_keeps_what_was_done() {
        let state = TaskState::default().apply(accepted(1)).unwrap().apply(checkpoint()).unwrap();
        let TaskState::Open(record) = state.clone().apply(accepted(2)).unwrap() else { panic!("not open") };
        assert_eq!((record.fence, record.checkpoints.len()), (2, 1));
        assert!(state.apply(accepted(1)).is_err());
    }

    proptest! {
        #[test]
        fn fences_never_fall_and_nothing_is_done_to_an_unknown_task(kinds in proptest::collection::vec((0u8..4, 0u64..4), 0..30)) {
            let mut state = TaskState::default();
            let mut fence = 0;
            for (kind, number) in kinds {
                let entry = match kind {
                    0 => accepted(number),
                    1 => checkpoint(),
                    2 => Entry::Ended { result: Box::new(crate::dialect::failed_result("AGT-004", "x")) },
                    _ => Entry::Reported { fence: number },
                };
                match state.clone().apply(entry) {
                    Ok(next) => state = next,
                    Err(_) => continue,
                }
                if let TaskState::Open(record) = &state {
                    prop_assert!(record.fence >= fence || fence == 0 || matches!(kind, 0));
                    fence = record.fence;
                }
            }
        }
    }
}
