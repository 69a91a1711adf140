//! What events do to one task.

use super::{Action, AgentState, Mark, Stage, Timer};
use executor_api::{CancelReason, CancelStage};

impl AgentState {
    pub(super) fn acquired(&mut self, id: &str, fence: u64, known: bool, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        match task.stage {
            // It was over before: the manager asks once more for what it has had. Do not run it again.
            Stage::Acquiring | Stage::Proving if known => {
                self.useful = false;
                self.forget(id, actions);
            }
            Stage::Acquiring | Stage::Proving => {
                task.stage = Stage::Accepting { recover: false };
                task.fence = fence;
                actions.push(Action::WriteAccepted { task: id.to_owned() });
            }
            Stage::Reopening if fence > task.fence => {
                task.stage = Stage::Accepting { recover: true };
                task.fence = fence;
                actions.push(Action::WriteAccepted { task: id.to_owned() });
            }
            Stage::Reopening => self.start(id, true, actions),
            _ => {}
        }
    }

    pub(super) fn not_ours(&mut self, id: &str, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        match task.stage {
            Stage::Acquiring | Stage::Proving => {
                // Without a pause an offer that nobody can take would be asked for without end.
                self.useful = false;
                self.forget(id, actions);
            }
            // Over, aborted, or somebody else's by now: do not touch the target, and say so.
            Stage::Reopening => {
                let reason = task.cancel.map_or(CancelReason::LeaseLost, |(reason, _)| reason);
                task.stage = Stage::Running;
                actions.push(Action::Skip { task: id.to_owned(), reason });
            }
            // The manager was slow and the recovery has begun.
            Stage::Running => self.cancel(id, CancelReason::LeaseLost, actions),
            _ => {}
        }
    }

    pub(super) fn acquire_failed(&mut self, id: &str, actions: &mut Vec<Action>) {
        // It is offered again. A replayed task waits for its timer: the manager may be away for long.
        let stage = self.tasks.get(id).map(|task| task.stage);
        if matches!(stage, Some(Stage::Acquiring | Stage::Proving)) {
            self.useful = false;
            self.forget(id, actions);
        }
    }

    pub(super) fn written(&mut self, id: &str, mark: Mark, ok: bool, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        match (mark, task.stage) {
            (Mark::Accepted, Stage::Accepting { recover }) if ok => self.start(id, recover, actions),
            (Mark::Accepted, Stage::Accepting { .. }) => {
                // Nothing runs that is not durable; the shell made a failure of it.
                task.stage = Stage::Reporting;
                actions.push(Action::Report { task: id.to_owned() });
            }
            // A result that cannot be made durable is sent all the same: it is the best that is left.
            (Mark::Ended, Stage::Ending) => {
                task.stage = Stage::Reporting;
                actions.push(Action::Report { task: id.to_owned() });
            }
            // If this is not durable, the next start sends the result once more, which changes nothing there.
            (Mark::Reported, Stage::Closing) => self.forget(id, actions),
            _ => {}
        }
    }

    pub(super) fn start(&mut self, id: &str, recover: bool, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if let (Some((reason, _)), false) = (task.cancel, recover) {
            task.stage = Stage::Running;
            actions.push(Action::Skip { task: id.to_owned(), reason });
            return;
        }
        task.stage = Stage::Running;
        actions.push(Action::Start { task: id.to_owned(), recover });
        actions.push(Action::Arm { task: id.to_owned(), timer: Timer::Deadline });
        if let Some((reason, stage)) = task.cancel {
            actions.push(Action::Cancel { task: id.to_owned(), reason, stage });
            actions.push(Action::Arm { task: id.to_owned(), timer: Timer::Kill });
        }
    }

    pub(super) fn ended(&mut self, id: &str, keep: bool, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.stage != Stage::Running {
            return;
        }
        if keep {
            // Cancelled by a drain: the journal keeps it open and the next start goes on with it.
            task.stage = Stage::Held;
        } else {
            task.stage = Stage::Ending;
            actions.push(Action::WriteEnded { task: id.to_owned() });
        }
    }

    pub(super) fn answered(&mut self, id: &str, ok: bool, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.stage != Stage::Reporting {
            return;
        }
        if ok {
            task.stage = Stage::Closing;
            actions.push(Action::WriteReported { task: id.to_owned() });
        } else {
            actions.push(Action::Report { task: id.to_owned() });
        }
    }

    pub(super) fn timer(&mut self, id: &str, timer: Timer, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get(id) else { return };
        match (timer, task.stage) {
            (Timer::Recover, Stage::Reopening) => self.start(id, true, actions),
            (Timer::Deadline, Stage::Running) => self.cancel(id, CancelReason::Deadline, actions),
            (Timer::Kill, Stage::Running) => {
                match task.cancel {
                    // A drain leaves the target as it is: there is nothing to kill, and the next start recovers the step.
                    Some((CancelReason::Drain, _)) => actions.push(Action::Abandon { task: id.to_owned() }),
                    Some((reason, _)) => self.raise(id, reason, actions),
                    None => {}
                }
            }
            (Timer::Abandon, Stage::Running) => actions.push(Action::Abandon { task: id.to_owned() }),
            _ => {}
        }
    }

    /// Asks a task to end. The first reason stays.
    pub(super) fn cancel(&mut self, id: &str, reason: CancelReason, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.cancel.is_some()
            || matches!(task.stage, Stage::Ending | Stage::Reporting | Stage::Closing | Stage::Held)
        {
            return;
        }
        task.cancel = Some((reason, CancelStage::Ask));
        if task.stage == Stage::Running {
            actions.push(Action::Cancel { task: id.to_owned(), reason, stage: CancelStage::Ask });
            actions.push(Action::Arm { task: id.to_owned(), timer: Timer::Kill });
        }
    }

    pub(super) fn raise(&mut self, id: &str, reason: CancelReason, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.cancel != Some((reason, CancelStage::Kill)) {
            task.cancel = Some((reason, CancelStage::Kill));
            actions.push(Action::Cancel { task: id.to_owned(), reason, stage: CancelStage::Kill });
            actions.push(Action::Arm { task: id.to_owned(), timer: Timer::Abandon });
        }
    }

    pub(super) fn cancel_all(&mut self, reason: CancelReason, actions: &mut Vec<Action>) {
        let ids: Vec<String> = self.tasks.keys().cloned().collect();
        for id in ids {
            match self.tasks.get_mut(&id) {
                // What has not begun here stays in the journal, and results that were not taken do too.
                Some(task) if matches!(task.stage, Stage::Reopening | Stage::Reporting) => {
                    task.stage = Stage::Held
                }
                Some(_) => self.cancel(&id, reason, actions),
                None => {}
            }
        }
    }

    pub(super) fn forget(&mut self, id: &str, actions: &mut Vec<Action>) {
        if let Some(task) = self.tasks.remove(id) {
            self.permits.give(task.permit);
            actions.push(Action::Forget { task: id.to_owned() });
        }
    }
}
