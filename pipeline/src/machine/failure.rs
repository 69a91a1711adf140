//! Failure: what a task's answer means, and what the failure strategies make of it (pipeline.md 2.5).

use super::state::{Ending, Phase, ROOT_RUN, Status};
use super::timers::name;
use super::{Action, Machine, node_of};
use crate::model::failure::FailureAction;
use crate::plan::NodeKind;
use proto::failure::{Failure, FailureKind};
use proto::result::{StepResult, StepStatus};

impl Machine<'_> {
    pub(super) fn task_ended(&mut self, id: &str, attempt: u32, result: &StepResult) {
        // A key that was learned is true whatever became of the task.
        for learned in &result.learned_host_keys {
            let keys = self.state.learned.entry(learned.host.clone()).or_default();
            if !keys.contains(&learned.key) {
                keys.push(learned.key.clone());
            }
        }
        let Some(run) = self.run(id) else { return };
        if run.phase != Phase::Task || run.attempt != attempt || run.status != Status::Running {
            return;
        }
        let ending = run.ending.clone();
        self.take_result(id, result);
        match ending {
            Some(ending) => self.settle_ended_task(id, &ending, Some(result)),
            None => self.follow(id, result),
        }
    }

    /// Keeps what an answer tells beside its status.
    pub(super) fn take_result(&mut self, id: &str, result: &StepResult) {
        self.update(id, |run| {
            if !result.agent.is_empty() {
                run.agent = Some(result.agent.clone());
            }
            run.outputs = result.outputs.clone();
            run.undo = result.undo.clone().or_else(|| run.undo.take());
            run.units = result.units.clone();
            run.notices.extend(result.notices.iter().cloned());
        });
    }

    /// An answer that nobody interfered with: its status is what follows.
    pub(super) fn follow(&mut self, id: &str, result: &StepResult) {
        match result.status {
            StepStatus::Success => self.end(id, Status::Success),
            StepStatus::Skipped => self.end(id, Status::Skipped),
            StepStatus::Failed | StepStatus::Aborted => {
                let failure = result.failure.clone().unwrap_or_else(|| {
                    Failure::new(
                        FailureKind::Bug,
                        "PIPE-005",
                        "the agent reported a failure without saying why",
                    )
                });
                self.fail(id, failure, Status::Failed);
            }
        }
    }

    /// A cancelled task has ended, or is given up.
    pub(super) fn settle_ended_task(&mut self, id: &str, ending: &Ending, result: Option<&StepResult>) {
        match ending {
            // What was done before the abort arrived is told as it is.
            Ending::Aborted if result.is_some_and(|result| result.status == StepStatus::Success) => {
                self.end(id, Status::Success);
            }
            Ending::Aborted => {
                let failure = result.and_then(|result| result.failure.clone());
                self.update(id, |run| run.failure = failure);
                self.end(id, Status::Aborted);
            }
            Ending::Expired(failure) => {
                let mut failure = (**failure).clone();
                // The agent knows in what state the target was left.
                if let Some(reported) = result.and_then(|result| result.failure.as_ref()) {
                    failure.message = format!("{}; {}", failure.message, reported.message);
                    failure.target = failure.target.or_else(|| reported.target.clone());
                }
                if self.is_ending_above(id) {
                    self.update(id, |run| run.failure = Some(failure));
                    return self.end(id, Status::Expired);
                }
                self.update(id, |run| run.ending = None);
                let attempt = self.run(id).map_or(0, |run| run.attempt);
                self.actions.push(Action::ClearTimer { timer: name("grace", attempt, id) });
                self.fail(id, failure, Status::Expired);
            }
        }
    }

    /// Whether something around this run, not the run itself, is being ended.
    fn is_ending_above(&self, id: &str) -> bool {
        match self.run(id).and_then(|run| run.parent.clone()) {
            Some(parent) => self.is_ending(&parent),
            None => self.state.aborted_by.is_some(),
        }
    }

    /// A run failed by itself: its strategies decide what follows.
    pub(super) fn fail(&mut self, id: &str, failure: Failure, status: Status) {
        let plan = self.plan.clone();
        let Some(run) = self.run(id) else { return };
        let Some(node) = node_of(&plan, run) else { return };
        let class = failure.class;
        self.update(id, |run| {
            run.failure = Some(failure);
            // A strategy may try again, and until then it waits for nobody.
            if run.status.is_open() {
                run.status = Status::Running;
            }
        });
        let Some(action) = node.strategies.get(&class).cloned() else { return self.end(id, status) };
        self.act(id, &action, status);
    }

    pub(super) fn act(&mut self, id: &str, action: &FailureAction, status: Status) {
        match action {
            FailureAction::Ignore => self.end(id, Status::IgnoreFailed),
            FailureAction::MarkAsSuccess => self.end(id, Status::Success),
            FailureAction::MarkAsFailure => {
                self.update(id, |run| run.carry_on = true);
                self.end(id, Status::Failed);
            }
            FailureAction::Abort => {
                self.end(id, status);
                self.abort("failure strategy");
            }
            FailureAction::StageRollback => {
                self.advise_rollback(id, |kind| matches!(kind, NodeKind::Stage(_)));
                self.end(id, status);
            }
            FailureAction::StepGroupRollback => {
                self.advise_rollback(id, |kind| matches!(kind, NodeKind::Group));
                self.end(id, status);
            }
            FailureAction::PipelineRollback => {
                self.update(ROOT_RUN, |run| run.rollback_advised = true);
                self.advise_rollback(id, |kind| matches!(kind, NodeKind::Stage(_)));
                self.end(id, status);
            }
            FailureAction::ManualIntervention { timeout_ms, on_timeout } => {
                self.halt(id, status, *timeout_ms, on_timeout);
            }
            FailureAction::RetryStepGroup { .. } => self.retry_group(id, action, status),
            FailureAction::ProceedWithDefaultValues => self.proceed_with_defaults(id, status),
            FailureAction::Retry { count, intervals_ms, condition, then } => {
                let (attempt, before) = self.run(id).map_or((0, 0), |run| (run.attempt, run.attempts_before));
                let tries = attempt.saturating_sub(before);
                // A node that failed before its first attempt (a condition, a loop) cannot be tried again.
                if tries == 0 || tries > *count || !self.may_retry(id, condition.as_deref()) {
                    return self.act(id, then, status);
                }
                let index = (tries as usize).saturating_sub(1).min(intervals_ms.len().saturating_sub(1));
                let pause = self.rehearsed(intervals_ms.get(index).copied().unwrap_or(0));
                self.clear_timeout(id);
                self.update(id, |run| run.phase = Phase::RetryWait);
                let timer = name("retry", attempt, id);
                self.actions.push(Action::SetTimer { timer, at: self.at.saturating_add(pause) });
            }
        }
    }

    /// The condition of a retry. One that cannot be evaluated tries nothing again, and says so.
    fn may_retry(&mut self, id: &str, condition: Option<&str>) -> bool {
        let Some(condition) = condition.filter(|text| !text.trim().is_empty()) else { return true };
        let verdict = {
            let scope = self.scope(id);
            expr::evaluate_bool(condition, &self.context(&scope)).map_err(|error| error.to_string())
        };
        verdict.unwrap_or_else(|error| {
            let note = format!("not tried again: the condition `{}`: {error}", condition.trim());
            self.update(id, |run| run.notices.push(note));
            false
        })
    }

    /// Marks the nearest enclosing run of a kind, so that nothing more starts in it and its rollback follows.
    fn advise_rollback(&mut self, id: &str, fits: impl Fn(&NodeKind) -> bool) {
        let plan = self.plan.clone();
        let mut at = self.run(id).and_then(|run| run.parent.clone());
        // A stage or group that failed by itself is its own scope.
        if self.run(id).and_then(|run| node_of(&plan, run)).is_some_and(|node| fits(&node.kind)) {
            at = Some(id.to_owned());
        }
        while let Some(current) = at {
            let Some(run) = self.run(&current) else { return };
            let hit = run.phase != Phase::Loop && node_of(&plan, run).is_some_and(|node| fits(&node.kind));
            if hit {
                self.update(&current, |run| run.rollback_advised = true);
                return;
            }
            at = run.parent.clone();
        }
    }
}
