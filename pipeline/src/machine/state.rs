//! What the machine remembers of a run.

use super::loops::Loops;
use super::work::ManagerWork;
use super::{Millis, Runs};
use crate::model::failure::FailureAction;
use crate::plan::{Iteration, Plan};
use proto::failure::Failure;
use proto::result::{Output, UnitProgress};
use proto::task::Artifact;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Harness' status names, as the API writes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "The names are Harness' own; pipeline.md 2.10 explains them.")]
pub enum Status {
    #[default]
    NotStarted,
    Running,
    Success,
    Skipped,
    IgnoreFailed,
    Failed,
    Expired,
    Aborted,
    ApprovalRejected,
    ApprovalWaiting,
    InterventionWaiting,
    InputWaiting,
    ResourceWaiting,
    WaitStepRunning,
}

impl Status {
    /// Nothing changes it any more.
    pub fn is_final(self) -> bool {
        self != Status::NotStarted && !self.is_open()
    }

    /// It has begun and not ended: it runs, or it waits for somebody or something.
    pub fn is_open(self) -> bool {
        match self {
            Status::Running
            | Status::ApprovalWaiting
            | Status::InterventionWaiting
            | Status::InputWaiting
            | Status::ResourceWaiting
            | Status::WaitStepRunning => true,
            Status::NotStarted
            | Status::Success
            | Status::Skipped
            | Status::IgnoreFailed
            | Status::Failed
            | Status::Expired
            | Status::Aborted
            | Status::ApprovalRejected => false,
        }
    }

    /// The enclosing scope goes on as if nothing had happened.
    pub fn is_positive(self) -> bool {
        matches!(self, Status::Success | Status::Skipped | Status::IgnoreFailed)
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Status::NotStarted => "NotStarted",
            Status::Running => "Running",
            Status::Success => "Success",
            Status::Skipped => "Skipped",
            Status::IgnoreFailed => "IgnoreFailed",
            Status::Failed => "Failed",
            Status::Expired => "Expired",
            Status::Aborted => "Aborted",
            Status::ApprovalRejected => "ApprovalRejected",
            Status::ApprovalWaiting => "ApprovalWaiting",
            Status::InterventionWaiting => "InterventionWaiting",
            Status::InputWaiting => "InputWaiting",
            Status::ResourceWaiting => "ResourceWaiting",
            Status::WaitStepRunning => "WaitStepRunning",
        }
    }

    /// The engine's own spelling, which expressions see.
    pub fn engine_name(self) -> &'static str {
        match self {
            Status::NotStarted => "QUEUED",
            Status::Running => "RUNNING",
            Status::Success => "SUCCEEDED",
            Status::Skipped => "SKIPPED",
            Status::IgnoreFailed => "IGNORE_FAILED",
            Status::Failed => "FAILED",
            Status::Expired => "EXPIRED",
            Status::Aborted => "ABORTED",
            Status::ApprovalRejected => "APPROVAL_REJECTED",
            Status::ApprovalWaiting => "APPROVAL_WAITING",
            Status::InterventionWaiting => "INTERVENTION_WAITING",
            Status::InputWaiting => "INPUT_WAITING",
            Status::ResourceWaiting => "RESOURCE_WAITING",
            Status::WaitStepRunning => "WAIT_STEP_RUNNING",
        }
    }
}

/// What a run that has not ended is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing: it has not begun or it has ended.
    #[default]
    Idle,
    /// A stage waits for its artifact lookup.
    Artifact,
    /// Members run.
    Forward,
    /// Rollback members run.
    Rollback,
    /// Iterations run.
    Loop,
    /// A task is out.
    Task,
    /// A failed step waits for its next attempt.
    RetryWait,
    /// A Wait step waits.
    Wait,
    /// The manager itself works on the step.
    Perform,
    /// Somebody is asked for an approval.
    Approval,
    /// A failed step waits for somebody's decision.
    Intervention,
    /// Somebody is asked for inputs.
    Input,
    /// A step waits at its barrier.
    Barrier,
}

/// Why a run is being ended from outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ending {
    /// The execution is aborted.
    Aborted,
    /// A timer ran out.
    Expired(Box<Failure>),
}

/// A failed run that waits for somebody's decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Halt {
    /// The status that the failure alone would have given.
    pub status: Status,
    /// What follows when nobody decides.
    pub on_timeout: FailureAction,
    /// Until when somebody may decide.
    pub until: Millis,
}

/// One execution of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Run {
    /// Node of the plan.
    pub node: usize,
    /// Run that it belongs to.
    pub parent: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// What it is doing.
    pub phase: Phase,
    /// Attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Attempts in earlier rounds of its group: strategies count from here.
    #[serde(skip_serializing_if = "is_none_yet")]
    pub attempts_before: u32,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Millis>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Millis>,
    /// Agent of the latest attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Outputs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Output>,
    /// Undo data of a forward step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<Json>,
    /// Command units.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitProgress>,
    /// What a person should read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// Which iteration it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iteration: Option<Iteration>,
    /// Runs of its members or iterations, in the order in which they began.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<String>,
    /// Members that have begun and not ended.
    #[serde(skip_serializing_if = "is_zero")]
    pub open: usize,
    /// Next member of the current list.
    #[serde(skip_serializing_if = "is_zero")]
    pub next: usize,
    /// Items of a loop that began in an older version; others stand in [`State::loops`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Json>,
    /// Iterations at once.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: usize,
    /// A rollback was advised: no further member starts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rollback_advised: bool,
    /// Its rollback members have begun.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rolled_back: bool,
    /// Worst status so far of what ended inside, loop children left out: what `stageStatus` looks at.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub broke: bool,
    /// It is being ended from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// The status of the forward part while the rollback runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<Status>,
    /// The artifact of a stage, once it was looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// The condition that was false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// A strategy said to go on in spite of the failure (MarkAsFailure): a rollback sequence does so too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub carry_on: bool,
    /// What people are or were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Box<super::approval::Approval>>,
    /// What the manager itself is at, as it was decided: after a crash it is given again, unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<Box<ManagerWork>>,
    /// An iteration of this loop did not end well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub iteration_failed: bool,
    /// The worst status of the iterations that have ended; `None`: all were positive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_iteration: Option<Status>,
    /// What the step asks or asked for, and what was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Box<super::input::Asked>>,
    /// How often a step group was begun again, and whether it is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<Box<super::restart::Rounds>>,
    /// The infrastructure that a stage holds, or waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// It failed and waits for a decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halt: Option<Box<Halt>>,
    /// Its task was given up without an answer: what it left on the target is unknown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unanswered: bool,
}

fn is_none_yet(value: &u32) -> bool {
    *value == 0
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// A run of a plan.
///
/// **Shape**: serialised whole; [`crate::machine::apply`] on an equal state and event gives equal results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// What is run.
    pub plan: Arc<Plan>,
    /// Runs by id.
    pub runs: Runs,
    /// Items of loops, by the id of the run that loops.
    #[serde(default, skip_serializing_if = "Loops::is_empty")]
    pub loops: Loops,
    /// Somebody or a strategy ended it.
    #[serde(default)]
    pub aborted_by: Option<String>,
    /// Host keys learned during this run, by `host:port`.
    #[serde(default)]
    pub learned: BTreeMap<String, Vec<String>>,
    /// `Finish` was given.
    #[serde(default)]
    pub finished: bool,
}

/// Id of the run of the pipeline itself.
pub const ROOT_RUN: &str = "pipeline";

impl State {
    /// The state before [`super::Event::Started`].
    pub fn new(plan: Plan) -> Self {
        State {
            plan: Arc::new(plan),
            runs: Runs::default(),
            loops: Loops::default(),
            aborted_by: None,
            learned: BTreeMap::new(),
            finished: false,
        }
    }

    /// Status of the whole execution.
    pub fn status(&self) -> Status {
        self.runs.get(ROOT_RUN).map_or(Status::NotStarted, |run| run.status)
    }
}
