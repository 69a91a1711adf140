//! Errors that every room of this crate makes. What AWS refuses is classified in the crate `aws`.

use executor_api::{CancelReason, CheckpointError, Class, LogClosed, SecretError, StepError};

/// The error of a step that was ended on request. `state` says in what state things are left.
pub(crate) fn cancelled(reason: CancelReason, state: &str) -> StepError {
    let words = reason.words();
    StepError::new(Class::Cancelled { reason }, "ECS-001", format!("the step was ended ({words}): {state}"))
}

/// The intent could not be made durable, so nothing was sent.
pub(crate) fn not_recorded(error: CheckpointError) -> StepError {
    StepError::new(Class::Bug, "ECS-002", format!("nothing more was changed, because {error}"))
        .hint("look at the agent's journal: its disk may be full")
        .source(error)
}

/// The log pipeline closes only when the agent goes down.
pub(crate) fn log_closed(_: LogClosed) -> StepError {
    cancelled(CancelReason::Drain, "the agent goes down")
}

/// A secret of a document cannot be had.
pub(crate) fn no_secret(field: &str, error: SecretError) -> StepError {
    StepError::new(Class::BadSpec, "ECS-003", format!("{field}: {error}"))
        .hint("check that the secret exists in this scope and that this agent may read it")
        .source(error)
}

/// A document or setting is wrong, found before AWS was asked.
pub(crate) fn bad_spec(code: &'static str, what: impl Into<String>) -> StepError {
    StepError::new(Class::BadSpec, code, what)
}

/// What an earlier step or an earlier life of the agent left behind cannot be read.
pub(crate) fn unreadable(what: &str, error: impl std::fmt::Display) -> StepError {
    StepError::new(Class::Bug, "ECS-004", format!("{what} cannot be read: {error}"))
        .hint("it was written by another version of the agent; nothing was changed")
}
