//! A child process of quickstart: started, waited for, ended.

use crate::exit::CliError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// How long a child may take to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A running child. Dropping it kills the process; [`Child::end`] asks first.
pub(super) struct Child {
    name: &'static str,
    process: tokio::process::Child,
    /// Reads standard output to its end, so that the pipe never fills.
    drain: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts `command` with standard error in `dir/NAME.log`. With `ready`, waits for the line of standard output that
    /// begins so and returns the rest of it.
    pub(super) async fn start(
        name: &'static str,
        mut command: Command,
        dir: &Path,
        ready: Option<&str>,
    ) -> Result<(Child, String), CliError> {
        let log = dir.join(format!("{name}.log"));
        let file = std::fs::File::create(&log).map_err(|e| CliError::file("written", &log, &e))?;
        command.stdin(Stdio::null()).stderr(file).kill_on_drop(true);
        // A group of its own: Ctrl-C in the terminal reaches this process, which then ends the children in order.
        command.process_group(0);
        if ready.is_some() {
            command.stdout(Stdio::piped());
        }
        let mut process =
            command.spawn().map_err(|e| CliError::failed(format!("{name} cannot be started: {e}")))?;
        let Some(ready) = ready else { return Ok((Child { name, process, drain: None }, String::new())) };
        let failed = |what: &str| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(8).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            CliError::failed(format!("{name} {what}; its log ends with:\n{}", last.join("\n")))
        };
        let Some(stdout) = process.stdout.take() else { return Err(failed("has no output")) };
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(READY_LIMIT, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(rest) = line.strip_prefix(ready) {
                    return Some(rest.to_owned());
                }
            }
            None
        })
        .await;
        let line = match line {
            Ok(Some(line)) => line,
            Ok(None) => return Err(failed("ended before it was ready")),
            Err(_) => return Err(failed("was not ready in time")),
        };
        let drain = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((Child { name, process, drain: Some(drain) }, line))
    }

    /// Whether the process has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Asks the process to end, then kills it.
    pub(super) async fn end(mut self) {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM)
        {
            tracing::debug!(name = self.name, %error, "the process is gone already");
        }
        if tokio::time::timeout(END_LIMIT, self.process.wait()).await.is_err()
            && let Err(error) = self.process.kill().await
        {
            tracing::debug!(name = self.name, %error, "the process cannot be killed");
        }
        if let Some(drain) = self.drain.take() {
            drain.abort();
        }
    }
}
