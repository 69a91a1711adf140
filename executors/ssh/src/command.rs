//! Runs the units of a Command step in their order.

use crate::Shared;
use crate::config::Settings;
use crate::error::{Error, signal_name};
use crate::follow::Follow;
use crate::holder::{self, Found, Script};
use crate::memory::{Memory, UnitEnd};
use crate::session::{Lease, Use};
use crate::spec::{CLEANUP, INIT};
use executor_api::{CancelReason, CancelStage, Level, StepContext, StepError, StepOutput, UnitLog};
use proto::result::{LearnedHostKey, Output, UnitStatus};
use proto::task::{CommandSpec, CommandUnit, OutputVariable, Shell, SshTarget, UnitKind};
use proto::text::Text;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Values of all output variables of a unit together; longer ones are left out with a notice.
const MAX_OUTPUTS: usize = 512 << 10;

/// One run of one step.
pub(crate) struct Job<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) cx: &'a StepContext,
    pub(crate) target: &'a SshTarget,
    /// `host:port`.
    pub(crate) host: String,
    learned: Mutex<Option<LearnedHostKey>>,
    pub(crate) notices: Mutex<Vec<String>>,
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
            learned: Mutex::default(),
            notices: Mutex::default(),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(crate) fn key(&self, unit: &CommandUnit) -> String {
        holder::leaf_key(&self.cx.task_id, &self.cx.task.execution.node, &unit.identifier)
    }

    fn place(&self) -> String {
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
            let mut known = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some(learned.clone());
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

    async fn sweep_leftovers(&self, lease: &Lease, log: &dyn UnitLog) {
        let place = self.place();
        let keys = self.shared.leftovers.at(&place);
        if keys.is_empty() {
            return;
        }
        // Best effort: whatever stays is tried again at the next connection.
        if matches!(self.ask(lease, |nonce| holder::sweep(nonce, &keys)).await.as_deref(), Ok("swept")) {
            self.shared.leftovers.remove(&place, &keys);
            let text = format!("Removed {} folder(s) that earlier steps had to leave here", keys.len());
            log.line(Level::Info, &text).await.unwrap_or_default();
        }
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

    fn cancelled(&self, reason: CancelReason, what: String) -> Error {
        let why = match reason {
            CancelReason::User => "aborted",
            CancelReason::Deadline => "the step's timeout ran out",
            CancelReason::Drain => "the agent shuts down",
            CancelReason::LeaseLost => "the agent lost the task",
        };
        Error::Cancelled { reason, what: format!("{why}: {what}") }
    }

    fn step_error(&self, error: Error) -> StepError {
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
        let end = match self.init(init.as_ref()).await {
            Ok(()) if memory.end.is_some() => End::Done,
            Ok(()) => self.units(spec, &mut memory).await,
            Err(error) => {
                if !memory.launched.is_empty() {
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
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone();
        outcome.map(|outputs| StepOutput {
            outputs,
            learned_host_keys: learned.into_iter().collect(),
            notices,
            ..StepOutput::default()
        })
    }

    async fn init(&self, log: &dyn UnitLog) -> Result<(), Error> {
        log.status(UnitStatus::Running).await?;
        log.line(Level::Info, &format!("Connecting to {}@{} …", self.target.user, self.host)).await?;
        let connected = tokio::select! {
            session = self.session(log) => session,
            (reason, _) = self.cx.cancel.wait() => {
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
            UnitKind::Script { shell, script, working_directory } => {
                self.script(spec, unit, *shell, script, working_directory.as_ref(), memory, log).await
            }
            UnitKind::Copy { .. } | UnitKind::DownloadArtifact { .. } => {
                if let Some((reason, _)) = self.cx.cancel.requested() {
                    return Err(self.cancelled(reason, format!("unit {} was not started", unit.name)));
                }
                tokio::select! {
                    done = self.transfer(unit, memory, log) => done,
                    (reason, _) = self.cx.cancel.wait() => Err(self.cancelled(
                        reason,
                        format!("the copy to {} was stopped; its destination is as it was before", self.host),
                    )),
                }
            }
        }
    }

    fn env(&self) -> Result<Vec<(String, SecretString)>, Error> {
        let mut env = Vec::new();
        for (name, value) in &self.cx.task.env {
            if !holder::is_name(name) {
                self.notice(format!("variable `{name}` is not exported: it is no shell variable name"));
                continue;
            }
            let value = self.cx.secrets.reveal(value)?;
            if value.expose_secret().contains('\0') {
                return Err(Error::Spec(format!("variable `{name}` holds a NUL byte")));
            }
            env.push((name.clone(), value));
        }
        Ok(env)
    }

    #[expect(clippy::too_many_arguments, reason = "They are the parts of one unit.")]
    async fn script(
        &self,
        spec: &CommandSpec,
        unit: &CommandUnit,
        shell: Shell,
        text: &Text,
        directory: Option<&Text>,
        memory: &mut Memory,
        log: &Arc<dyn UnitLog>,
    ) -> Result<UnitEnd, Error> {
        let key = self.key(unit);
        let again = memory.launched.contains(&key);
        if let Some((reason, _)) = self.cx.cancel.requested()
            && !again
        {
            return Err(self.cancelled(reason, format!("unit {} was not started", unit.name)));
        }
        let mut clear = self.cx.secrets.reveal(text)?;
        if clear.expose_secret().contains('\r') {
            clear = SecretString::from(clear.expose_secret().replace("\r\n", "\n"));
            if !again {
                log.line(Level::Warn, "Windows line ends (CRLF) were removed from the script").await?;
            }
        }
        let env = self.env()?;
        let directory = directory.filter(|d| !d.is_empty()).map(|d| self.cx.secrets.reveal(d)).transpose()?;
        let variables: Vec<String> = spec.output_variables.iter().map(|v| v.value.clone()).collect();
        let script = Script {
            shell,
            text: &clear,
            env: &env,
            directory: directory.as_ref(),
            variables: if shell == Shell::PowerShell { &[] } else { &variables },
        };
        let call = format!("launch {}", unit.identifier);
        if again {
            log.line(Level::Info, &format!("Attaching to the script on {}", self.host)).await?;
        } else {
            memory.launched.push(key.clone());
            memory
                .record(self.cx, format!("start unit {} on {}", unit.name, self.host), vec![call.clone()])
                .await?;
            log.line(Level::Info, &format!("Executing {shell:?} script on {} …", self.host)).await?;
        }
        let task = &self.cx.task_id;
        if !again {
            self.shared.probe.before(task, &call).await;
        }
        let mut follow = Follow::new(self, &key, log.clone());
        let ended = tokio::select! {
            ended = follow.run(&script) => ended,
            (reason, _) = self.cx.cancel.wait() => {
                drop(follow);
                return Err(self.interrupt(unit, &key, reason, memory, log).await);
            }
        };
        if !again {
            self.shared.probe.after(task, &call).await;
        }
        let ended = ended?;
        match ended.fault.as_deref() {
            Some("interpreter") => {
                let interpreter = match shell {
                    Shell::Bash => "bash",
                    Shell::Sh => "sh",
                    Shell::PowerShell => "pwsh (PowerShell)",
                    Shell::Python => "python3",
                };
                return Err(Error::Interpreter { interpreter: interpreter.into(), host: self.host.clone() });
            }
            Some("directory") => {
                let directory = unit_directory(unit).unwrap_or_default();
                return Err(Error::Directory { directory, host: self.host.clone() });
            }
            _ => {}
        }
        let code = ended.code;
        let text = match code {
            129..=192 => format!("{code} (128 + {}, as after {})", code - 128, signal_name(code - 128)),
            _ => code.to_string(),
        };
        let level = if code == 0 { Level::Info } else { Level::Error };
        log.line(level, &format!("Command finished with status {text}")).await?;
        if code == 0 {
            return Ok(UnitEnd { code, ..UnitEnd::default() });
        }
        Err(Error::Exit { what: format!("the script on {} ended with status {text}", self.host), code })
    }

    /// The step is to end while a script runs.
    async fn interrupt(
        &self,
        unit: &CommandUnit,
        key: &str,
        reason: CancelReason,
        memory: &mut Memory,
        log: &Arc<dyn UnitLog>,
    ) -> Error {
        if !reason.ends_the_target() {
            let what = format!("unit {} runs on on {} and can be attached to", unit.name, self.host);
            log.line(Level::Warn, &format!("The agent stops following; {what}")).await.unwrap_or_default();
            return self.cancelled(reason, what);
        }
        let call = format!("end {}", unit.identifier);
        let intent = format!("end unit {} on {}", unit.name, self.host);
        // The person asked for the end; an agent that cannot write it down still has to try.
        if let Err(error) = memory.record(self.cx, intent, vec![call.clone()]).await {
            log.line(Level::Warn, &error.to_string()).await.unwrap_or_default();
        }
        log.line(Level::Warn, "Ending the script and everything it started …").await.unwrap_or_default();
        self.shared.probe.before(&self.cx.task_id, &call).await;
        let done = tokio::select! {
            done = self.end_tree(key, log) => done,
            () = self.cx.clock.sleep(self.settings().end_within) => {
                Err(Error::Lost { host: self.host.clone(), why: "it did not answer".into() })
            }
        };
        self.shared.probe.after(&self.cx.task_id, &call).await;
        let what = match done {
            Ok(text) => text,
            Err(error) => format!("unit {} may still run on {}: {error}", unit.name, self.host),
        };
        log.line(Level::Warn, &what).await.unwrap_or_default();
        self.cancelled(reason, what)
    }

    /// TERM, and KILL after a while or at once when the second stage is asked for.
    async fn end_tree(&self, key: &str, log: &Arc<dyn UnitLog>) -> Result<String, Error> {
        let session = self.session(log.as_ref()).await?;
        let ask = tokio::select! {
            answer = self.ask(&session, |nonce| holder::finish(nonce, key, "TERM")) => Some(answer?),
            () = self.cx.clock.sleep(self.settings().kill_after) => None,
            _ = self.cx.cancel.wait_for(CancelStage::Kill) => None,
        };
        let (answer, how) = match ask {
            Some(answer) if !answer.starts_with("left") => (answer, "ended"),
            _ => {
                log.line(Level::Warn, "It did not end in time; killing it").await?;
                (self.ask(&session, |nonce| holder::finish(nonce, key, "KILL")).await?, "killed")
            }
        };
        if answer.starts_with("none") {
            return Ok(format!("the script had not been started on {}", self.host));
        }
        let foreign = answer.split("foreign").nth(1).unwrap_or_default().trim();
        let mut text = if answer.starts_with("left") {
            format!("some processes of the script could not be ended on {}", self.host)
        } else {
            format!("the script was {how} on {}; none of its processes is left", self.host)
        };
        if !foreign.is_empty() && foreign != "-" {
            text =
                format!("{text}, except those of another user, which this login may not end: pid {foreign}");
        }
        if answer.contains(" group ") {
            text.push_str(" (/proc is not readable there, so only its process group was ended)");
        }
        // The holder writes the rest of the output and the exit code; then its folder can go.
        for _ in 0..25 {
            match self.look(&session, key).await? {
                Found::Running => self.pause().await,
                _ => break,
            }
        }
        Ok(text)
    }

    async fn outputs(&self, spec: &CommandSpec, memory: &Memory) -> Result<BTreeMap<String, Output>, Error> {
        let mut outputs = BTreeMap::new();
        for unit in &spec.units {
            if let Some(end) = memory.done.get(&unit.identifier) {
                outputs.extend(end.outputs.iter().map(|(k, v)| (k.clone(), Output::from(v.clone()))));
            }
        }
        let keys: Vec<String> = spec
            .units
            .iter()
            .filter(|u| matches!(u.kind, UnitKind::Script { .. }))
            .map(|u| self.key(u))
            .collect();
        if spec.output_variables.is_empty() || keys.is_empty() {
            return Ok(outputs);
        }
        let log = self.cx.logs.unit(CLEANUP);
        let session = self.session(log.as_ref()).await?;
        let nonce = holder::random_word();
        let exec = session.exec(Use::Short, holder::fetch(&nonce, &keys)).await?;
        let raw = exec.collect(keys.len() * 610_000).await?;
        let (found, cut) = variables(&raw, &keys);
        if cut {
            self.notice(format!("output variables over {} KiB were left out", MAX_OUTPUTS >> 10));
        }
        for OutputVariable { name, value, secret } in &spec.output_variables {
            match found.get(value) {
                Some(text) => {
                    if *secret {
                        self.cx.secrets.mask(&SecretString::from(text.clone()));
                    }
                    let output = Output { value: serde_json::Value::String(text.clone()), secret: *secret };
                    outputs.insert(format!("outputVariables.{name}"), output);
                }
                None => {
                    let text = format!("output variable {name}: the script has not set {value}");
                    log.line(Level::Warn, &text).await?;
                    self.notice(text);
                }
            }
        }
        Ok(outputs)
    }

    /// Notes folders that cannot be removed, and says so.
    async fn leave_behind(&self, keys: &[String], log: &dyn UnitLog) {
        self.shared.leftovers.add(&self.place(), keys);
        let text = format!(
            "Left on {} until the next connection: {} in ~/.delegate (or /var/tmp/delegate-UID)",
            self.host,
            keys.join(" ")
        );
        log.line(Level::Warn, &text).await.unwrap_or_default();
        self.notice(text);
    }

    async fn cleanup(
        &self,
        memory: &mut Memory,
        outcome: &Result<BTreeMap<String, Output>, StepError>,
    ) -> Result<(), StepError> {
        let log = self.cx.logs.unit(CLEANUP);
        let log = log.as_ref();
        log.status(UnitStatus::Running).await.map_err(|e| self.step_error(e.into()))?;
        memory.finish(outcome);
        let keys = memory.launched.clone();
        let call = "cleanup".to_owned();
        let calls = if keys.is_empty() { vec![] } else { vec![call.clone()] };
        let recorded = memory.record(self.cx, format!("remove our folders from {}", self.host), calls).await;
        recorded.map_err(|e| self.step_error(e))?;
        let mut status = UnitStatus::Success;
        if !keys.is_empty() {
            self.shared.probe.before(&self.cx.task_id, &call).await;
            let work = async {
                let session = self.session(log).await?;
                self.ask(&session, |nonce| holder::sweep(nonce, &keys)).await
            };
            let limit = self.settings().end_within;
            let swept = tokio::select! {
                swept = work => swept,
                () = self.cx.clock.sleep(limit) => {
                    Err(Error::Lost { host: self.host.clone(), why: "it did not answer".into() })
                }
            };
            self.shared.probe.after(&self.cx.task_id, &call).await;
            match swept.as_deref() {
                Ok("swept") => {
                    log.line(Level::Info, "Nothing of the step is left on the host")
                        .await
                        .unwrap_or_default();
                }
                Ok(kept) => {
                    let kept = kept.trim_start_matches("swept").trim();
                    let left: Vec<String> =
                        keys.iter().filter(|k| kept.contains(k.as_str())).cloned().collect();
                    self.leave_behind(&left, log).await;
                    status = UnitStatus::Failure;
                }
                Err(error) => {
                    log.line(Level::Warn, &error.to_string()).await.unwrap_or_default();
                    self.leave_behind(&keys, log).await;
                    status = UnitStatus::Failure;
                }
            }
        }
        log.status(status).await.unwrap_or_default();
        Ok(())
    }
}

fn unit_directory(unit: &CommandUnit) -> Option<String> {
    match &unit.kind {
        UnitKind::Script { working_directory, .. } => {
            working_directory.as_ref().map(|d| d.as_str().to_owned())
        }
        _ => None,
    }
}

/// Splits what the collectors left into variables; a later unit's value wins. The second value says whether something
/// was too long.
fn variables(raw: &[u8], keys: &[String]) -> (BTreeMap<String, String>, bool) {
    let mut found = BTreeMap::new();
    let mut cut = false;
    let body = match raw.iter().position(|b| *b == b'\n') {
        Some(line) => raw.get(line + 1..).unwrap_or_default(),
        None => return (found, false),
    };
    let mut fields = body.split(|b| *b == 0).map(|f| String::from_utf8_lossy(f).into_owned()).peekable();
    let mut room = 0usize;
    while let Some(field) = fields.next() {
        if field.starts_with('\u{1}') {
            break;
        }
        if keys.contains(&field) {
            room = MAX_OUTPUTS;
            continue;
        }
        if field.is_empty() {
            continue;
        }
        let Some(value) = fields.next() else { break };
        match room.checked_sub(value.len()) {
            Some(left) => {
                room = left;
                // A later unit's value wins, unless it is empty.
                if !value.is_empty() || !found.contains_key(&field) {
                    found.insert(field, value);
                }
            }
            None => cut = true,
        }
    }
    (found, cut)
}
