//! The one owner of all task state. Everything that happens is a [`Message`]; the pure machine in [`state`] decides; this
//! file carries its actions out and never decides itself.
//!
//! ```text
//! poll, acquire, journal, step, respond, timers, signals ──Message──► Shell ──Event──► AgentState ──Action──► Shell
//! ```
//! The queue is bounded: who reports waits for the shell. The shell itself never sends to the queue, so it cannot wait for
//! itself. Every spawned future belongs to `tracker` and ends with `stop`.

mod calls;
mod held;
pub(crate) mod state;
mod step;

use crate::client::{Features, ManagerClient, Refusal as ClientRefusal};
use crate::config::Config;
use crate::dispatch::{ABANDON_AFTER, Executors};
use crate::harness::{Prover, Recorder};
use crate::health::Pulse;
use crate::journal::{Entry, Journal, TaskState};
use crate::key::AgentKey;
use crate::lease::Identity;
use crate::logship::LogShip;
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;
use bytes::Bytes;
use executor_api::{Cancel, CancelStage, Clock, HostAliases};
use held::Held;
use proto::package::TaskPackage;
use proto::result::{StepResult, StepStatus};
use secrets::Masker;
use state::{Action, AgentState, Event, Mark, Refusal, Replayed, Timer};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Messages that may wait for the shell, which handles each in microseconds.
const QUEUE: usize = 256;
/// Between asking a step to end and killing it. Executors ask the target and wait on their own within it.
const KILL_AFTER: Duration = Duration::from_secs(10);
/// How long a replayed task waits for the manager's word before it is recovered from the journal.
const RECOVER_AFTER: Duration = Duration::from_secs(10);
/// The health check looks for these.
const TICK: Duration = Duration::from_secs(1);
/// What is left after the drain limit: cancelled steps end, logs go out.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the whole agent shares.
pub(crate) struct Deps {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) client: ManagerClient,
    pub(crate) ship: Arc<LogShip>,
    pub(crate) journal: Journal,
    pub(crate) key: AgentKey,
    pub(crate) executors: Executors,
    pub(crate) features: watch::Sender<Option<Features>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) pulse: Arc<Pulse>,
    /// What is masked for every task.
    pub(crate) masker: Masker,
    pub(crate) aliases: Arc<HostAliases>,
    pub(crate) scratch: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) prover: Prover,
    pub(crate) recorder: Option<Recorder>,
}

/// What the futures of the shell report.
enum Message {
    Event(Event),
    Registered { id: Arc<str>, features: Features },
    HeartbeatDue,
    HeartbeatDone(Result<Vec<(String, state::LeaseVerdict)>, crate::client::Fault>),
    Acquired { task: String, package: Arc<TaskPackage>, body: Bytes },
    StepEnded { task: String, outcome: step::Outcome },
    Refused(ClientRefusal),
}

/// How the supervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As asked.
    Shutdown,
    /// The manager refuses this agent for good.
    Refused(ClientRefusal),
}

struct Shell<R> {
    deps: Arc<Deps>,
    state: AgentState,
    held: HashMap<String, Held>,
    /// Tasks that are over, with the fence under which they were reported.
    reported: BTreeMap<String, u64>,
    sender: mpsc::Sender<Message>,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// A permit came back, or the load changed otherwise: a pausing poll goes on.
    wake_poll: Arc<Notify>,
    pauses: u32,
    heartbeats_failed: u32,
    beating: bool,
    on_ready: Option<R>,
    refusal: Option<ClientRefusal>,
    exit: Option<bool>,
    unregister: bool,
}

/// Reported tasks that are remembered in memory.
const KEPT_REPORTS: usize = 4096;

/// Runs until the agent has gone down.
pub(crate) async fn run<R: FnOnce(&str, &str) + Send>(
    deps: Arc<Deps>,
    replayed: BTreeMap<String, TaskState>,
    mut shutdown: watch::Receiver<Shutdown>,
    on_ready: R,
) -> Ended {
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let own = crate::dialect::own_task_types(&deps.config);
    let foreign = crate::dialect::foreign_task_types(&deps.config);
    let state = AgentState::new(deps.config.capacity.get(), own, foreign);
    let mut shell = Shell {
        state,
        held: HashMap::new(),
        reported: BTreeMap::new(),
        sender,
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
        wake_poll: Arc::new(Notify::new()),
        pauses: 0,
        heartbeats_failed: 0,
        beating: false,
        on_ready: Some(on_ready),
        refusal: None,
        exit: None,
        unregister: false,
        deps,
    };
    // If this future is dropped, everything it spawned ends too.
    let _ends_with_us = shell.stop.clone().drop_guard();
    shell.replay(replayed).await;
    shell.register();
    // A request may have come before anybody watched.
    shutdown.mark_changed();
    let mut limit: Option<Instant> = None;
    let mut urgency = Shutdown::No;
    while shell.exit.is_none() {
        let clock = shell.deps.clock.clone();
        let tick = clock.sleep(TICK);
        let at_limit = async {
            match limit {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = receiver.recv() => match message {
                Some(message) => shell.handle(message),
                None => break,
            },
            changed = shutdown.changed(), if urgency != Shutdown::Now => {
                urgency = if changed.is_ok() { *shutdown.borrow_and_update() } else { Shutdown::Now };
                match urgency {
                    Shutdown::No => {}
                    Shutdown::Drain => {
                        tracing::info!(limit = ?shell.deps.config.drain_limit, "draining");
                        limit = Some(shell.deps.clock.mono() + shell.deps.config.drain_limit);
                        shell.apply(Event::Drain);
                    }
                    Shutdown::Now => shell.apply(Event::Now),
                }
            }
            () = at_limit => {
                limit = None;
                tracing::warn!("the drain limit is over; what runs is left for the next start");
                shell.apply(Event::DrainLimit);
            }
            () = tick => {}
        }
        shell.deps.pulse.tick(shell.deps.ship.spooled());
    }
    shell.close(receiver, urgency).await
}

impl<R: FnOnce(&str, &str) + Send> Shell<R> {
    /// Takes over what the journal knows, and ships what logs are left.
    async fn replay(&mut self, tasks: BTreeMap<String, TaskState>) {
        let mut open = BTreeSet::new();
        let mut events = Vec::new();
        for (task, known) in tasks {
            let (record, result) = match known {
                TaskState::Unknown => continue,
                TaskState::Reported { fence } => {
                    self.reported.insert(task, fence);
                    continue;
                }
                TaskState::Open(record) => {
                    open.insert(task.clone());
                    (record, None)
                }
                TaskState::Ended(record, result) => (record, Some(Arc::new(*result))),
            };
            tracing::info!(
                task,
                fence = record.fence,
                ended = result.is_some(),
                "a task of the time before the restart"
            );
            events.push(Replayed { task: task.clone(), fence: record.fence, has_result: result.is_some() });
            let body = Bytes::from(record.package);
            let package = TaskPackage::decode(&body).ok().map(Arc::new);
            let mut held = Held::new(
                record.fence,
                record.task_type,
                record.at,
                record.timeout,
                package,
                body,
                record.dialect,
            );
            held.history = record.checkpoints;
            held.result = result;
            self.held.insert(task, held);
        }
        for (task, logs) in self.deps.ship.leftovers(&open).await {
            if let Some(held) = self.held.get(&task) {
                // Freshly made above, so it is empty.
                let _unused = held.logs.set(logs);
            }
        }
        self.apply(Event::Replayed(events));
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.apply(event),
            Message::Registered { id, features } => self.on_registered(&id, features),
            Message::HeartbeatDue => self.heartbeat(),
            Message::HeartbeatDone(outcome) => self.on_heartbeat(outcome),
            Message::Refused(refusal) => self.on_refused(refusal),
            Message::Acquired { task, package, body } => self.on_acquired(task, package, body),
            Message::StepEnded { task, outcome } => {
                let keep = matches!(outcome, step::Outcome::Keep);
                if let (step::Outcome::Result(result), Some(held)) = (outcome, self.held.get_mut(&task)) {
                    let took = held
                        .started
                        .map_or(Duration::ZERO, |at| self.deps.clock.mono().saturating_duration_since(at));
                    let timed_out = result
                        .failure
                        .as_ref()
                        .is_some_and(|f| f.kind == proto::failure::FailureKind::Timeout);
                    let failed = matches!(result.status, StepStatus::Failed | StepStatus::Aborted);
                    self.deps.telemetry.task_ended(&held.task_type, took, failed, timed_out);
                    held.result = Some(Arc::from(result));
                }
                self.apply(Event::Ended { task, keep });
            }
        }
    }

    fn apply(&mut self, event: Event) {
        if let Event::Written { task, mark: Mark::Accepted, ok: false } = &event
            && let Some(held) = self.held.get_mut(task)
        {
            let mut result = crate::dialect::failed_result(
                "AGT-003",
                "the agent's journal cannot be written, so the step was not started",
            );
            result.agent.clone_from(&self.deps.config.name);
            result.fence = held.fence;
            held.result = Some(Arc::new(result));
        }
        for action in self.state.apply(event) {
            self.perform(action);
        }
    }

    /// One action of the machine. Exhaustive, and short: each call lives in `calls`.
    fn perform(&mut self, action: Action) {
        match action {
            Action::Poll { pause } => self.poll(pause),
            Action::Acquire { task } => self.acquire(task),
            Action::WriteAccepted { task } => self.write_accepted(task),
            Action::Start { task, recover } => self.start(task, recover),
            Action::Skip { task, reason } => {
                let result = step::skipped(&self.deps, self.state.fence(&task), reason);
                self.report_back(Message::StepEnded {
                    task,
                    outcome: step::Outcome::Result(Box::new(result)),
                });
            }
            Action::Cancel { task, reason, stage } => {
                if let Some(held) = self.held.get(&task) {
                    tracing::info!(task, ?reason, ?stage, "cancelling a step");
                    if let Some(cancel) = &held.cancel {
                        cancel.cancel(reason, stage);
                    }
                    if let (CancelStage::Kill, Some(logs)) = (stage, held.logs.get()) {
                        logs.release();
                    }
                }
            }
            Action::Abandon { task } => {
                if let Some(held) = self.held.get(&task) {
                    tracing::error!(code = "AGT-012", task, "a step did not end when it was killed");
                    held.abandon.cancel();
                }
            }
            Action::Arm { task, timer } => self.arm(task, timer),
            Action::WriteEnded { task } => self.write_ended(task),
            Action::Report { task } => self.report(task),
            Action::WriteReported { task } => {
                if let Some(held) = self.held.get(&task) {
                    self.deps.telemetry.task_completed(&held.task_type);
                    self.write(task, Entry::Reported { fence: held.fence }, Mark::Reported);
                }
            }
            Action::Forget { task } => self.forget(&task),
            Action::Busy { left } => {
                tracing::debug!(left, "full: offers stay with the manager");
                self.deps.telemetry.rejected();
            }
            Action::LoadChanged { held, free } => {
                self.deps.telemetry.load(held, free);
                self.wake_poll.notify_waiters();
            }
            Action::Freeze => {
                tracing::warn!(
                    code = "AGT-014",
                    "the token is refused: running steps go on, no new ones are taken"
                )
            }
            Action::Unregister => self.unregister = true,
            Action::Exit { refused } => self.exit = Some(refused),
        }
    }

    fn forget(&mut self, task: &str) {
        let Some(held) = self.held.remove(task) else { return };
        held.over.cancel();
        if held.result.is_some() {
            self.reported.insert(task.to_owned(), held.fence);
            while self.reported.len() > KEPT_REPORTS {
                self.reported.pop_first();
            }
        }
        if held.started.is_some() {
            let scratch = self.deps.scratch.join(step::scratch_name(task));
            // Few steps make one; looking costs less than a thread.
            if scratch.exists() {
                self.tracker.spawn_blocking(move || {
                    if let Err(error) = std::fs::remove_dir_all(&scratch) {
                        tracing::warn!(dir = %scratch.display(), %error, "a scratch directory cannot be removed");
                    }
                });
            }
        }
    }

    fn arm(&self, task: String, timer: Timer) {
        let Some(held) = self.held.get(&task) else { return };
        let clock = self.deps.clock.clone();
        let at = match timer {
            Timer::Deadline => step::deadline(clock.as_ref(), held.accepted_at, held.timeout_ms),
            Timer::Kill => clock.mono() + KILL_AFTER,
            Timer::Abandon => clock.mono() + ABANDON_AFTER,
            Timer::Recover => clock.mono() + RECOVER_AFTER,
        };
        let over = held.over.clone();
        self.spawn(async move {
            tokio::select! {
                () = clock.sleep_until(at) => Some(Message::Event(Event::TimerFired { task, timer })),
                () = over.cancelled() => None,
            }
        });
    }

    /// Spawns a future that ends with `stop` and may report.
    fn spawn(&self, future: impl Future<Output = Option<Message>> + Send + 'static) {
        let (sender, stop) = (self.sender.clone(), self.stop.clone());
        self.tracker.spawn(async move {
            let message = tokio::select! {
                message = future => message,
                () = stop.cancelled() => None,
            };
            if let Some(message) = message {
                tokio::select! {
                    // The shell is gone only when the agent goes down.
                    _ = sender.send(message) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
    }

    /// Reports to the shell from within the shell, which must not wait for itself.
    fn report_back(&self, message: Message) {
        self.spawn(async move { Some(message) });
    }

    fn start(&mut self, task: String, recover: bool) {
        let deps = self.deps.clone();
        let Some(held) = self.held.get_mut(&task) else { return };
        let Some(package) = held.package.clone() else {
            let failure = proto::failure::Failure::new(
                proto::failure::FailureKind::BadSpec,
                "AGT-004",
                "the package of this task in the journal cannot be read",
            );
            let result = StepResult::failed(failure);
            self.report_back(Message::StepEnded { task, outcome: step::Outcome::Result(Box::new(result)) });
            return;
        };
        let (handle, cancel) = Cancel::pair();
        held.cancel = Some(handle);
        held.started = Some(deps.clock.mono());
        let run = step::Run {
            task: task.clone(),
            fence: held.fence,
            package,
            dialect: held.dialect,
            history: held.history.clone(),
            recover,
            cancel,
            abandon: held.abandon.clone(),
            deadline: step::deadline(deps.clock.as_ref(), held.accepted_at, held.timeout_ms),
            logs: held.logs.clone(),
        };
        self.spawn(async move {
            let outcome = step::run(deps, run).await;
            Some(Message::StepEnded { task, outcome })
        });
    }

    fn on_refused(&mut self, refusal: ClientRefusal) {
        self.deps.telemetry.connected(false);
        let event = match refusal {
            ClientRefusal::InvalidToken | ClientRefusal::Deleted => Refusal::Stop,
            ClientRefusal::RevokedToken | ClientRefusal::ExpiredToken => Refusal::Freeze,
        };
        if event == Refusal::Stop {
            self.refusal = Some(refusal);
        }
        self.apply(Event::Refused(event));
    }

    /// Everything spawned ends, logs go out. A step that is still running is dropped here as by a crash: its target and the
    /// journal stay as they are, and the next start recovers it.
    async fn close(mut self, mut receiver: mpsc::Receiver<Message>, urgency: Shutdown) -> Ended {
        let refused = self.exit.take().unwrap_or(false);
        if self.unregister {
            let id = self.deps.client.delegate_id();
            let body = self.deps.identity.leave(&self.deps.config, &id);
            if let Err(fault) = self.deps.client.unregister(&body).await {
                tracing::info!(%fault, "could not take leave of the manager");
            }
        }
        receiver.close();
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        let limit = if urgency == Shutdown::Now { Duration::ZERO } else { LAST_WORDS };
        self.deps.ship.close(limit).await;
        match (refused, self.refusal) {
            (true, Some(refusal)) => Ended::Refused(refusal),
            _ => Ended::Shutdown,
        }
    }
}
