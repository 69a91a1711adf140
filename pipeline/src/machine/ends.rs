//! Ends: how a run ends, by itself or from outside (abort, expiry).

use super::state::{Ending, Phase, ROOT_RUN, Status};
use super::timers::name;
use super::{Action, CANCEL_GRACE_MS, Machine, Work, node_of};
use crate::model::duration::show_duration;
use crate::plan::NodeKind;
use proto::failure::{Failure, FailureKind};

impl Machine<'_> {
    /// A run reaches its final status; what encloses it hears of it.
    pub(super) fn end(&mut self, id: &str, status: Status) {
        let plan = self.plan.clone();
        let Some(run) = self.run(id) else { return };
        if run.status.is_final() {
            return;
        }
        let Some(node) = node_of(&plan, run) else { return };
        let parent = run.parent.clone();
        let is_iteration = run.iteration.is_some();
        let at = self.at;
        self.clear_timeout(id);
        self.release(id);
        self.update(id, |run| {
            run.status = status;
            run.phase = Phase::Idle;
            run.work = None;
            run.halt = None;
            run.ended_at = Some(at);
        });
        let Some(parent) = parent else {
            self.state.finished = true;
            self.actions.push(Action::Finish { status: status.name().to_owned() });
            return;
        };
        // A stage that was opened again for its rollback answers the pipeline, whatever block it stood in.
        let rolls_back = self.run(ROOT_RUN).is_some_and(|root| root.phase == Phase::Rollback);
        if rolls_back && matches!(node.kind, NodeKind::Stage(_)) {
            self.work.push_back(Work::Advance(ROOT_RUN.to_owned()));
            return;
        }
        // Iterations do not count one by one, and rollback nodes carry a status of their own.
        // Nor does what happens in a group that begins again.
        let counts = !is_iteration && !node.in_rollback && !self.is_retried(&parent);
        if counts && !status.is_positive() {
            if matches!(node.kind, NodeKind::Stage(_)) {
                self.update(ROOT_RUN, |run| run.broke = true);
            } else if let Some(stage) = self.stage_run(&parent) {
                self.update(&stage, |run| run.broke = true);
            }
        }
        if is_iteration {
            self.gather_iteration(&parent, id);
        }
        self.work.push_back(Work::ChildEnded { parent, child: id.to_owned() });
    }

    /// The outputs of the first host are those of the step; the hosts' own stand in the view.
    fn gather_iteration(&mut self, parent: &str, child: &str) {
        let Some(run) = self.run(child) else { return };
        let is_first_host = run.iteration.as_ref().is_some_and(|i| i.is_host && i.index == 0);
        let failure = run.failure.clone().filter(|_| !run.status.is_positive());
        let outputs = is_first_host.then(|| run.outputs.clone());
        let agent = run.agent.clone();
        let status = run.status;
        self.update(parent, |run| {
            if !status.is_positive() {
                run.iteration_failed = true;
                run.worst_iteration = run.worst_iteration.or(Some(status));
            }
            if let Some(outputs) = outputs {
                run.outputs = outputs;
            }
            run.agent = run.agent.take().or(agent);
            run.failure = run.failure.take().or(failure);
        });
    }

    /// Whether something that encloses this run, or the run itself, is being ended from outside.
    pub(super) fn is_ending(&self, id: &str) -> bool {
        if self.state.aborted_by.is_some() {
            return true;
        }
        let mut at = Some(id);
        while let Some(run) = at.and_then(|id| self.run(id)) {
            if run.ending.is_some() {
                return true;
            }
            at = run.parent.as_deref();
        }
        false
    }

    /// The status that a run gets when it is ended from outside.
    pub(super) fn ending_status(&self, id: &str) -> Status {
        if self.state.aborted_by.is_some() {
            return Status::Aborted;
        }
        let mut at = Some(id);
        while let Some(run) = at.and_then(|id| self.run(id)) {
            match &run.ending {
                Some(Ending::Expired(_)) => return Status::Expired,
                Some(Ending::Aborted) => return Status::Aborted,
                None => at = run.parent.as_deref(),
            }
        }
        Status::Aborted
    }

    /// Ends the whole execution: running tasks are cancelled, nothing is rolled back.
    pub(super) fn abort(&mut self, by: &str) {
        if self.state.aborted_by.is_some() {
            return;
        }
        self.state.aborted_by = Some(by.to_owned());
        let ending = Ending::Aborted;
        self.end_leaves(ROOT_RUN, &ending);
    }

    /// A timer of a group, stage or pipeline ran out: everything inside expires.
    pub(super) fn expire(&mut self, id: &str) {
        let plan = self.plan.clone();
        let Some(run) = self.run(id) else { return };
        if run.status == Status::ResourceWaiting {
            return self.claim_expired(id);
        }
        if run.status == Status::InputWaiting {
            return self.input_expired(id);
        }
        if run.status != Status::Running || run.ending.is_some() {
            return;
        }
        let Some(node) = node_of(&plan, run) else { return };
        let what = match node.kind {
            NodeKind::Pipeline => "pipeline",
            NodeKind::Stage(_) => "stage",
            _ => "step group",
        };
        let limit = show_duration(self.at.saturating_sub(run.started_at.unwrap_or(self.at)));
        let message = format!("the {what} `{}` did not end within {limit}", node.identifier);
        let failure = Failure::new(FailureKind::Timeout, "PIPE-004", message)
            .hint("raise its `timeout`, or find out what it waited for");
        let ending = Ending::Expired(Box::new(failure.clone()));
        let rolls_back = !node.rollback.is_empty()
            && matches!(
                node.strategies.get(&failure.class),
                Some(crate::model::failure::FailureAction::StageRollback)
            )
            && matches!(node.kind, NodeKind::Stage(_))
            && run.phase == Phase::Forward;
        self.update(id, |run| {
            run.ending = Some(ending.clone());
            run.failure = Some(failure);
            run.rollback_advised |= rolls_back;
        });
        self.end_leaves(id, &ending);
    }

    /// Ends every leaf below a run: tasks are cancelled and awaited, waits end at once.
    fn end_leaves(&mut self, id: &str, ending: &Ending) {
        let mut open = vec![id.to_owned()];
        open.extend(self.reopened());
        while let Some(id) = open.pop() {
            let Some(run) = self.run(&id) else { continue };
            if run.status.is_final() {
                continue;
            }
            // A stage that waits for its infrastructure has nothing below it that is open.
            if run.status == Status::ResourceWaiting {
                self.end_from_outside(&id, ending);
                continue;
            }
            match run.phase {
                Phase::Task => self.cancel_task(&id, ending.clone()),
                Phase::RetryWait | Phase::Wait => {
                    let attempt = run.attempt;
                    for kind in ["retry", "wait"] {
                        self.actions.push(Action::ClearTimer { timer: name(kind, attempt, &id) });
                    }
                    self.end_from_outside(&id, ending);
                }
                Phase::Perform | Phase::Approval | Phase::Intervention | Phase::Input | Phase::Barrier => {
                    self.end_from_outside(&id, ending);
                }
                Phase::Idle | Phase::Artifact | Phase::Forward | Phase::Rollback | Phase::Loop => {
                    open.extend(self.state.members(&id));
                }
            }
        }
    }

    /// Asks for the end of a task and waits for it, but not for ever. A task that is being ended already keeps its
    /// reason, except that an abort outweighs a timer.
    pub(super) fn cancel_task(&mut self, id: &str, ending: Ending) {
        let Some(run) = self.run(id) else { return };
        let attempt = run.attempt;
        let first = run.ending.is_none();
        let reason = match ending {
            Ending::Aborted => "User",
            Ending::Expired(_) => "Deadline",
        };
        self.update(id, |run| run.ending = Some(ending));
        if first {
            let node = id.to_owned();
            self.actions.push(Action::CancelTask { node, attempt, reason: reason.to_owned() });
            let timer = name("grace", attempt, id);
            self.actions.push(Action::SetTimer { timer, at: self.at.saturating_add(CANCEL_GRACE_MS) });
        }
    }

    /// A leaf ends because of `ending`; no strategy applies.
    pub(super) fn end_from_outside(&mut self, id: &str, ending: &Ending) {
        let (status, failure) = match ending {
            Ending::Aborted => (Status::Aborted, None),
            Ending::Expired(failure) => (Status::Expired, Some((**failure).clone())),
        };
        self.update(id, |run| {
            if run.failure.is_none() {
                run.failure = failure;
            }
        });
        self.end(id, status);
    }
}
