//! What can go wrong, with class and code (D9).

use executor_api::{CancelReason, Class, StepError};
use process::ProcessError;

/// Code of a script that was started, is gone, and left no exit status.
pub const VANISHED: &str = "SHELL-004";

/// Every way in which a ShellScript step can fail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the script ended with status {text}")]
    Exit { code: i32, text: String },
    #[error("{interpreter} is not installed on this agent; the script was not run")]
    Interpreter { interpreter: &'static str },
    #[error("the script was started and left no exit status: {evidence}")]
    Vanished { evidence: String },
    #[error("the working directory `{directory}` cannot be entered; the script was not run")]
    Directory { directory: String },
    #[error(transparent)]
    Secret(#[from] executor_api::SecretError),
    #[error("the script cannot be started: {what}")]
    Launch {
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{0}")]
    Spec(String),
    #[error("{what}")]
    Cancelled { reason: CancelReason, what: String },
    #[error("the log pipeline is closed; the script runs on and can be attached to")]
    Logs,
    #[error(transparent)]
    Checkpoint(#[from] executor_api::CheckpointError),
}

impl From<executor_api::ExportError> for Error {
    fn from(error: executor_api::ExportError) -> Self {
        match error {
            executor_api::ExportError::Secret(error) => Error::Secret(error),
            other => Error::Spec(other.to_string()),
        }
    }
}

impl From<executor_api::LogClosed> for Error {
    fn from(_: executor_api::LogClosed) -> Self {
        Error::Logs
    }
}

impl From<ProcessError> for Error {
    fn from(source: ProcessError) -> Self {
        Error::Launch { what: source.to_string(), source: Box::new(source) }
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Error::Launch { what: format!("the agent's data directory: {source}"), source: Box::new(source) }
    }
}

impl Error {
    /// Whether the script was left as it is.
    pub(crate) fn leaves_it(&self) -> bool {
        match self {
            Error::Logs => true,
            Error::Cancelled { reason, .. } => !reason.ends_the_target(),
            _ => false,
        }
    }

    /// The step's error.
    pub(crate) fn into_step(self) -> StepError {
        let (class, code, hint): (Class, &'static str, Option<&str>) = match &self {
            Error::Exit { code, .. } if *code > 128 => (
                Class::RemoteFailed { code: *code },
                "SHELL-002",
                Some("the log shows the last output; look for an out-of-memory kill of the agent's machine"),
            ),
            Error::Exit { code, .. } => (
                Class::RemoteFailed { code: *code },
                "SHELL-001",
                Some("the log of the unit shows what the script printed"),
            ),
            Error::Interpreter { .. } => (
                Class::RemoteFailed { code: 127 },
                "SHELL-003",
                Some("install it on the agent, choose another shell, or an agent by `delegateSelectors`"),
            ),
            Error::Vanished { .. } => (
                Class::RemoteFailed { code: 255 },
                VANISHED,
                Some("look at what the script had done before it is run again"),
            ),
            Error::Directory { .. } => (
                Class::RemoteFailed { code: 1 },
                "SHELL-005",
                Some("create the directory on the agent, or let the agent's user enter it"),
            ),
            Error::Secret(_) => {
                (Class::BadSpec, "SHELL-006", Some("set it: delegate secret set NAME --file F"))
            }
            Error::Launch { .. } => (
                Class::Bug,
                "SHELL-007",
                Some("check /bin/sh on the agent, and space and rights of its data directory"),
            ),
            Error::Spec(_) => (Class::BadSpec, "SHELL-008", None),
            Error::Cancelled { reason, .. } => (Class::Cancelled { reason: *reason }, "SHELL-009", None),
            Error::Logs => (Class::Cancelled { reason: CancelReason::Drain }, "SHELL-010", None),
            Error::Checkpoint(_) => {
                (Class::Bug, "SHELL-011", Some("check the disk of the agent's data directory"))
            }
        };
        let mut error = StepError::new(class, code, self.to_string()).target("agent");
        error.hint = hint.map(str::to_owned);
        error.source(self)
    }
}
