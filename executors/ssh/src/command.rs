//! Runs the units of a Command step in their order.

use crate::Shared;
use crate::config::Settings;
use crate::error::Error;
use crate::holder::{self, Found};
use crate::memory::{Memory, UnitEnd};
use crate::session::{Lease, Use};
use crate::spec::INIT;
use crate::talk::Talk;
use executor_api::{CancelReason, Level, StepContext, StepError, StepOutput, UnitLog};
use proto::result::UnitStatus;
use proto::task::{CommandSpec, CommandUnit, SshTarget, UnitKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two rounds of tries while the host of a running script is away.
const AWAY_PAUSE: Duration = Duration::from_secs(8);

/// One run of one step.
pub(crate) struct Job<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) cx: &'a StepContext,
    pub(crate) target: &'a SshTarget,
    /// `host:port`.
    pub(crate) host: String,
    pub(crate) notices: Mutex<Vec<String>>,
    /// Part files that are being written on the host.
    pub(crate) parts: Mutex<Vec<String>>,
    /// Set when a script could not be ended because its host was away.
    pub(crate) unended: AtomicBool,
    /// Set where nothing may be started any more: a unit whose folder is gone then counts as vanished.
    pub(crate) attach_only: AtomicBool,
    /// The follower of the last script unit.
    pub(crate) talk: Mutex<Option<Talk>>,
    /// Folders of the units that this run has announced and started.
    pub(crate) started: Mutex<Vec<String>>,
}

/// How the list of units ended.
enum End {
    Done,
    /// Stop here and leave everything as it is.
    Leave(Error),
    Failed(StepError),
}

impl<'a> Job<'a> {
    pub(crate) fn new(shared: &'a Shared, cx: &'a StepContext, target: &'a SshTarget) -> Self {
        Job {
            shared,
            cx,
            target,
            host: format!("{}:{}", target.host, target.port),
            notices: Mutex::default(),
            parts: Mutex::default(),
            unended: AtomicBool::new(false),
            attach_only: AtomicBool::new(false),
            talk: Mutex::default(),
            started: Mutex::default(),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(crate) fn key(&self, unit: &CommandUnit) -> String {
        holder::leaf_key(&self.cx.task_id, &self.cx.task.execution.node, &unit.identifier)
    }

    pub(crate) fn place(&self) -> String {
        format!("{}@{}", self.target.user, self.host)
    }

    pub(crate) fn notice(&self, text: String) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// A short pause of the agent's own, so that a misbehaving host is not asked in a tight loop.
    pub(crate) async fn pause(&self) {
        self.cx.clock.sleep(Duration::from_millis(200)).await;
    }

    /// A connection; what was left behind on this host earlier is swept when it is a new one.
    pub(crate) async fn session(&self, log: &dyn UnitLog) -> Result<Lease, Error> {
        let (lease, fresh) = self.shared.pool.get(self.target, self.cx, log).await?;
        if let Some(learned) = &lease.verdict.learned {
            self.cx.learned.note(learned);
        }
        if fresh {
            if lease.verdict.unchecked {
                let text = format!(
                    "The key of {} is not checked (host key mode off): {}",
                    lease.host, lease.verdict.fingerprint
                );
                log.line(Level::Warn, &text).await?;
            } else if lease.verdict.learned.is_some() {
                let text = format!("Host key of {} accepted: {}", lease.host, lease.verdict.fingerprint);
                log.line(Level::Info, &text).await?;
            }
            self.sweep_leftovers(&lease, log).await;
        }
        Ok(lease)
    }

    /// Runs a short program and returns its answer.
    pub(crate) async fn ask(
        &self,
        session: &Lease,
        program: impl FnOnce(&str) -> String,
    ) -> Result<String, Error> {
        let nonce = holder::random_word();
        let output = session.exec(Use::Short, program(&nonce)).await?.collect(64 << 10).await?;
        holder::answer(&output, &nonce).ok_or_else(|| Error::Protocol {
            what: format!(
                "no answer, but `{}`",
                String::from_utf8_lossy(output.get(..output.len().min(200)).unwrap_or_default()).trim()
            ),
        })
    }

    pub(crate) async fn look(&self, session: &Lease, key: &str) -> Result<Found, Error> {
        let answer = self.ask(session, |nonce| holder::look(nonce, key)).await?;
        Found::parse(&answer).ok_or(Error::Protocol { what: format!("unknown state `{answer}`") })
    }

    pub(crate) fn cancelled(&self, reason: CancelReason, what: String) -> Error {
        Error::Cancelled { reason, what: format!("{}: {what}", reason.words()) }
    }

    pub(crate) fn step_error(&self, error: Error) -> StepError {
        error.into_step(&self.host)
    }

    /// The whole step.
    pub(crate) async fn run(&self, spec: &CommandSpec) -> Result<StepOutput, StepError> {
        let mut memory = Memory::restore(&self.cx.checkpoints.history());
        if let Some((reason, _)) = self.cx.cancel.requested()
            && memory.launched.is_empty()
        {
            let what = format!("nothing was started on {}", self.host);
            return Err(self.step_error(self.cancelled(reason, what)));
        }
        let init = self.cx.logs.unit(INIT);
        let end = match self.init(!memory.launched.is_empty(), init.as_ref()).await {
            Ok(()) if memory.end.is_some() => End::Done,
            Ok(()) => self.units(spec, &mut memory).await,
            Err(error) => {
                let stays = matches!(&error, Error::Cancelled { reason, .. } if !reason.ends_the_target());
                if !memory.launched.is_empty() && !stays {
                    self.leave_behind(&memory.launched, init.as_ref()).await;
                }
                self.skip_rest(spec, &memory).await;
                return Err(self.step_error(error));
            }
        };
        let outcome = match end {
            End::Leave(error) => return Err(self.step_error(error)),
            End::Failed(error) => Err(error),
            End::Done => match memory.end.take() {
                Some(earlier) => earlier.into_result(&self.host),
                None => self.outputs(spec, &memory).await.map_err(|e| self.step_error(e)),
            },
        };
        self.cleanup(&mut memory, &outcome).await?;
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone();
        outcome.map(|outputs| StepOutput { outputs, notices, ..StepOutput::default() })
    }

    /// A connection. When a script runs there, it is worth waiting for its host as long as the step may take.
    pub(crate) async fn patient(&self, running: bool, log: &dyn UnitLog) -> Result<Lease, Error> {
        loop {
            match self.session(log).await {
                Err(error) if running && error.is_transient() && !self.cx.time_left().is_zero() => {
                    let text =
                        format!("{error}; a script may run there, trying again until the step's timeout");
                    log.line(Level::Warn, &text).await?;
                    self.cx.clock.sleep(AWAY_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// Waits for a cancellation. One that has to end a running script leaves time to reach its host.
    async fn end_of_patience(&self, running: bool) -> CancelReason {
        let (reason, _) = self.cx.cancel.wait().await;
        if running && reason.ends_the_target() {
            self.cx.clock.sleep(self.settings().end_within).await;
            self.unended.store(true, Ordering::Relaxed);
        }
        reason
    }

    async fn init(&self, running: bool, log: &dyn UnitLog) -> Result<(), Error> {
        log.status(UnitStatus::Running).await?;
        log.line(Level::Info, &format!("Connecting to {}@{} …", self.target.user, self.host)).await?;
        let connected = tokio::select! {
            session = self.patient(running, log) => session,
            reason = self.end_of_patience(running) => {
                Err(self.cancelled(reason, format!("no connection to {} was made", self.host)))
            }
        };
        match connected {
            Ok(_) => {
                log.line(Level::Info, &format!("Connected to {}", self.host)).await?;
                log.status(UnitStatus::Success).await?;
                Ok(())
            }
            Err(error) => {
                log.line(Level::Error, &error.to_string()).await?;
                log.status(UnitStatus::Failure).await?;
                Err(error)
            }
        }
    }

    async fn skip_rest(&self, spec: &CommandSpec, memory: &Memory) {
        for unit in spec.units.iter().filter(|u| !memory.done.contains_key(&u.identifier)) {
            // Progress for people; a closed log pipeline is met again at once.
            self.cx.logs.unit(&unit.name).status(UnitStatus::Skipped).await.unwrap_or_default();
        }
    }

    async fn units(&self, spec: &CommandSpec, memory: &mut Memory) -> End {
        for unit in &spec.units {
            if memory.done.contains_key(&unit.identifier) {
                continue;
            }
            let log = self.cx.logs.unit(&unit.name);
            let error = match self.unit(spec, unit, memory, &log).await {
                Ok(end) => {
                    memory.done.insert(unit.identifier.clone(), end);
                    if log.status(UnitStatus::Success).await.is_err() {
                        return End::Leave(Error::Logs);
                    }
                    continue;
                }
                Err(error) => error,
            };
            if matches!(&error, Error::Logs)
                || matches!(&error, Error::Cancelled { reason, .. } if !reason.ends_the_target())
            {
                return End::Leave(error);
            }
            self.bar_later(unit, &error, memory).await;
            let mut error = self.step_error(error);
            if !matches!(error.class, executor_api::Class::Cancelled { .. }) {
                error.what = format!("unit {}: {}", unit.name, error.what);
            }
            log.line(Level::Error, &error.what).await.unwrap_or_default();
            log.status(UnitStatus::Failure).await.unwrap_or_default();
            memory.done.insert(unit.identifier.clone(), UnitEnd::default());
            self.skip_rest(spec, memory).await;
            return End::Failed(error);
        }
        End::Done
    }

    async fn unit(
        &self,
        spec: &CommandSpec,
        unit: &CommandUnit,
        memory: &mut Memory,
        log: &Arc<dyn UnitLog>,
    ) -> Result<UnitEnd, Error> {
        log.status(UnitStatus::Running).await?;
        match &unit.kind {
            UnitKind::Script { .. } => self.script(spec, unit, memory, log).await,
            UnitKind::Copy { .. } | UnitKind::DownloadArtifact { .. } => {
                self.release();
                if let Some((reason, _)) = self.cx.cancel.requested() {
                    return Err(self.cancelled(reason, format!("unit {} was not started", unit.name)));
                }
                let (reason, _) = tokio::select! {
                    done = self.transfer(unit, memory, log) => return done,
                    request = self.cx.cancel.wait() => request,
                };
                let parts = std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
                let what =
                    format!("the copy to {} was stopped; its destination is as it was before", self.host);
                if parts.is_empty() {
                    return Err(self.cancelled(reason, what));
                }
                let work = async {
                    let session = self.session(log.as_ref()).await?;
                    self.ask(&session, |nonce| holder::remove(nonce, &parts)).await
                };
                let removed = tokio::select! {
                    removed = work => removed.is_ok(),
                    () = self.cx.clock.sleep(self.settings().end_within) => false,
                };
                let what =
                    if removed { what } else { format!("{what}; left beside it: {}", parts.join(" ")) };
                Err(self.cancelled(reason, what))
            }
        }
    }
}
