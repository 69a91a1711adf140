//! Timers: `KIND/ATTEMPT/NODE`.

use super::state::{Ending, Phase, Status};
use super::{Action, Holdup, Machine, is_step, node_of};
use crate::model::duration::show_duration;
use crate::plan::NodeKind;
use proto::failure::{Failure, FailureKind};

/// Step timeout when none is written (pipeline.md 2.7).
pub(super) const DEFAULT_STEP_MS: u64 = 10 * 3_600_000;

/// Timeout of an artifact lookup.
pub(super) const ARTIFACT_MS: u64 = 600_000;

/// The id of a timer.
pub(super) fn name(kind: &str, attempt: u32, id: &str) -> String {
    format!("{kind}/{attempt}/{id}")
}

/// Node and attempt of the step whose timeout a timer is. Other timers, those of groups and stages too, have none.
pub fn step_timeout(timer: &str) -> Option<(&str, u32)> {
    of_step(timer.strip_prefix("timeout/")?)
}

/// The same of the time that an agent has to confirm the end of a task.
pub fn step_grace(timer: &str) -> Option<(&str, u32)> {
    of_step(timer.strip_prefix("grace/")?)
}

fn of_step(timer: &str) -> Option<(&str, u32)> {
    let mut parts = timer.splitn(2, '/');
    let attempt = parts.next()?.parse().ok().filter(|attempt| *attempt > 0)?;
    Some((parts.next()?, attempt))
}

impl Machine<'_> {
    pub(super) fn timer_fired(&mut self, timer: &str, holdup: Option<&Holdup>) {
        let mut parts = timer.splitn(3, '/');
        let (Some(kind), Some(attempt), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
            return;
        };
        let Ok(attempt) = attempt.parse::<u32>() else { return };
        let id = id.to_owned();
        let plan = self.plan.clone();
        let Some(run) = self.run(&id) else { return };
        let Some(node) = node_of(&plan, run) else { return };
        if !run.status.is_open() {
            return;
        }
        let is_leaf = is_step(node) && run.phase != Phase::Loop;
        let current = run.attempt == attempt;
        let (phase, ending) = (run.phase, run.ending.clone());
        match kind {
            "timeout" if !is_leaf && attempt == 0 => self.expire(&id),
            "timeout" if current && ending.is_none() => {
                let failure = self.timeout_failure(&id, &node.identifier, holdup);
                match phase {
                    // Nobody is there to confirm the end. The agent hears of it when it comes back.
                    Phase::Task if matches!(holdup, Some(Holdup::Lost { .. })) => {
                        let reason = "Deadline".to_owned();
                        self.actions.push(Action::CancelTask { node: id.clone(), attempt, reason });
                        self.unanswered(&id, holdup);
                        self.fail(&id, failure, Status::Failed);
                    }
                    Phase::Task => self.cancel_task(&id, Ending::Expired(Box::new(failure))),
                    Phase::Wait => {
                        self.actions.push(Action::ClearTimer { timer: name("wait", attempt, &id) });
                        self.fail(&id, failure, Status::Expired);
                    }
                    Phase::Input => self.input_expired(&id),
                    Phase::Perform | Phase::Approval | Phase::Barrier => {
                        self.fail(&id, failure, Status::Expired);
                    }
                    _ => {}
                }
            }
            "grace" if current && phase == Phase::Task => {
                let Some(ending) = ending else { return };
                let note = "the agent did not confirm in time that the task had ended; what it left on the target is unknown";
                self.update(&id, |run| run.notices.push(note.to_owned()));
                self.unanswered(&id, holdup);
                self.settle_ended_task(&id, &ending, None);
            }
            "retry" if current && phase == Phase::RetryWait => match node.kind {
                NodeKind::Group => self.restart_group(&id),
                _ => self.start_attempt(&id),
            },
            "intervene" if current && phase == Phase::Intervention => self.undecided(&id),
            "approve" if current && phase == Phase::Approval => self.approve_by_itself(&id),
            "wait" if current && phase == Phase::Wait => self.end(&id, Status::Success),
            _ => {}
        }
    }

    /// The task is given up. What its checkpoints say of its work is what a rollback goes by.
    fn unanswered(&mut self, id: &str, holdup: Option<&Holdup>) {
        let undo = match holdup {
            Some(Holdup::Lost { undo, .. }) => undo.clone(),
            Some(Holdup::Unanswered { undo }) => Some(undo.clone()),
            Some(Holdup::Waiting { .. }) | None => None,
        };
        let lost = matches!(holdup, Some(Holdup::Lost { .. }));
        self.update(id, |run| {
            // A task that nobody took has left nothing.
            run.unanswered = lost || run.agent.is_some();
            run.undo = undo.or_else(|| run.undo.take());
        });
    }

    fn timeout_failure(&self, id: &str, identifier: &str, holdup: Option<&Holdup>) -> Failure {
        let started = self.run(id).and_then(|run| run.started_at).unwrap_or(self.at);
        let waited_for_agent =
            self.run(id).is_some_and(|run| run.agent.is_none() && run.phase == Phase::Task);
        let message = format!(
            "the step `{identifier}` did not end within {}",
            show_duration(self.at - started.min(self.at))
        );
        let hint = match holdup {
            Some(Holdup::Lost { agent, since, .. }) => {
                let silent = show_duration(self.at.saturating_sub(*since));
                let message = format!(
                    "{message}: the agent {agent} that runs it has been silent for {silent}; what it left on the target is unknown"
                );
                return Failure::new(FailureKind::DelegateRestart, "PIPE-007", message)
                    .hint(format!("look at the target and at {agent}; a result that it still sends is kept with the task and changes nothing"));
            }
            Some(Holdup::Waiting { why }) => {
                let message = format!("{message}: {why}");
                return Failure::new(FailureKind::Timeout, "PIPE-004", message)
                    .hint("no agent had taken its task: start another agent, raise DELEGATE_TASK_CAPACITY or the step's `timeout`");
            }
            _ if waited_for_agent => "no agent had taken its task: all fitting agents were busy or away",
            Some(Holdup::Unanswered { .. }) | None => {
                "raise the step's `timeout`, or read its log to see what it waited for"
            }
        };
        Failure::new(FailureKind::Timeout, "PIPE-004", message).hint(hint)
    }

    /// Forgets the timers of a run.
    pub(super) fn clear_timeout(&mut self, id: &str) {
        let plan = self.plan.clone();
        let Some(run) = self.run(id) else { return };
        let Some(node) = node_of(&plan, run) else { return };
        let (attempt, asks) = (run.attempt, run.phase == Phase::Input);
        let is_leaf = is_step(node) && run.phase != Phase::Loop;
        if run.phase == Phase::Intervention {
            self.actions.push(Action::ClearTimer { timer: name("intervene", attempt, id) });
        }
        if is_leaf {
            // Before its first attempt a leaf has none, unless it asks for inputs on behalf of its hosts.
            if attempt > 0 || asks {
                self.actions.push(Action::ClearTimer { timer: name("timeout", attempt, id) });
                if self
                    .run(id)
                    .and_then(|run| run.approval.as_ref())
                    .is_some_and(|asked| asked.auto.is_some())
                {
                    self.actions.push(Action::ClearTimer { timer: name("approve", attempt, id) });
                }
                if run_is_ending(self.run(id)) {
                    self.actions.push(Action::ClearTimer { timer: name("grace", attempt, id) });
                }
            }
        } else {
            self.actions.push(Action::ClearTimer { timer: name("timeout", 0, id) });
        }
    }
}

fn run_is_ending(run: Option<&super::state::Run>) -> bool {
    run.is_some_and(|run| run.ending.is_some())
}
