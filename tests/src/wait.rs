//! Waiting for a condition with a limit, and free ports.

pub use executor_api::testing::{free_port, until};
