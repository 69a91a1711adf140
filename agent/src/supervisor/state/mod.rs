//! The agent as one pure state machine: `apply(event) -> actions` (D12). No clock, no I/O, no randomness.
//!
//! ```text
//! offer -> permit -> Acquiring -> Accepting -> Running -> Ending -> Reporting -> Closing -> permit back
//!                        (acquire)   (journal)   (step)    (journal)  (respond)   (journal)
//! a Harness manager may ask first: Acquiring -> Proving (capabilities, reported, acquire again) -> Accepting
//! restart: replayed task -> Reopening (re-acquire, or a timer) -> [Accepting] -> Running (recover)
//! ```
//! **Invariants**, held by the tests under random event orders: nothing is acquired without a permit; a (task, fence) is
//! started at most once in a process; an accepted task ends reported or stays held; permits are conserved; every event may
//! come twice or late.

mod tasks;

use executor_api::{CancelReason, CancelStage};
use std::collections::BTreeMap;

/// Everything that can happen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// The journal was read: open tasks and unsent results. First event of all.
    Replayed(Vec<Replayed>),
    Registered {
        extended: bool,
    },
    /// The manager refuses this agent, whichever call told so.
    Refused(Refusal),
    /// A heartbeat was acknowledged.
    HeartbeatAcknowledged(Vec<(String, LeaseVerdict)>),
    /// A poll came back.
    Polled(Vec<Offer>),
    PollFailed,
    Acquired {
        task: String,
        fence: u64,
        known: bool,
    },
    /// The manager asks for capabilities first; one of the events above and below follows.
    Asked {
        task: String,
    },
    NotOurs {
        task: String,
    },
    AcquireFailed {
        task: String,
    },
    /// An entry is durable, or will not be.
    Written {
        task: String,
        mark: Mark,
        ok: bool,
    },
    /// The step has ended.
    Ended {
        task: String,
        keep: bool,
    },
    /// The manager took the result (`true`), or the next try is due.
    Answered {
        task: String,
        ok: bool,
    },
    TimerFired {
        task: String,
        timer: Timer,
    },
    Drain,
    DrainLimit,
    Now,
}

/// A task that the journal knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Replayed {
    pub(crate) task: String,
    pub(crate) fence: u64,
    pub(crate) has_result: bool,
}

/// What a poll offers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Offer {
    Task { task: String, task_type: Option<String> },
    Abort { task: String, reason: CancelReason },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Keep what runs, take nothing, try again later.
    Freeze,
    /// Unknown token, or deleted: end.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseVerdict {
    Keep,
    Lost,
    Abort,
}

/// Kinds of journal entries that the machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Accepted,
    Ended,
    Reported,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The step's time is over.
    Deadline,
    /// The grace after asking is over.
    Kill,
    /// The grace after killing is over: the step's future is given up.
    Abandon,
    /// The manager did not answer about a replayed task: recover from the journal.
    Recover,
}

/// Everything the shell does for the machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Poll again. `pause`: nothing of the last reply could be used, so wait a little first.
    Poll {
        pause: bool,
    },
    Acquire {
        task: String,
    },
    WriteAccepted {
        task: String,
    },
    /// Run the step; `recover` first finds out what became of it.
    Start {
        task: String,
        recover: bool,
    },
    /// Do not run it: its result is that it was cancelled before it started.
    Skip {
        task: String,
        reason: CancelReason,
    },
    Cancel {
        task: String,
        reason: CancelReason,
        stage: CancelStage,
    },
    /// Drop the step's future; it did not end when killed.
    Abandon {
        task: String,
    },
    Arm {
        task: String,
        timer: Timer,
    },
    WriteEnded {
        task: String,
    },
    Report {
        task: String,
    },
    WriteReported {
        task: String,
    },
    /// The task is over for this process; free what belongs to it.
    Forget {
        task: String,
    },
    /// Offers that had to be left because the agent is full.
    Busy {
        left: usize,
    },
    /// Tell the manager at the next occasion that the load changed.
    LoadChanged {
        held: usize,
        free: usize,
    },
    Freeze,
    /// Nothing is held any more: take leave.
    Unregister,
    /// Leave.
    Exit {
        refused: bool,
    },
}

/// A slot. It cannot be copied: it is taken before a task is acquired and travels with the task.
#[derive(Debug, PartialEq, Eq)]
struct Permit(());

#[derive(Debug)]
struct Permits {
    free: usize,
    /// Replayed tasks beyond a lowered capacity: they go first when permits come back.
    overdraft: usize,
}

impl Permits {
    fn take(&mut self) -> Option<Permit> {
        self.free = self.free.checked_sub(1)?;
        Some(Permit(()))
    }

    /// For tasks that are held already: a restart never drops one.
    fn take_anyway(&mut self) -> Permit {
        self.take().unwrap_or_else(|| {
            self.overdraft += 1;
            Permit(())
        })
    }

    fn give(&mut self, permit: Permit) {
        let Permit(()) = permit;
        match self.overdraft.checked_sub(1) {
            Some(less) => self.overdraft = less,
            None => self.free += 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Acquiring,
    /// Capabilities are being proven: it takes seconds, and polls go on meanwhile.
    Proving,
    Accepting {
        recover: bool,
    },
    /// From the journal; asking the manager whether it is still ours.
    Reopening,
    Running,
    Ending,
    Reporting,
    Closing,
    /// Left as it is for the next start.
    Held,
}

#[derive(Debug)]
struct Task {
    permit: Permit,
    stage: Stage,
    fence: u64,
    /// The first reason and the farthest stage.
    cancel: Option<(CancelReason, CancelStage)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not registered yet.
    Starting,
    Taking,
    /// The token is refused.
    Frozen,
    Draining,
    Leaving,
}

/// The state of the agent.
#[derive(Debug)]
pub(crate) struct AgentState {
    phase: Phase,
    /// The types that may be taken from this manager.
    offered: Vec<String>,
    own_types: Vec<String>,
    foreign_types: Vec<String>,
    permits: Permits,
    tasks: BTreeMap<String, Task>,
    polling: bool,
    registered: bool,
    /// Something was offered since the last poll that was of use.
    useful: bool,
}

impl AgentState {
    /// `own_types` are offered to a manager that knows our extensions, `foreign_types` to any other.
    pub(crate) fn new(capacity: usize, own_types: Vec<String>, foreign_types: Vec<String>) -> Self {
        AgentState {
            phase: Phase::Starting,
            offered: Vec::new(),
            own_types,
            foreign_types,
            permits: Permits { free: capacity, overdraft: 0 },
            tasks: BTreeMap::new(),
            polling: false,
            registered: false,
            useful: true,
        }
    }

    /// Tasks held and permits free.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.tasks.len(), self.permits.free)
    }

    /// Tasks whose leases a heartbeat renews.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&str, u64)> {
        self.tasks
            .iter()
            .filter(|(_, task)| !matches!(task.stage, Stage::Acquiring | Stage::Proving))
            .map(|(id, task)| (id.as_str(), task.fence))
    }

    /// The fence under which a task is held.
    pub(crate) fn fence(&self, task: &str) -> u64 {
        self.tasks.get(task).map_or(0, |task| task.fence)
    }

    /// One event. Unknown, late and repeated events change nothing.
    pub(crate) fn apply(&mut self, event: Event) -> Vec<Action> {
        let before = self.load();
        let mut actions = Vec::new();
        match event {
            Event::Replayed(tasks) => self.replayed(tasks, &mut actions),
            Event::Registered { extended } => self.registered(extended, &mut actions),
            Event::Refused(Refusal::Freeze) => self.freeze(&mut actions),
            Event::Refused(Refusal::Stop) => self.leave(true, &mut actions),
            Event::HeartbeatAcknowledged(verdicts) => self.verdicts(verdicts, &mut actions),
            Event::Polled(offers) => self.polled(offers, &mut actions),
            Event::PollFailed => {
                self.polling = false;
                self.useful = false;
            }
            Event::Acquired { task, fence, known } => self.acquired(&task, fence, known, &mut actions),
            Event::Asked { task } => {
                if let Some(one) = self.tasks.get_mut(&task).filter(|one| one.stage == Stage::Acquiring) {
                    one.stage = Stage::Proving;
                }
            }
            Event::NotOurs { task } => self.not_ours(&task, &mut actions),
            Event::AcquireFailed { task } => self.acquire_failed(&task, &mut actions),
            Event::Written { task, mark, ok } => self.written(&task, mark, ok, &mut actions),
            Event::Ended { task, keep } => self.ended(&task, keep, &mut actions),
            Event::Answered { task, ok } => self.answered(&task, ok, &mut actions),
            Event::TimerFired { task, timer } => self.timer(&task, timer, &mut actions),
            Event::Drain => {
                if matches!(self.phase, Phase::Starting | Phase::Taking | Phase::Frozen) {
                    self.phase = Phase::Draining;
                }
            }
            Event::DrainLimit => {
                if self.phase == Phase::Draining {
                    self.cancel_all(CancelReason::Drain, &mut actions);
                }
            }
            Event::Now => self.leave(false, &mut actions),
        }
        self.settle(before, &mut actions);
        actions
    }

    fn replayed(&mut self, tasks: Vec<Replayed>, actions: &mut Vec<Action>) {
        for one in tasks {
            if self.tasks.contains_key(&one.task) {
                continue;
            }
            let permit = self.permits.take_anyway();
            let stage = if one.has_result { Stage::Reporting } else { Stage::Reopening };
            if one.has_result {
                actions.push(Action::Report { task: one.task.clone() });
            } else {
                actions.push(Action::Arm { task: one.task.clone(), timer: Timer::Recover });
            }
            self.tasks.insert(one.task, Task { permit, stage, fence: one.fence, cancel: None });
        }
    }

    fn registered(&mut self, extended: bool, actions: &mut Vec<Action>) {
        self.offered = if extended { self.own_types.clone() } else { self.foreign_types.clone() };
        if !self.registered {
            for (id, task) in &self.tasks {
                if task.stage == Stage::Reopening {
                    actions.push(Action::Acquire { task: id.clone() });
                }
            }
        }
        self.registered = true;
        if matches!(self.phase, Phase::Starting | Phase::Frozen) {
            self.phase = Phase::Taking;
            self.useful = true;
        }
    }

    fn freeze(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Starting | Phase::Taking) {
            self.phase = Phase::Frozen;
            actions.push(Action::Freeze);
        }
    }

    fn leave(&mut self, refused: bool, actions: &mut Vec<Action>) {
        if self.phase != Phase::Leaving {
            self.phase = Phase::Leaving;
            actions.push(Action::Exit { refused });
        }
    }

    fn verdicts(&mut self, verdicts: Vec<(String, LeaseVerdict)>, actions: &mut Vec<Action>) {
        // A frozen agent whose token is good again goes on.
        if self.phase == Phase::Frozen {
            self.phase = Phase::Taking;
            self.useful = true;
        }
        for (task, verdict) in verdicts {
            match verdict {
                LeaseVerdict::Keep => {}
                LeaseVerdict::Lost => self.cancel(&task, CancelReason::LeaseLost, actions),
                LeaseVerdict::Abort => self.cancel(&task, CancelReason::User, actions),
            }
        }
    }

    fn polled(&mut self, offers: Vec<Offer>, actions: &mut Vec<Action>) {
        self.polling = false;
        // An empty reply of a long poll is a normal end of its wait.
        self.useful = offers.is_empty();
        let mut left = 0;
        for offer in offers {
            match offer {
                Offer::Abort { task, reason } => {
                    self.useful = true;
                    self.cancel(&task, reason, actions);
                }
                Offer::Task { task, task_type } => {
                    let may = task_type.as_ref().is_some_and(|kind| self.offered.contains(kind));
                    if !may || self.phase != Phase::Taking || self.tasks.contains_key(&task) {
                        continue;
                    }
                    let Some(permit) = self.permits.take() else {
                        left += 1;
                        continue;
                    };
                    self.useful = true;
                    self.tasks.insert(
                        task.clone(),
                        Task { permit, stage: Stage::Acquiring, fence: 0, cancel: None },
                    );
                    actions.push(Action::Acquire { task });
                }
            }
        }
        if left > 0 {
            actions.push(Action::Busy { left });
        }
    }

    /// What follows from the state as a whole.
    fn settle(&mut self, before: (usize, usize), actions: &mut Vec<Action>) {
        let load = self.load();
        if load != before {
            actions.push(Action::LoadChanged { held: load.0, free: load.1 });
        }
        let acquiring = self.tasks.values().any(|task| task.stage == Stage::Acquiring);
        let polls = match self.phase {
            Phase::Taking => true,
            // Aborts of what still runs arrive by polls too.
            Phase::Draining => self.tasks.values().any(|task| task.stage == Stage::Running),
            Phase::Starting | Phase::Frozen | Phase::Leaving => false,
        };
        // Not while tasks are being acquired: the reply would list them again.
        if polls && self.registered && !self.polling && !acquiring {
            self.polling = true;
            let is_full = self.permits.free == 0;
            actions.push(Action::Poll { pause: !self.useful || is_full || self.phase == Phase::Draining });
        }
        if self.phase == Phase::Draining {
            let is_busy = self.tasks.values().any(|task| task.stage != Stage::Held);
            if !is_busy {
                self.phase = Phase::Leaving;
                // With something held, taking leave would make the manager fail it.
                if self.tasks.is_empty() && self.registered {
                    actions.push(Action::Unregister);
                }
                actions.push(Action::Exit { refused: false });
            }
        }
    }
}

#[cfg(test)]
mod tests;
