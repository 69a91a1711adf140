//! Manual intervention: a failed run waits until somebody decides what its failure means (pipeline.md 2.5).

use super::state::{Halt, Phase, State, Status};
use super::timers::name;
use super::{Action, Actor, Intervention, Machine, is_step, node_of};
use crate::model::duration::show_duration;
use crate::model::failure::FailureAction;
use crate::plan::NodeKind;

/// What somebody may decide about a run that waits for a decision; empty if it waits for none.
pub fn interventions(state: &State, id: &str) -> Vec<Intervention> {
    let Some(run) = state.runs.get(id) else { return Vec::new() };
    let Some(node) = node_of(&state.plan, run) else { return Vec::new() };
    if run.phase != Phase::Intervention {
        return Vec::new();
    }
    let mut in_group = matches!(node.kind, NodeKind::Group);
    let mut at = node.parent;
    while let Some(outer) = at.and_then(|index| state.plan.node(index)) {
        in_group |= matches!(outer.kind, NodeKind::Group);
        at = outer.parent;
    }
    let fits = |action: &Intervention| match action {
        // What failed before its first attempt, or as a whole, cannot be tried again.
        Intervention::Retry => run.attempt > run.attempts_before && is_step(node) && !state.is_loop(id),
        Intervention::StageRollback => !node.in_rollback,
        Intervention::StepGroupRollback => !node.in_rollback && in_group,
        Intervention::Ignore
        | Intervention::MarkAsSuccess
        | Intervention::MarkAsFailure
        | Intervention::Abort => true,
    };
    Intervention::ALL.into_iter().filter(fits).collect()
}

impl Machine<'_> {
    /// A failed run waits for a decision.
    pub(super) fn halt(&mut self, id: &str, status: Status, timeout_ms: u64, on_timeout: &FailureAction) {
        // Its own time is over or does not count any more.
        self.clear_timeout(id);
        let until = self.at.saturating_add(timeout_ms);
        let attempt = self.run(id).map_or(0, |run| run.attempt);
        let halt = Halt { status, on_timeout: on_timeout.clone(), until };
        self.update(id, |run| {
            run.status = Status::InterventionWaiting;
            run.phase = Phase::Intervention;
            run.halt = Some(Box::new(halt));
        });
        self.actions.push(Action::SetTimer { timer: name("intervene", attempt, id), at: until });
    }

    /// Nobody decided in time.
    pub(super) fn undecided(&mut self, id: &str) {
        let Some(halt) = self.go_on(id) else { return };
        self.update(id, |run| run.notices.push("nobody intervened in time".to_owned()));
        self.act(id, &halt.on_timeout, halt.status);
    }

    /// Somebody decided.
    pub(super) fn intervene(&mut self, id: &str, by: &Actor, intervention: Intervention) {
        let attempt = self.run(id).map_or(0, |run| run.attempt);
        let Some(halt) = self.go_on(id) else { return };
        self.actions.push(Action::ClearTimer { timer: name("intervene", attempt, id) });
        let waited = show_duration(halt.until.saturating_sub(self.at));
        let note =
            format!("{} decided: {} ({waited} before the time was over)", by.name, intervention.name());
        self.update(id, |run| run.notices.push(note));
        let action = match intervention {
            Intervention::Retry => return self.start_attempt(id),
            Intervention::Ignore => FailureAction::Ignore,
            Intervention::MarkAsSuccess => FailureAction::MarkAsSuccess,
            Intervention::MarkAsFailure => FailureAction::MarkAsFailure,
            Intervention::Abort => {
                self.end(id, halt.status);
                return self.abort(&by.name);
            }
            Intervention::StageRollback => FailureAction::StageRollback,
            Intervention::StepGroupRollback => FailureAction::StepGroupRollback,
        };
        self.act(id, &action, halt.status);
    }

    /// The wait is over; the run is where its failure left it.
    fn go_on(&mut self, id: &str) -> Option<Halt> {
        let mut halt = None;
        self.update(id, |run| {
            halt = run.halt.take();
            run.status = Status::Running;
            run.phase = Phase::Idle;
        });
        halt.map(|halt| *halt)
    }
}
