//! The contract every executor fulfils (DESIGN D4): `check`, `plan`, `run`, `recover`.
//!
//! An executor is stateless with regard to a task: everything that belongs to one run arrives in [`StepContext`]. It
//! names no other executor, not the agent and not the manager. Types of an SDK stop at the crate's border; foreign
//! errors are classified there, once, into [`StepError`] (D9).
//!
//! Feature `testing` holds the conformance kit that every executor passes in its own tests.

mod cancel;
mod checkpoint;
mod clock;
mod context;
mod error;
mod executor;
mod log;
mod probe;
mod secret;
mod unit;
mod variables;

pub use cancel::{Cancel, CancelHandle, CancelReason, CancelStage};
pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints};
pub use clock::{Clock, SystemClock};
pub use context::{HostAliases, LearnedHostKeys, StepContext};
pub use error::{Class, StepError};
pub use executor::{Executor, Plan, Recovery, SpecFault, StepOutput};
pub use log::{Level, LogClosed, LogSink, Stream, UnitLog};
pub use probe::{NoProbe, TransportProbe};
pub use secret::{SecretError, SecretSource, SecretText};
pub use unit::Unit;
pub use variables::{ExportError, Exported, is_variable_name};

#[cfg(feature = "testing")]
pub mod testing;
