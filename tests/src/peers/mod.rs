//! Real systems, each started by the test that needs it and ended by its own process id.

pub mod sshd;
pub mod vm;
