//! The four calls.

use crate::{StepContext, StepError};
use proto::result::Output;
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::Future;

/// One kind of step.
pub trait Executor: Send + Sync {
    /// The typed spec it takes.
    type Spec: Send + Sync;

    /// Looks at the spec alone: no I/O, no clock. Returns every fault, not the first.
    fn check(&self, spec: &Self::Spec, cx: &StepContext) -> Result<(), Vec<SpecFault>>;

    /// Reads only: what `run` would change, as canonical text with its hash; or `Unsupported`.
    fn plan(
        &self,
        spec: &Self::Spec,
        cx: &StepContext,
    ) -> impl Future<Output = Result<Plan, StepError>> + Send;

    /// Does the work, or goes on with it. Safe to repeat: remote identity derives from (task, step), and every
    /// mutation is preceded by a durable checkpoint. After `recover` said `Running` or `Ended`, it goes on from there.
    ///
    /// **Cancel**: ends in order on `cx.cancel`; the future is not dropped before it returned, except when the process
    /// dies.
    fn run(
        &self,
        spec: &Self::Spec,
        cx: &StepContext,
    ) -> impl Future<Output = Result<StepOutput, StepError>> + Send;

    /// After a crash: finds out what became of the work that the checkpoints announce. Changes nothing.
    fn recover(
        &self,
        spec: &Self::Spec,
        cx: &StepContext,
    ) -> impl Future<Output = Result<Recovery, StepError>> + Send;

    /// After `recover` said `Vanished`: brings home what is left of its output and removes what is ours from the target.
    /// Starts nothing and changes nothing else. The default has nothing to clear.
    ///
    /// **Errors**: something stays; the text says what and where. **Repeat**: safe.
    fn clear(
        &self,
        _spec: &Self::Spec,
        _cx: &StepContext,
    ) -> impl Future<Output = Result<(), StepError>> + Send {
        std::future::ready(Ok(()))
    }
}

/// A fault in a spec, found without I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecFault {
    /// Path inside the step's spec: `units[0].spec.script`.
    pub field: String,
    /// What is wrong, what was expected.
    pub problem: String,
}

/// What `run` would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A canonical diff and the SHA-256 of it in hex.
    Diff {
        /// For people; the same input gives the same text.
        text: String,
        /// Compared by `run` when a hash is given.
        hash: String,
    },
    /// This kind of step cannot say beforehand (a script).
    Unsupported {
        /// Why.
        reason: String,
    },
}

/// What became of a step after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It runs on; `run` attaches to it.
    Running,
    /// It ended with this code; `run` collects it.
    Ended(i32),
    /// Nothing was started; `run` starts it.
    NeverStarted,
    /// It was started, is gone, and left no result. `run` is not called: the step fails and is never silently run
    /// again (settled facts §2.2).
    Vanished {
        /// For the failure text.
        evidence: String,
    },
}

/// What a successful step leaves behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOutput {
    /// Outputs by path.
    pub outputs: BTreeMap<String, Output>,
    /// Undo data; replaces that of the checkpoints when set.
    pub undo: Option<Value>,
    /// Things a person should read.
    pub notices: Vec<String>,
    /// The step had nothing to do and says so (status `Skipped`).
    pub skipped: bool,
}
