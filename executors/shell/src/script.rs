//! One run of one script: start it or attach to it, follow it, end it on request.

use crate::config::Settings;
use crate::error::Error;
use crate::follow::Follow;
use crate::holder::{Found, Place, interpreter};
use crate::memory::{Asked, Memory};
use executor_api::{
    Cancel, CancelReason, CancelStage, Exported, Level, StepContext, StepError, StepOutput, TransportProbe,
    UnitLog,
};
use process::{End, Tree};
use proto::result::{Output, UnitStatus};
use proto::task::ShellScriptSpec;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Child;

/// The log unit of the step.
pub(crate) const UNIT: &str = "Execute";

/// Values of all output variables together.
const MAX_OUTPUTS: usize = 256 << 10;

/// How long the last words of a script that was ended may take.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A holder writes its pid within milliseconds of its start.
const STARTING: Duration = Duration::from_secs(5);

/// One run.
pub(crate) struct Job<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) probe: &'a dyn TransportProbe,
    pub(crate) cx: &'a StepContext,
    pub(crate) spec: &'a ShellScriptSpec,
    place: Place,
    log: Arc<dyn UnitLog>,
    notices: Vec<String>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(
        settings: &'a Settings,
        probe: &'a dyn TransportProbe,
        spec: &'a ShellScriptSpec,
        cx: &'a StepContext,
    ) -> Job<'a> {
        let (place, log) = (Place::of(cx), cx.logs.unit(UNIT));
        Job { settings, probe, cx, spec, place, log, notices: Vec::new() }
    }

    /// The whole step.
    pub(crate) async fn run(mut self) -> Result<StepOutput, StepError> {
        let error = match self.whole().await {
            Ok(outputs) => {
                return match self.log.status(UnitStatus::Success).await {
                    Ok(()) => Ok(StepOutput { outputs, notices: self.notices, ..StepOutput::default() }),
                    Err(closed) => Err(Error::from(closed).into_step()),
                };
            }
            Err(error) => error,
        };
        if !error.leaves_it() {
            // For people; a closed log pipeline changes nothing about what happened.
            self.log.line(Level::Error, &error.to_string()).await.unwrap_or_default();
            self.log.status(UnitStatus::Failure).await.unwrap_or_default();
        }
        Err(error.into_step())
    }

    async fn whole(&mut self) -> Result<BTreeMap<String, Output>, Error> {
        let mut memory = Memory::restore(&self.cx.checkpoints.history());
        let found = self.place.look();
        if let (Found::Never, Some((reason, _))) = (&found, self.cx.cancel.requested()) {
            return Err(cancelled(reason, "the script was not started"));
        }
        self.log.status(UnitStatus::Running).await?;
        let child = match found {
            Found::Never => Some(self.launch(&mut memory).await?),
            Found::Vanished(evidence) => return Err(Error::Vanished { evidence }),
            Found::Running | Found::Ended(_) => {
                self.log.line(Level::Info, "Attaching to the script").await?;
                None
            }
        };
        // An agent that died while it ended the script goes on with that.
        let asked = memory.ending.map(CancelReason::from);
        let done = self.follow(&mut memory, asked).await;
        reap(child, self.cx).await;
        let code = done?;
        if let Some(reason) = asked {
            return Err(cancelled(reason, "the script was ended"));
        }
        self.judge(code).await?;
        self.outputs().await
    }

    async fn launch(&mut self, memory: &mut Memory) -> Result<Child, Error> {
        let (text, crlf) = self.text()?;
        let Exported { values: env, notices } = self.cx.exported()?;
        self.notices.extend(notices);
        let directory = self.spec.working_directory.as_ref().filter(|d| !d.is_empty());
        let directory = directory.map(|d| self.cx.secrets.reveal(d)).transpose()?;
        memory.record(self.cx, "start the script on the agent", "launch").await?;
        if crlf {
            self.log.line(Level::Warn, "Windows line ends (CRLF) were removed from the script").await?;
        }
        let line = format!("Executing {:?} script on the agent …", self.spec.shell);
        self.log.line(Level::Info, &line).await?;
        self.probe.before(&self.cx.task_id, "launch").await;
        let limit = self.settings.spool_limit;
        let child = self.place.launch(self.spec, &text, &env, directory.as_ref(), limit)?;
        self.probe.after(&self.cx.task_id, "launch").await;
        Ok(child)
    }

    /// The script with its secrets, and whether Windows line ends were taken out.
    fn text(&self) -> Result<(SecretString, bool), Error> {
        let clear = self.cx.secrets.reveal(&self.spec.script)?;
        if clear.expose_secret().contains("\r\n") {
            return Ok((SecretString::from(clear.expose_secret().replace("\r\n", "\n")), true));
        }
        Ok((clear, false))
    }

    /// Follows to the end, or ends it when that is asked for. `asked`: an earlier process was to end it.
    async fn follow(&mut self, memory: &mut Memory, asked: Option<CancelReason>) -> Result<i32, Error> {
        let clock = self.cx.clock.clone();
        let place = self.place.clone();
        let limit = self.settings.spool_limit;
        let mut follow = Follow::new(&place, clock.as_ref(), self.log.clone(), limit)?;
        let mut following = std::pin::pin!(follow.run());
        let reason = match asked {
            Some(reason) => reason,
            None => tokio::select! {
                biased;
                (reason, _) = self.cx.cancel.wait() => reason,
                done = &mut following => return done,
            },
        };
        if !reason.ends_the_target() {
            let text = "The agent stops following; the script runs on and can be attached to";
            self.log.line(Level::Warn, text).await.unwrap_or_default();
            return Err(cancelled(reason, "the script runs on and can be attached to"));
        }
        memory.ending = Some(if reason == CancelReason::Deadline { Asked::Deadline } else { Asked::User });
        // The person asked for the end; an agent that cannot write it down still has to try.
        if let Err(error) = memory.record(self.cx, "end the script", "end").await {
            self.log.line(Level::Warn, &error.to_string()).await.unwrap_or_default();
        }
        self.log.line(Level::Warn, "Ending the script and everything it started …").await.unwrap_or_default();
        self.probe.before(&self.cx.task_id, "end").await;
        let mut ending = std::pin::pin!(self.end());
        let mut last_words = false;
        let what = loop {
            tokio::select! {
                what = &mut ending => break what,
                // Its output is taken meanwhile, so that it is not held up by a full spool.
                _ended = &mut following, if !last_words => last_words = true,
            }
        };
        if !last_words {
            tokio::select! {
                _ended = &mut following => {}
                () = clock.sleep(LAST_WORDS) => {}
            }
        }
        // What holds the pipes open now is not ours to end; its holder is.
        kill_all(self.place.holder(), self.cx).await;
        self.probe.after(&self.cx.task_id, "end").await;
        Err(cancelled(reason, &what))
    }

    /// Ends everything that the script has started; says what that came to.
    async fn end(&self) -> String {
        let (cx, place) = (self.cx, &self.place);
        // The holder is about to write its pid; its group is known from then on.
        let begun = cx.clock.mono();
        while !place.held()
            && place.exit().is_none()
            && !place.holder().members().is_empty()
            && cx.clock.mono().saturating_duration_since(begun) < STARTING
        {
            cx.clock.sleep(Duration::from_millis(10)).await;
        }
        let settled = || place.exit().is_some() || place.holder().members().is_empty();
        let kill_after = self.settings.kill_after;
        let ending = place.tree().end(cx.clock.as_ref(), &cx.cancel, kill_after, settled).await;
        let mut text = match ending.how {
            End::Gone => "the script had ended already".to_owned(),
            End::Ended => "the script was ended; none of its processes is left".to_owned(),
            End::Killed => "the script was killed; none of its processes is left".to_owned(),
        };
        if !ending.left.is_empty() {
            let left: Vec<String> = ending.left.iter().map(|m| format!("{} ({})", m.pid, m.name)).collect();
            text = format!(
                "the script was ended, except processes that the agent may not end: {}",
                left.join(", ")
            );
        }
        text
    }

    async fn judge(&self, code: i32) -> Result<(), Error> {
        match self.place.fault().as_deref() {
            Some("interpreter") => {
                return Err(Error::Interpreter { interpreter: interpreter(self.spec.shell) });
            }
            Some("directory") => {
                let directory = self.spec.working_directory.as_ref().map(|d| d.as_str().to_owned());
                return Err(Error::Directory { directory: directory.unwrap_or_default() });
            }
            Some(_) => {
                let what = "the agent's data directory takes no named pipes".to_owned();
                return Err(Error::Launch { what: what.clone(), source: what.into() });
            }
            None => {}
        }
        let text = match code {
            129..=192 => format!("{code} (128 + {}, as after a signal of that number)", code - 128),
            _ => code.to_string(),
        };
        if code != 0 {
            return Err(Error::Exit { code, text });
        }
        self.log.line(Level::Info, &format!("Command finished with status {text}")).await?;
        Ok(())
    }

    async fn outputs(&mut self) -> Result<BTreeMap<String, Output>, Error> {
        let mut outputs = BTreeMap::new();
        if self.spec.output_variables.is_empty() {
            return Ok(outputs);
        }
        let (found, cut) = self.place.variables(MAX_OUTPUTS);
        if cut {
            self.notices.push(format!("output variables over {} KiB were left out", MAX_OUTPUTS >> 10));
        }
        for variable in &self.spec.output_variables {
            let value = found.iter().find(|(name, _)| *name == variable.value).map(|(_, value)| value);
            let Some(value) = value else {
                let text =
                    format!("output variable {}: the script has not set {}", variable.name, variable.value);
                self.log.line(Level::Warn, &text).await?;
                self.notices.push(text);
                continue;
            };
            if variable.secret {
                self.cx.secrets.mask(&SecretString::from(value.clone()));
            }
            let output = Output { value: serde_json::Value::String(value.clone()), secret: variable.secret };
            outputs.insert(format!("outputVariables.{}", variable.name), output);
        }
        Ok(outputs)
    }

    /// After it vanished: the last of its output is taken, and what it started is ended, since nobody holds it any more.
    pub(crate) async fn clear(self) -> Result<(), StepError> {
        let what = self.end().await;
        kill_all(self.place.holder(), self.cx).await;
        let clock = self.cx.clock.clone();
        let follow = Follow::new(&self.place, clock.as_ref(), self.log.clone(), self.settings.spool_limit);
        if let Ok(mut follow) = follow {
            // That it vanished is known already.
            drop(follow.run().await);
        }
        let line = format!("The script lost its holder while no agent was there; {what}");
        self.log.line(Level::Warn, &line).await.unwrap_or_default();
        self.log.status(UnitStatus::Failure).await.unwrap_or_default();
        Ok(())
    }
}

fn cancelled(reason: CancelReason, what: &str) -> Error {
    Error::Cancelled { reason, what: format!("{}: {what}", reason.words()) }
}

/// Kills at once whatever of `tree` is left.
async fn kill_all(tree: Tree, cx: &StepContext) {
    let (handle, now) = Cancel::pair();
    handle.cancel(CancelReason::User, CancelStage::Kill);
    tree.end(cx.clock.as_ref(), &now, Duration::ZERO, || true).await;
}

/// The holder ends right behind its script, and is waited for, so that no zombie is left. One that a background process
/// keeps is reaped when it ends.
async fn reap(child: Option<Child>, cx: &StepContext) {
    if let Some(mut child) = child {
        tokio::select! {
            _ended = child.wait() => {}
            () = cx.clock.sleep(Duration::from_millis(200)) => {}
        }
    }
}
