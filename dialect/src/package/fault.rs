//! Why a package is refused.

use proto::failure::{Failure, FailureKind};

/// One fault, on its way to a [`Failure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    code: &'static str,
    message: String,
    hint: String,
}

/// What a person of the manager's side can do about a package of an unknown shape.
const RECORD: &str = "the manager may be newer than the shapes that this agent knows: report the message, and leave such steps to a \
    Harness delegate until then (a delegate selector on the step)";

/// What they can do about something that this agent does not do.
const ELSEWHERE: &str =
    "leave this step to a Harness delegate: give it a delegate selector that only such delegates have";

impl Fault {
    /// A part of the package has not the shape it should.
    pub(super) fn shape(path: &str, problem: impl std::fmt::Display) -> Self {
        Fault { code: "HRN-003", message: format!("{path} {problem}"), hint: RECORD.to_owned() }
    }

    /// Something that exists and is not supported; `what` names it.
    pub(super) fn unsupported(what: impl std::fmt::Display) -> Self {
        Fault {
            code: "HRN-004",
            message: format!("{what} is not supported by this agent; nothing was started"),
            hint: ELSEWHERE.to_owned(),
        }
    }

    /// The user has left out or mistaken something in the pipeline.
    pub(super) fn spec(message: impl Into<String>, hint: &str) -> Self {
        Fault { code: "HRN-007", message: message.into(), hint: hint.to_owned() }
    }

    /// A secret that is kept where this agent does not reach.
    pub(super) fn foreign_secret(name: &str, kind: &str) -> Self {
        Fault {
            code: "HRN-005",
            message: format!("the secret `{}` is kept in {}, which this agent does not read", short(name), short(kind)),
            hint: "keep it in Harness' built-in secret manager, or let the target read it itself (agent's own credentials, instance role); \
                or leave this step to a Harness delegate"
                .to_owned(),
        }
    }

    /// A secret that came with the package and cannot be opened.
    pub(super) fn sealed_secret(name: &str, problem: &str) -> Self {
        Fault {
            code: "HRN-006",
            message: format!("the secret `{}` cannot be decrypted: {problem}", short(name)),
            hint: "save the secret anew in Harness and run the step again; if it stays, report the message"
                .to_owned(),
        }
    }

    /// With another word of what to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(super) fn into_failure(self) -> Failure {
        Failure::new(FailureKind::BadSpec, self.code, self.message).hint(self.hint)
    }
}

/// A value of the package in a message: names and words, never contents.
pub(super) fn short(text: &str) -> String {
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(120).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
