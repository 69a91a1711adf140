//! The one error type of all executors.

use crate::cancel::CancelReason;
use proto::failure::{Failure, FailureKind};
use std::time::Duration;

/// What went wrong, as far as decisions go (D9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "FailureKind documents the meaning of the equal names.")]
pub enum Class {
    Authentication,
    Authorization,
    Connectivity,
    Timeout,
    Verification,
    /// The target did what it was told and reported failure with this code. 128 + n for signal n.
    RemoteFailed {
        code: i32,
    },
    BadSpec,
    /// Asked to slow down.
    Throttled {
        retry_after: Option<Duration>,
    },
    /// Ended on request; carries no blame.
    Cancelled {
        reason: CancelReason,
    },
    Bug,
}

impl Class {
    /// The class on the wire. A deadline is `Timeout`; other cancellations are reported by status, their kind is unused.
    pub fn kind(self) -> FailureKind {
        match self {
            Class::Authentication => FailureKind::Authentication,
            Class::Authorization => FailureKind::Authorization,
            Class::Connectivity => FailureKind::Connectivity,
            Class::Timeout | Class::Cancelled { reason: CancelReason::Deadline } => FailureKind::Timeout,
            Class::Verification => FailureKind::Verification,
            Class::RemoteFailed { .. } => FailureKind::RemoteFailed,
            Class::BadSpec => FailureKind::BadSpec,
            Class::Throttled { .. } => FailureKind::Throttled,
            Class::Cancelled { .. } => FailureKind::UserMarkedFailure,
            Class::Bug => FailureKind::Bug,
        }
    }

    /// Whether another try of the same call may help. Refusals never do.
    pub fn may_retry(self) -> bool {
        matches!(self, Class::Connectivity | Class::Throttled { .. })
    }
}

/// A failed step. Made once, at the border where the foreign error enters.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct StepError {
    /// Decides retry, failure type, exit code.
    pub class: Class,
    /// A code with a page in `docs/errors/`: `SSH-003`.
    pub code: &'static str,
    /// A sentence for people: what happened, to what, with which evidence. Holds no secret.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What it happened to.
    pub target: Option<String>,
    /// The foreign error, for the agent's own log.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StepError {
    /// An error of `class` with `code`.
    pub fn new(class: Class, code: &'static str, what: impl Into<String>) -> Self {
        StepError { class, code, what: what.into(), hint: None, target: None, source: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what it happened to.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// Adds the foreign error.
    #[must_use]
    pub fn source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The wire form, without the chain of sources.
    pub fn to_failure(&self) -> Failure {
        let mut failure = Failure::new(self.class.kind(), self.code, self.what.clone());
        failure.hint.clone_from(&self.hint);
        failure.target.clone_from(&self.target);
        if let Class::RemoteFailed { code } = self.class {
            failure.exit_code = Some(code);
        }
        failure
    }
}
