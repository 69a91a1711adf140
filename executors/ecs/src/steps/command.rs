//! EcsRunTask with a `command`: Bash on the agent, with the account's credentials (rule R9, shape 3).
//!
//! The script lies in the task's private folder and is never an argument. Its end is known only to the agent's process that
//! started it: after a crash the step fails and is not run again.

use super::planned::outputs;
use crate::EcsExecutor;
use crate::error::{bad_spec, cancelled, no_secret};
use crate::memory::{Memory, Undo, recall};
use crate::session::Session;
use bytes::Bytes;
use executor_api::{Class, ExportError, Level, StepContext, StepError, StepOutput, Stream, Unit, UnitLog};
use futures::future::BoxFuture;
use process::{Program, Sink};
use proto::task::EcsSpec;
use proto::text::Text;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const UNIT: &str = "Run Task";
/// Bytes of standard output that become an output.
const MAX_OUTPUT: usize = 64 << 10;
/// Between asking the script to end and killing it.
const KILL_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Started {
    started: bool,
}

impl Memory for Started {
    fn undo(&self) -> Option<Undo> {
        None
    }
}

/// Writes what the script prints to the log, and keeps the beginning of its standard output.
struct Printed<'a> {
    log: &'a dyn UnitLog,
    kept: Mutex<String>,
}

impl Sink for Printed<'_> {
    fn line(&self, stream: Stream, line: Bytes) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let text = String::from_utf8_lossy(&line).into_owned();
            let level = if stream == Stream::Stdout { Level::Info } else { Level::Error };
            // A closed log ends the step by its own cancellation.
            let _closed = self.log.line(level, &text).await;
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if stream == Stream::Stdout && kept.len() + text.len() < MAX_OUTPUT {
                kept.push_str(&text);
                kept.push('\n');
            }
        })
    }
}

fn cannot_start(problem: impl std::fmt::Display) -> StepError {
    StepError::new(Class::Bug, "ECS-072", format!("the command cannot be started: {problem}"))
        .hint("install bash on the agent, and check space and rights of its data directory")
}

/// Puts the script into a folder of its own.
fn write(folder: &Path, script: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join("command");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(script.as_bytes())
}

/// Runs the step. Outputs: `exitCode`, `stdout`, `taskDefinition`.
pub(super) async fn run(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    definition: &str,
    command: &Text,
) -> Result<StepOutput, StepError> {
    let unit = Unit::begin(cx, UNIT).await?;
    let result = work(executor, spec, cx, (definition, command), unit.log()).await;
    unit.end(result).await
}

async fn work(
    executor: &EcsExecutor,
    spec: &EcsSpec,
    cx: &StepContext,
    (definition, command): (&str, &Text),
    log: &dyn UnitLog,
) -> Result<StepOutput, StepError> {
    if recall::<Started>(cx)?.is_some_and(|memory| memory.started) {
        let text = "the command was started, and the agent ended before the command did; it is not run again";
        return Err(StepError::new(Class::RemoteFailed { code: 255 }, "ECS-071", text)
            .hint("look at what the command had done, then run the step again"));
    }
    let session = Session::open(executor, spec, cx, log).await?;
    let script = cx.secrets.reveal(command).map_err(|error| no_secret("command", error))?;
    let exported = cx.exported().map_err(|error| match error {
        ExportError::Secret(error) => no_secret("environment", error),
        other => bad_spec("ECS-072", other.to_string()),
    })?;
    let account = session.aws.environment().await;
    let account = account.map_err(|fault| session.fault(fault, "get credentials for the command"))?;
    let folder = cx.scratch.join("command");
    write(&folder, script.expose_secret()).map_err(cannot_start)?;
    let home = folder.display().to_string();
    let mut program =
        Program::new("bash").arg(folder.join("command").display().to_string()).directory(&folder);
    for (name, value) in exported.values.into_iter().chain(account) {
        program = program.env(name, value);
    }
    program = program.env("HOME", home.clone()).env("TMPDIR", home).env("AWS_PAGER", "");
    session.go_on("the command was not started")?;
    session
        .announce("run the command on the agent", &["run the command"], &Started { started: true })
        .await?;
    session
        .say(log, Level::Info, "Executing the command on the agent with the account's credentials …")
        .await?;
    let printed = Printed { log, kept: Mutex::default() };
    let ended = process::run(&program, &printed, cx.clock.as_ref(), &cx.cancel, KILL_AFTER).await;
    let ended = ended.map_err(cannot_start)?;
    if let Some((reason, _)) = ended.cancelled {
        return Err(cancelled(reason, "the command and everything it had started was ended"));
    }
    let code = ended.exit.status();
    if code != 0 {
        return Err(StepError::new(
            Class::RemoteFailed { code },
            "ECS-070",
            format!("the command ended with status {code}"),
        )
        .hint("the log of the unit shows what the command printed"));
    }
    session.say(log, Level::Info, "Command finished with status 0").await?;
    let stdout = printed.kept.into_inner().unwrap_or_else(PoisonError::into_inner);
    let outputs = outputs([
        ("exitCode", code.into()),
        ("stdout", stdout.trim_end().into()),
        ("taskDefinition", definition.into()),
    ]);
    Ok(StepOutput { outputs, notices: exported.notices, ..StepOutput::default() })
}
