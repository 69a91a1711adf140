//! What people do to a step that asks for it: one question ([`accepts`]) and one transition, both pure.

use super::intervene::interventions;
use super::state::{Phase, ROOT_RUN, Run, State, Status};
use super::timers::name;
use super::{Action, Machine, approval, input};
use proto::failure::{Failure, FailureKind};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Who acts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Actor {
    /// As shown.
    pub name: String,
    /// Empty if unknown.
    pub email: String,
    /// Identifiers of the user groups that they belong to.
    pub groups: Vec<String>,
    /// What they are known by: the same person has the same one.
    pub principal: String,
}

/// What somebody wants of a step that waits for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum UserAction {
    /// Approves.
    Approve {
        /// Values of the approver inputs.
        #[serde(default)]
        inputs: BTreeMap<String, String>,
        /// Free text.
        #[serde(default)]
        comments: String,
    },
    /// Rejects.
    Reject {
        /// Values of the approver inputs.
        #[serde(default)]
        inputs: BTreeMap<String, String>,
        /// Free text.
        #[serde(default)]
        comments: String,
    },
    /// Rejects because a later execution was approved at the same step. Only the manager itself says this.
    Supersede {
        /// The later execution.
        execution: String,
    },
    /// Decides about a failed step.
    Intervene {
        /// What follows.
        action: Intervention,
    },
    /// Ends a Wait step early.
    MarkWait {
        /// As success, or as failure of type `UserMarkedFailure`.
        success: bool,
    },
    /// Gives the inputs that a step asks for.
    GiveInputs {
        /// Values by what the step calls them, or by the end of that name.
        values: BTreeMap<String, Json>,
    },
}

/// What may follow a failure when somebody decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "The names are Harness' own; `FailureAction` explains them.")]
pub enum Intervention {
    Retry,
    Ignore,
    MarkAsSuccess,
    MarkAsFailure,
    Abort,
    StageRollback,
    StepGroupRollback,
}

impl Intervention {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Intervention; 7] = [
        Intervention::Retry,
        Intervention::Ignore,
        Intervention::MarkAsSuccess,
        Intervention::MarkAsFailure,
        Intervention::Abort,
        Intervention::StageRollback,
        Intervention::StepGroupRollback,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Intervention::Retry => "Retry",
            Intervention::Ignore => "Ignore",
            Intervention::MarkAsSuccess => "MarkAsSuccess",
            Intervention::MarkAsFailure => "MarkAsFailure",
            Intervention::Abort => "Abort",
            Intervention::StageRollback => "StageRollback",
            Intervention::StepGroupRollback => "StepGroupRollback",
        }
    }
}

/// Why an action is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The execution has ended.
    #[error("the execution has ended as {}", .status.name())]
    Ended {
        /// How.
        status: Status,
    },
    /// No such step has begun.
    #[error("no step `{node}` has begun in this execution")]
    NoNode {
        /// What was named.
        node: String,
    },
    /// The step does not wait for this.
    #[error("the step `{node}` is {} and does not wait for {wanted}", .status.name())]
    NotWaiting {
        /// Node.
        node: String,
        /// Where it stands.
        status: Status,
        /// What the action would answer: `an approval`, `an intervention`, …
        wanted: &'static str,
    },
    /// This person may not do it.
    #[error("{who} may not do this: {why}")]
    NotAllowed {
        /// Who.
        who: String,
        /// One clause.
        why: String,
    },
    /// A value does not fit.
    #[error("`{field}`: {why}")]
    BadValue {
        /// Which.
        field: String,
        /// What was found and what is expected.
        why: String,
    },
}

/// Whether the action would be taken now. The same test decides when it arrives as an event.
///
/// **Errors**: why not; nothing changes then.
pub fn accepts(state: &State, node: &str, by: &Actor, action: &UserAction) -> Result<(), Refusal> {
    if state.finished {
        return Err(Refusal::Ended { status: state.status() });
    }
    let Some(run) = state.runs.get(node) else { return Err(Refusal::NoNode { node: node.to_owned() }) };
    let (phase, wanted) = match action {
        UserAction::Approve { .. } | UserAction::Reject { .. } | UserAction::Supersede { .. } => {
            (Phase::Approval, "an approval")
        }
        UserAction::Intervene { .. } => (Phase::Intervention, "an intervention"),
        UserAction::MarkWait { .. } => (Phase::Wait, "the end of a wait"),
        UserAction::GiveInputs { .. } => (Phase::Input, "inputs"),
    };
    if run.phase != phase || !run.status.is_open() {
        return Err(Refusal::NotWaiting { node: node.to_owned(), status: run.status, wanted });
    }
    if state.aborted_by.is_some() {
        let status = state.runs.get(ROOT_RUN).map_or(Status::Aborted, |run| run.status);
        return Err(Refusal::NotWaiting { node: node.to_owned(), status, wanted });
    }
    fits(state, node, run, by, action)
}

/// What depends on the step itself.
fn fits(state: &State, node: &str, run: &Run, by: &Actor, action: &UserAction) -> Result<(), Refusal> {
    match action {
        UserAction::Intervene { action } => {
            let offered = interventions(state, node);
            if offered.contains(action) {
                return Ok(());
            }
            let offered: Vec<&str> = offered.iter().map(|action| action.name()).collect();
            let why =
                format!("`{}` is not possible here; possible are {}", action.name(), offered.join(", "));
            Err(Refusal::BadValue { field: "action".to_owned(), why })
        }
        UserAction::MarkWait { .. } => Ok(()),
        UserAction::GiveInputs { values } => input::complete(state, node, values).map(drop),
        UserAction::Approve { .. } | UserAction::Reject { .. } | UserAction::Supersede { .. } => {
            approval::fits(state, run, by, action)
        }
    }
}

impl Machine<'_> {
    pub(super) fn user_acted(&mut self, id: &str, attempt: u32, by: &Actor, action: &UserAction) {
        let current = self.run(id).is_some_and(|run| run.attempt == attempt);
        if !current || accepts(self.state, id, by, action).is_err() {
            return;
        }
        match action {
            UserAction::MarkWait { success } => self.mark_wait(id, by, *success),
            UserAction::Approve { .. } | UserAction::Reject { .. } | UserAction::Supersede { .. } => {
                self.act_on_approval(id, by, action);
            }
            UserAction::Intervene { action } => self.intervene(id, by, *action),
            UserAction::GiveInputs { values } => self.take_inputs(id, by, values),
        }
    }

    fn mark_wait(&mut self, id: &str, by: &Actor, success: bool) {
        let attempt = self.run(id).map_or(0, |run| run.attempt);
        self.actions.push(Action::ClearTimer { timer: name("wait", attempt, id) });
        if success {
            self.update(id, |run| run.notices.push(format!("{} ended the wait as success", by.name)));
            return self.end(id, Status::Success);
        }
        let message = format!("{} ended the wait as failure", by.name);
        self.fail(id, Failure::new(FailureKind::UserMarkedFailure, "PIPE-008", message), Status::Failed);
    }
}
