//! Exit codes, and the one error type of the command line. Scripts rely on the numbers.

use pipeline::fault::Fault;
use std::fmt;
use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Success; also IgnoreFailed.
    Success,
    /// The execution failed, rolled back or not; or the command could not do what it was asked to.
    Failed,
    /// The execution was aborted or expired.
    Aborted,
    /// Bad usage or an invalid document.
    Usage,
    /// The manager cannot be reached.
    Unavailable,
    /// The manager refused the key.
    Refused,
    /// Ctrl-C; what runs goes on.
    Interrupted,
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Aborted => 3,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Refused => 77,
            Exit::Interrupted => 130,
        }
    }

    /// The exit of an execution that ended with this Harness status.
    pub(crate) fn of_status(status: &str) -> Exit {
        match status {
            "Success" | "IgnoreFailed" | "Skipped" => Exit::Success,
            "Aborted" | "Expired" => Exit::Aborted,
            _ => Exit::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Why a command ended early.
#[derive(Clone, Debug)]
pub(crate) struct CliError {
    /// Its exit.
    pub(crate) exit: Exit,
    /// What happened.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// Places in documents; when there are any, they are printed instead of the message.
    pub(crate) faults: Vec<Fault>,
}

impl CliError {
    /// An error that ends with `exit`.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        CliError { exit, message: message.into(), hint: None, faults: Vec::new() }
    }

    /// Bad usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        CliError::new(Exit::Usage, message)
    }

    /// Something that did not work.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        CliError::new(Exit::Failed, message)
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        CliError::usage(format!("{} cannot be {what}: {error}", path.display()))
    }

    /// Refused documents.
    pub(crate) fn documents(faults: Vec<Fault>) -> Self {
        CliError { faults, ..CliError::usage("the document is refused") }
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.faults.is_empty() {
            write!(f, "error: {}", self.message)?;
        }
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}

/// An error with its causes, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_lead_to_the_documented_codes() {
        for (status, code) in [
            ("Success", 0),
            ("IgnoreFailed", 0),
            ("Failed", 1),
            ("ApprovalRejected", 1),
            ("Aborted", 3),
            ("Expired", 3),
        ] {
            assert_eq!(Exit::of_status(status).code(), code, "{status}");
        }
        assert_eq!(
            [Exit::Usage, Exit::Unavailable, Exit::Refused, Exit::Interrupted].map(Exit::code),
            [64, 69, 77, 130]
        );
    }

    #[test]
    fn refused_documents_print_their_places() {
        let fault = Fault {
            source: "p.yaml".into(),
            line: 3,
            column: 7,
            path: "pipeline.stages[0]".into(),
            message: "unknown step `Comand`".into(),
            suggestion: Some("did you mean `Command`?".into()),
        };
        assert_eq!(
            CliError::documents(vec![fault]).to_string(),
            "p.yaml:3:7: pipeline.stages[0]: unknown step `Comand` (did you mean `Command`?)"
        );
        assert_eq!(CliError::failed("x").hint("y").to_string(), "error: x\n hint: y");
    }
}
