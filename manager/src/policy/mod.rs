//! Policies: Rego modules, judged in this process (pipeline.md 4.2).
//!
//! ```text
//! catalogue --> sets (who is asked, severities, verdict) --> rego (one module, one input) --> regorus
//!                                                             |-- builtins: the clock, what may grow
//! thread: a bounded number of evaluations, each on a thread of its own that has room for deep rules
//! ```
//!
//! A policy reads its input and the time that it is given, nothing else: no network, no files, no environment, no
//! chance. Whatever goes wrong while it is judged counts as a violation, so that a gate never stands open by mistake.

mod builtins;
mod nesting;
mod rego;
mod sets;
pub(crate) mod step;
mod thread;

#[cfg(test)]
mod tests;

pub use rego::{Dialect, EvaluationError, Evaluator, SyntaxFault, check};
pub use sets::{
    Asked, AskedPolicy, PolicyVerdict, SelectError, SetVerdict, Status, Verdict, judge, select, select_for,
};
pub use thread::{JudgeError, Judges};

use std::time::Duration;

/// What one evaluation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for all policies of one step together.
    pub time: Duration,
    /// Bytes of the input as JSON.
    pub input_bytes: usize,
    /// Bytes of one Rego text.
    pub rego_bytes: usize,
    /// Rules of one policy. Rules that ask each other need stack, so their number is bounded.
    pub rules: usize,
    /// Bytes that functions may make, all calls of one policy together.
    pub made_bytes: u64,
    /// Messages that are kept of one policy.
    pub messages: usize,
    /// Bytes that are kept of one message.
    pub message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            time: Duration::from_secs(5),
            input_bytes: 1024 * 1024,
            rego_bytes: 256 * 1024,
            rules: 1000,
            made_bytes: 64 * 1024 * 1024,
            messages: 100,
            message_bytes: 4096,
        }
    }
}
