//! Script units: those that follow each other are started together, and followed one after another.

use crate::cancel::Following;
use crate::command::Job;
use crate::error::{Error, signal_name};
use crate::follow::Follow;
use crate::holder::{self, Script};
use crate::memory::{Memory, UnitEnd};
use executor_api::{Exported, Level, Stream, UnitLog};
use proto::task::{CommandSpec, CommandUnit, Shell, UnitKind};
use secrecy::{ExposeSecret, SecretString};
use std::sync::{Arc, PoisonError};

/// So many units are started together at most, and so long their scripts are: each waits in the host's memory.
const MAX_TOGETHER: usize = 16;
const MAX_TOGETHER_BYTES: usize = 256 << 10;

/// A script unit whose secrets are filled in.
struct Prepared {
    key: String,
    shell: Shell,
    text: SecretString,
    directory: Option<SecretString>,
    /// Whether line ends were changed.
    crlf: bool,
}

impl Prepared {
    fn script<'b>(&'b self, env: &'b [(String, SecretString)], variables: &'b [String]) -> Script<'b> {
        Script {
            shell: self.shell,
            text: &self.text,
            env,
            directory: self.directory.as_ref(),
            variables: if self.shell == Shell::PowerShell { &[] } else { variables },
        }
    }
}

/// The mutating call that starts a unit, as checkpoints name it.
fn launch_call(unit: &CommandUnit) -> String {
    format!("launch {}", unit.identifier)
}

impl Job<'_> {
    /// A holder stops by itself at a script that fails. At any other error, units that were started with this one must
    /// not begin any more.
    pub(crate) async fn bar_later(&self, unit: &CommandUnit, error: &Error, memory: &Memory) {
        use Error::{Cancelled, Directory, Exit, Interpreter};
        let key = self.key(unit);
        let later: Vec<String> = memory.launched.iter().skip_while(|k| **k != key).skip(1).cloned().collect();
        let stopped = matches!(error, Exit { .. } | Interpreter { .. } | Directory { .. } | Cancelled { .. });
        if stopped || later.is_empty() {
            return;
        }
        let log = self.cx.logs.unit(&unit.name);
        let work = async {
            let session = self.session(log.as_ref()).await?;
            self.ask(&session, |nonce| holder::bar(nonce, &later)).await
        };
        let barred = tokio::select! {
            barred = work => barred.is_ok(),
            () = self.cx.clock.sleep(self.settings().end_within) => false,
        };
        if !barred {
            let text =
                format!("units after {} may still begin on {}: it did not answer", unit.name, self.host);
            log.line(Level::Warn, &text).await.unwrap_or_default();
        }
    }

    fn prepare(&self, unit: &CommandUnit) -> Result<Option<Prepared>, Error> {
        let UnitKind::Script { shell, script, working_directory } = &unit.kind else { return Ok(None) };
        let mut text = self.cx.secrets.reveal(script)?;
        let crlf = text.expose_secret().contains('\r');
        if crlf {
            text = SecretString::from(text.expose_secret().replace("\r\n", "\n"));
        }
        let directory = working_directory.as_ref().filter(|d| !d.is_empty());
        let directory = directory.map(|d| self.cx.secrets.reveal(d)).transpose()?;
        Ok(Some(Prepared { key: self.key(unit), shell: *shell, text, directory, crlf }))
    }

    /// The script units right after `unit` that can be started together with it. One that cannot be prepared fails when
    /// its turn comes.
    fn prepare_later(
        &self,
        spec: &CommandSpec,
        unit: &CommandUnit,
        memory: &Memory,
    ) -> Vec<(Prepared, CommandUnit)> {
        let mut size = 0;
        let later = spec.units.iter().skip_while(|u| u.identifier != unit.identifier).skip(1);
        later
            .map_while(|u| Some((self.prepare(u).ok().flatten()?, u)))
            .take_while(|(p, u)| {
                size += p.text.expose_secret().len();
                size <= MAX_TOGETHER_BYTES
                    && !memory.launched.contains(&p.key)
                    && !memory.done.contains_key(&u.identifier)
            })
            .take(MAX_TOGETHER - 1)
            .map(|(p, u)| (p, u.clone()))
            .collect()
    }

    pub(crate) async fn script(
        &self,
        spec: &CommandSpec,
        unit: &CommandUnit,
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
        let Some(own) = self.prepare(unit)? else {
            return Err(Error::Protocol { what: format!("unit {} is no script", unit.name) });
        };
        let shell = own.shell;
        let started = |key: &String| {
            self.started.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|k| k == key)
        };
        let ours = !again || started(&key);
        if own.crlf && ours {
            log.line(Level::Warn, "Windows line ends (CRLF) were removed from the script").await?;
        }
        let Exported { values: env, notices } = self.cx.exported()?;
        notices.into_iter().for_each(|text| self.notice(text));
        let later = if again { Vec::new() } else { self.prepare_later(spec, unit, memory) };
        let variables: Vec<String> = spec.output_variables.iter().map(|v| v.value.clone()).collect();
        let task = &self.cx.task_id;
        if !again {
            let units: Vec<&CommandUnit> =
                std::iter::once(unit).chain(later.iter().map(|(_, u)| u)).collect();
            let names: Vec<&str> = units.iter().map(|u| u.name.as_str()).collect();
            let calls: Vec<String> = units.iter().map(|u| launch_call(u)).collect();
            memory.launched.extend(units.iter().map(|u| self.key(u)));
            let intent = format!("start unit {} on {}", names.join(", "), self.host);
            memory.record(self.cx, intent, calls.clone()).await?;
            for call in &calls {
                self.shared.probe.before(task, call).await;
            }
            let keys = units.iter().map(|u| self.key(u));
            self.started.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
        }
        let text = match ours {
            true => format!("Executing {shell:?} script on {} …", self.host),
            false => format!("Attaching to the script on {}", self.host),
        };
        log.line(Level::Info, &text).await?;
        let units: Vec<(&str, Script<'_>)> = std::iter::once(&own)
            .chain(later.iter().map(|(p, _)| p))
            .map(|p| (p.key.as_str(), p.script(&env, &variables)))
            .collect();
        let mut follow = Follow::new(self, &key, log.clone());
        let mut following: Following<'_> = Box::pin(follow.run(&units));
        if let Some((reason, _)) = self.cx.cancel.requested() {
            return Err(self.interrupt(unit, &key, reason, memory, log, None).await);
        }
        let ended = tokio::select! {
            ended = &mut following => ended,
            (reason, _) = self.cx.cancel.wait() => {
                return Err(self.interrupt(unit, &key, reason, memory, log, Some(following)).await);
            }
        };
        if ours {
            self.shared.probe.after(task, &launch_call(unit)).await;
        }
        let ended = ended?;
        // A later checkpoint says that this unit is through, and its folder goes: both only once its output is safe here.
        log.durable(Stream::Stdout).await?;
        log.durable(Stream::Stderr).await?;
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
}

fn unit_directory(unit: &CommandUnit) -> Option<String> {
    match &unit.kind {
        UnitKind::Script { working_directory, .. } => {
            working_directory.as_ref().map(|d| d.as_str().to_owned())
        }
        _ => None,
    }
}
