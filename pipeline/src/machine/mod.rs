//! The execution state machine: `apply(state, event) -> actions`.
//!
//! It owns no clock, no queue and no store. The manager commits event, new state and actions together, and only then
//! acts; after a crash it reads the state back and goes on. Replaying the events of an execution from its first state
//! gives the same state.

use proto::result::StepResult;
use proto::task::StepTask;
use proto::text::SecretRef;
use serde::{Deserialize, Serialize};

/// Epoch milliseconds, from the events; the machine reads no clock.
pub type Millis = u64;

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// The execution begins. Always the first event, once.
    Started {
        /// When.
        at: Millis,
    },
    /// An agent took the task of a node.
    TaskAssigned {
        /// Node.
        node: String,
        /// Attempt of the node.
        attempt: u32,
        /// Name of the agent.
        agent: String,
        /// When.
        at: Millis,
    },
    /// The task of a node was answered, or the manager ended it (no agent, lost agent) with a result of its own making.
    TaskEnded {
        /// Node.
        node: String,
        /// Attempt of the node.
        attempt: u32,
        /// The answer.
        result: Box<StepResult>,
        /// When.
        at: Millis,
    },
    /// A timer that an action had set ran out. One that was cleared meanwhile is ignored.
    TimerFired {
        /// Timer id.
        timer: String,
        /// When.
        at: Millis,
    },
    /// Somebody wants the execution to end. No rollback runs. A second one changes nothing.
    AbortRequested {
        /// Who.
        by: String,
        /// When.
        at: Millis,
    },
}

/// What is to be done, after the transition was committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Action {
    /// Hand out a task.
    Enqueue(Box<TaskRequest>),
    /// End the task of a node.
    CancelTask {
        /// Node.
        node: String,
        /// Attempt of the node.
        attempt: u32,
        /// `User` or `Deadline`.
        reason: String,
    },
    /// Wake me.
    SetTimer {
        /// Timer id, unique in the execution; an equal id replaces the older timer.
        timer: String,
        /// When.
        at: Millis,
    },
    /// No longer needed.
    ClearTimer {
        /// Timer id.
        timer: String,
    },
    /// The execution ended. Always the last action, once.
    Finish {
        /// Harness status name.
        status: String,
    },
}

/// One level of delegate selectors with its origin; every selector of every listed set must be met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectorSet {
    /// `step`, `stepGroup`, `stage`, `pipeline`, `infrastructure`, or `connector:ID`.
    pub origin: String,
    /// Compared trimmed and in lower case.
    pub selectors: Vec<String>,
}

/// A task to hand out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRequest {
    /// Node.
    pub node: String,
    /// Attempt of the node, from 1.
    pub attempt: u32,
    /// Harness task family.
    pub task_type: String,
    /// Step timeout: how long the agent may work. The machine holds the timer that ends the step.
    pub timeout_ms: u64,
    /// Already reduced to the level that wins (pipeline.md 2.9).
    pub selectors: Vec<SelectorSet>,
    /// Secrets whose placeholders or references stand in `task`.
    pub secrets: Vec<SecretRef>,
    /// Prefer the agent that last had this key: execution and host (D15). Empty: no preference.
    pub affinity: String,
    /// The document for the agent.
    pub task: Box<StepTask>,
    /// `logging.abstractions` in order: accountId, orgId, projectId, pipelineId, runSequence, level0 …
    pub abstractions: Vec<(String, String)>,
}
