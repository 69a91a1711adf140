//! The secrets of one task on the agent, and the masker that keeps them out of everything that is shown.
//!
//! [`TaskSecrets`] is the `SecretSource` that executors see. [`Masker`] knows every value that was handed out and
//! replaces it, in any of its usual spellings, by [`MASK`]: in log streams through [`StreamMasker`], which is safe
//! across chunk borders, and in outputs and error texts through [`Masker::mask_str`] and [`Masker::mask_json`]. A [`Cover`]
//! around the context of one step does so for everything that its executor writes.
//!
//! Nothing here performs I/O. Undo data and checkpoints are never masked (settled facts §1.8): they are sealed instead.

mod cover;
mod masker;
mod stream;
mod task;
mod variants;

pub use cover::{Cover, Notes, Recorder};
pub use masker::Masker;
pub use stream::StreamMasker;
pub use task::TaskSecrets;

/// What stands in the place of a secret. **Source**: protocol.md §9.5.
pub const MASK: &str = "**************";

/// Shorter values are not masked: they would blank out ordinary text. Counted in characters.
/// **Source**: settled facts §1.8.
pub const MIN_CHARS: usize = 3;

#[cfg(test)]
mod tests;
