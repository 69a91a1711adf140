//! The execution state machine: `apply(state, event) -> actions`.
//!
//! It owns no clock, no queue and no store. The manager commits event, new state and actions together, and only then
//! acts; after a crash it reads the state back and goes on. Replaying the events of an execution from its first state
//! gives the same state.

pub mod approval;
mod barrier;
mod ends;
mod failure;
pub mod input;
mod intervene;
mod loops;
mod resource;
pub mod restart;
mod runs;
mod sequence;
pub mod state;
mod task;
mod timers;
mod undo;
mod user;
mod work;

pub use intervene::interventions;
pub use loops::Loops;
pub(crate) use loops::named_iterations;
pub use runs::{Changed, RunBefore, Runs};
pub use state::{State, Status};
pub(crate) use task::{Builder, field_value, render, retoken, stage_key};
pub use task::{Need, SshNeed, stage_records};
pub use timers::{step_grace, step_timeout};
pub use undo::{NothingToRollBack, rollback_of};
pub use user::{Actor, Intervention, Refusal, UserAction, accepts};
pub use work::{ManagerWork, PendingWork, pending_work};

use crate::plan::{NodeKind, Plan, PlanNode};
use proto::result::StepResult;
use proto::task::StepTask;
use proto::text::SecretRef;
use serde::{Deserialize, Serialize};
use state::{ROOT_RUN, Run};
use std::collections::VecDeque;
use std::sync::Arc;

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
        /// Where the task of the step stands whose timeout it is (see [`step_timeout`], [`step_grace`]), if nothing runs it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holdup: Option<Holdup>,
    },
    /// Somebody wants the execution to end. No rollback runs. A second one changes nothing.
    AbortRequested {
        /// Who.
        by: String,
        /// When.
        at: Millis,
    },
    /// Somebody answered what a step asks for. What does not fit (see [`accepts`]) changes nothing.
    UserActed {
        /// Node.
        node: String,
        /// Attempt of the node.
        attempt: u32,
        /// Who.
        by: Actor,
        /// What they want.
        action: UserAction,
        /// When.
        at: Millis,
    },
    /// What [`Action::Claim`] asked for is this execution's.
    Granted {
        /// Node that claimed it.
        node: String,
        /// When.
        at: Millis,
    },
    /// The manager is done with what [`Action::Perform`] asked for.
    Performed {
        /// Node.
        node: String,
        /// Attempt of the node.
        attempt: u32,
        /// How it went.
        result: Box<StepResult>,
        /// When.
        at: Millis,
    },
}

/// Why nobody works on the task of a step when its timeout runs out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Holdup {
    /// No agent has taken it.
    Waiting {
        /// One sentence: all fitting agents are busy, or what they lack.
        why: String,
    },
    /// The agent that has it is not connected.
    Lost {
        /// Its name.
        agent: String,
        /// Its last sign of life.
        since: Millis,
        /// What undoes the work of the task as far as its checkpoints tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        undo: Option<serde_json::Value>,
    },
    /// The agent did not confirm that the task has ended.
    Unanswered {
        /// What undoes the work of the task as far as its checkpoints tell.
        undo: serde_json::Value,
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
    /// Work on a step in the manager itself and answer with [`Event::Performed`]. It may be asked for again after a
    /// crash, so it must be safe to repeat.
    Perform {
        /// Node.
        node: String,
        /// Attempt of the node.
        attempt: u32,
        /// What to do.
        work: Box<ManagerWork>,
    },
    /// Put a stage in the queue for its infrastructure and answer with [`Event::Granted`] when nobody else is before it.
    /// Stages of one execution share what it holds.
    Claim {
        /// Node.
        node: String,
        /// What it claims.
        key: String,
    },
    /// The stage needs its infrastructure no more, or waits for it no more.
    Release {
        /// Node.
        node: String,
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
    /// Reject what older executions of this pipeline have been asking at this node since before now
    /// (`isAutoRejectEnabled`, with [`UserAction::Supersede`]). It is safe to repeat, and owed until it is done, also
    /// when this execution ends.
    RejectOlder {
        /// Node.
        node: String,
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

/// How long the machine waits for an agent to confirm that a cancelled task has ended. An agent asks, waits and kills
/// within 30 s; the rest is for the way there and back.
pub const CANCEL_GRACE_MS: u64 = 60_000;

/// Applies one event. Deterministic: it reads nothing but its arguments.
///
/// **Repeat**: an event that no longer fits (a late answer, a cleared timer, anything after the end) changes nothing
/// and gives no action.
pub fn apply(state: &mut State, event: &Event) -> Vec<Action> {
    if state.finished {
        return Vec::new();
    }
    let started = state.runs.contains_key(ROOT_RUN);
    let at = match event {
        Event::Started { at }
        | Event::TaskAssigned { at, .. }
        | Event::TaskEnded { at, .. }
        | Event::TimerFired { at, .. }
        | Event::AbortRequested { at, .. }
        | Event::UserActed { at, .. }
        | Event::Granted { at, .. }
        | Event::Performed { at, .. } => *at,
    };
    let mut machine =
        Machine { plan: state.plan.clone(), state, at, actions: Vec::new(), work: VecDeque::new() };
    match event {
        Event::Started { .. } if !started => machine.start(),
        Event::Started { .. } => {}
        Event::AbortRequested { by, .. } => {
            // An abort may arrive before the start: then nothing starts at all.
            if !started {
                machine.start_aborted(by);
            } else {
                machine.abort(by);
            }
        }
        _ if !started => {}
        Event::TaskAssigned { node, attempt, agent, .. } => machine.assigned(node, *attempt, agent),
        Event::TaskEnded { node, attempt, result, .. } => machine.task_ended(node, *attempt, result),
        Event::TimerFired { timer, holdup, .. } => machine.timer_fired(timer, holdup.as_ref()),
        Event::UserActed { node, attempt, by, action, .. } => machine.user_acted(node, *attempt, by, action),
        Event::Granted { node, .. } => machine.granted(node),
        Event::Performed { node, attempt, result, .. } => machine.performed(node, *attempt, result),
    }
    machine.settle();
    machine.actions
}

/// One step of the work that an event causes. A list instead of recursion, so that a loop of ten thousand skipped
/// iterations needs no deep stack.
enum Work {
    /// A run begins.
    Begin(String),
    /// A member of a run has ended.
    ChildEnded { parent: String, child: String },
    /// A sequence goes on.
    Advance(String),
}

/// One transition in the making.
struct Machine<'a> {
    plan: Arc<Plan>,
    state: &'a mut State,
    at: Millis,
    actions: Vec<Action>,
    work: VecDeque<Work>,
}

impl Machine<'_> {
    fn settle(&mut self) {
        loop {
            while let Some(work) = self.work.pop_front() {
                match work {
                    Work::Begin(id) => self.begin(&id),
                    Work::ChildEnded { parent, child } => self.child_ended(&parent, &child),
                    Work::Advance(id) => self.advance(&id),
                }
            }
            // Whether a barrier opens depends on everything else, so it is looked at when all else has settled.
            if !self.open_barriers() {
                return;
            }
        }
    }

    fn run(&self, id: &str) -> Option<&Run> {
        self.state.runs.get(id)
    }

    /// Changes a run that exists; ids come from the state itself, so a missing one means that there is nothing to do.
    fn update(&mut self, id: &str, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.state.runs.get_mut(id) {
            change(run);
        }
    }

    fn assigned(&mut self, id: &str, attempt: u32, agent: &str) {
        self.update(id, |run| {
            if run.attempt == attempt && run.phase == state::Phase::Task {
                run.agent = Some(agent.to_owned());
            }
        });
    }

    /// Waits and pauses are divided in a rehearsal; timeouts never are (settled facts §1.9).
    fn rehearsed(&self, ms: u64) -> u64 {
        match self.plan.run.rehearsal {
            Some(factor) if factor > 1 => ms / u64::from(factor),
            _ => ms,
        }
    }
}

/// The node that a run executes.
fn node_of<'p>(plan: &'p Plan, run: &Run) -> Option<&'p PlanNode> {
    plan.node(run.node)
}

fn is_step(node: &PlanNode) -> bool {
    matches!(node.kind, NodeKind::Step { .. } | NodeKind::Artifact)
}
