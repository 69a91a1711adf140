//! Why a step failed: our own class, Harness' failure type, and what a person reads.

use serde::{Deserialize, Serialize};

/// Our own class of a failure (DESIGN D9). It decides retry, the Harness failure type and the exit code; nothing is
/// ever decided on message text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureKind {
    /// Credentials were refused.
    Authentication,
    /// Known, but not allowed.
    Authorization,
    /// The other side could not be reached, or the connection was lost.
    Connectivity,
    /// A timer ran out.
    Timeout,
    /// An analysis said no, or could not say.
    Verification,
    /// The target did what it was told and reported failure.
    RemoteFailed,
    /// The step or one of its entities is written wrongly.
    BadSpec,
    /// The other side asked us to slow down and the budget for waiting is used up.
    Throttled,
    /// No connected agent satisfies the selectors.
    DelegateProvisioning,
    /// The agent was lost while the step ran.
    DelegateRestart,
    /// A policy refused.
    PolicyEvaluationFailure,
    /// A person refused.
    ApprovalRejection,
    /// Nobody supplied a runtime input in time.
    InputTimeoutError,
    /// A person marked the step as failed.
    UserMarkedFailure,
    /// Our own fault.
    Bug,
}

/// Harness' failure type, as pipeline YAML names it in `failureStrategies[].onFailure.errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "The names are Harness' own; pipeline.md 2.5 explains them.")]
pub enum FailureType {
    Authentication,
    Authorization,
    Connectivity,
    Timeout,
    DelegateProvisioning,
    DelegateRestart,
    Verification,
    PolicyEvaluationFailure,
    ApprovalRejection,
    InputTimeoutError,
    UserMarkedFailure,
    Unknown,
}

impl FailureKind {
    /// The Harness type that stands for this kind. **Source**: settled facts §1.11.
    pub fn harness_type(self) -> FailureType {
        match self {
            FailureKind::Authentication => FailureType::Authentication,
            FailureKind::Authorization => FailureType::Authorization,
            FailureKind::Connectivity | FailureKind::Throttled => FailureType::Connectivity,
            FailureKind::Timeout => FailureType::Timeout,
            FailureKind::Verification => FailureType::Verification,
            FailureKind::DelegateProvisioning => FailureType::DelegateProvisioning,
            FailureKind::DelegateRestart => FailureType::DelegateRestart,
            FailureKind::PolicyEvaluationFailure => FailureType::PolicyEvaluationFailure,
            FailureKind::ApprovalRejection => FailureType::ApprovalRejection,
            FailureKind::InputTimeoutError => FailureType::InputTimeoutError,
            FailureKind::UserMarkedFailure => FailureType::UserMarkedFailure,
            FailureKind::RemoteFailed | FailureKind::BadSpec | FailureKind::Bug => FailureType::Unknown,
        }
    }
}

/// A failure as it is stored, sent and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Harness' failure type.
    pub class: FailureType,
    /// Our own class.
    pub kind: FailureKind,
    /// A code with a page in `docs/errors/`, such as `SSH-003`.
    pub code: String,
    /// What happened, with host, exit code and evidence. Masked.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What it happened to: a host, a service, a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Exit code of the remote side, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl Failure {
    /// A failure of `kind`; `class` follows from it.
    pub fn new(kind: FailureKind, code: &str, message: impl Into<String>) -> Self {
        Failure {
            class: kind.harness_type(),
            kind,
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            target: None,
            exit_code: None,
        }
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
}
