//! Harness' own tasks: packages in JSON, answers in Kryo. The second dialect of DESIGN D2; ADR 0010.
//!
//! Nothing here performs I/O, reads a clock or draws a random number.

pub mod answer;
pub mod capability;
mod explain;
pub mod kryo;
mod package;
mod proven;
mod recording;
mod request;

pub use explain::explain;
pub use package::{Decoded, Refused, decode};
pub use proven::{PROOF, PROVEN};
pub use recording::{recorded_package, recorded_result};
pub use request::{EcsCommand, K8sTask, Kind, Request};
