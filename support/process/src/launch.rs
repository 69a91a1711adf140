//! Starting programs.

use crate::environment::basics;
use crate::error::ProcessError;
use crate::lines::{Sink, forward};
use crate::tree::{Ending, Tree, random_mark};
use bytes::Bytes;
use executor_api::{Cancel, CancelReason, Clock, Stream};
use nix::sys::signal::Signal;
use secrecy::{ExposeSecret, SecretString};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// Carries the mark of a program that [`run`] started.
const MARK: &str = "DELEGATE_PROCESS";

/// How long the output of a program that has ended may stay open: something it started holds it.
const DRAIN: Duration = Duration::from_secs(2);

/// A program to start. Its arguments are seen by every user of the machine: secrets go by environment or standard input.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    args: Vec<String>,
    env: Vec<(String, SecretString)>,
    directory: Option<PathBuf>,
    input: Option<Bytes>,
}

impl Program {
    /// A program by name, looked for in `PATH`, or by path.
    pub fn new(name: impl Into<String>) -> Program {
        Program { name: name.into(), args: Vec::new(), env: Vec::new(), directory: None, input: None }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Program {
        self.args.push(arg.into());
        self
    }

    /// Adds a variable to the basics that every child has, or replaces one of them.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Program {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The directory to start in. Default: `/`, so that nothing is written beside the agent's own files.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Program {
        self.directory = Some(directory.into());
        self
    }

    /// What the program reads; without it, standard input is closed.
    #[must_use]
    pub fn input(mut self, input: impl Into<Bytes>) -> Program {
        self.input = Some(input.into());
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.name);
        command.args(&self.args).env_clear().envs(basics());
        command.envs(self.env.iter().map(|(name, value)| (name, value.expose_secret())));
        command.current_dir(self.directory.clone().unwrap_or_else(|| PathBuf::from("/")));
        // A group of its own: a signal to the agent's group, such as Ctrl-C, is not meant for it.
        command.process_group(0);
        command
    }

    fn spawn(&self, command: &mut Command) -> Result<Child, ProcessError> {
        command.spawn().map_err(|source| {
            let directory = self.directory.clone().unwrap_or_else(|| PathBuf::from("/"));
            if let Err(source) = std::fs::read_dir(&directory) {
                return ProcessError::Directory { directory: directory.display().to_string(), source };
            }
            let program = self.name.clone();
            if source.kind() == std::io::ErrorKind::NotFound {
                let path = basics().into_iter().find(|(name, _)| name == "PATH").map(|(_, path)| path);
                return ProcessError::Missing { program, path: path.unwrap_or_default() };
            }
            ProcessError::Start { program, source }
        })
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it ended with status 0.
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }

    /// As a shell shows it: 128 + n for signal n.
    pub fn status(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Exit {
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Code(255),
        }
    }
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// Set when it was ended on request: why, and what that came to.
    pub cancelled: Option<(CancelReason, Ending)>,
}

/// Kills the tree when a run is dropped on the way: nothing may go on unseen.
struct Guard(Option<Tree>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(tree) = self.0.take() {
            // One that is killed may have started another a moment before; three rounds leave nobody time for a fourth.
            for _ in 0..3 {
                if tree.signal(Signal::SIGKILL) == 0 {
                    break;
                }
            }
        }
    }
}

/// Runs a program to its end and hands its output to `sink` line by line. What it has started and left running is ended
/// with it.
///
/// **Errors**: it could not be started or followed; a failing exit status is no error. **Cancel**: by `cancel`, whatever
/// the reason: the tree is asked to end and killed after `kill_after`. Dropping the future kills the tree.
/// **Repeat**: runs it again.
pub async fn run(
    program: &Program,
    sink: &dyn Sink,
    clock: &dyn Clock,
    cancel: &Cancel,
    kill_after: Duration,
) -> Result<Ended, ProcessError> {
    let mark = random_mark();
    let mut command = program.command();
    command.env(MARK, &mark).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if program.input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = program.spawn(&mut command)?;
    let mut tree = Tree::marked(MARK, &mark);
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        tree = tree.group(pid);
    }
    let mut guard = Guard(Some(tree.clone()));
    let follow = |source| ProcessError::Follow { program: program.name.clone(), source };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, &program.input) {
            // A program that does not read its input to the end is free to.
            drop(stdin.write_all(input).await);
        }
    };
    let read = async {
        let out = async {
            match stdout {
                Some(stdout) => forward(stdout, Stream::Stdout, sink).await,
                None => Ok(()),
            }
        };
        let err = async {
            match stderr {
                Some(stderr) => forward(stderr, Stream::Stderr, sink).await,
                None => Ok(()),
            }
        };
        let ((), out, err) = tokio::join!(feed, out, err);
        out.and(err)
    };
    let mut read = std::pin::pin!(read);
    let mut done = None;
    let mut cancelled = None;
    let exit = {
        let mut wait = std::pin::pin!(child.wait());
        loop {
            tokio::select! {
                ended = &mut wait => break ended.map_err(follow)?,
                ended = &mut read, if done.is_none() => done = Some(ended),
                (reason, _) = cancel.wait(), if cancelled.is_none() => {
                    let mut ending = std::pin::pin!(tree.end(clock, cancel, kill_after, || true));
                    let ending = loop {
                        tokio::select! {
                            ending = &mut ending => break ending,
                            ended = &mut read, if done.is_none() => done = Some(ended),
                        }
                    };
                    cancelled = Some((reason, ending));
                }
            }
        }
    };
    if done.is_none() {
        // Something that it started holds its output: what comes within a moment counts, then it goes as well.
        tokio::select! {
            ended = &mut read => done = Some(ended),
            () = clock.sleep(DRAIN) => {}
        }
    }
    if cancelled.is_none() {
        tree.end(clock, cancel, Duration::ZERO, || true).await;
    }
    guard.0 = None;
    match done {
        Some(Err(source)) => Err(follow(source)),
        _ => Ok(Ended { exit: exit.into(), cancelled }),
    }
}

/// Starts a program that outlives the agent: standard input and both outputs are closed, and nothing of it depends on
/// this process. The caller gives it its mark by [`Program::env`]. While this process lives, it is reaped when it ends,
/// also when the handle was dropped.
///
/// **Errors**: it could not be started.
pub fn detach(program: &Program) -> Result<Child, ProcessError> {
    let mut command = program.command();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(false);
    program.spawn(&mut command)
}
