//! The ECS steps against the AWS peer (`tests/peers/aws`): real containers, real traffic, one region for all tests here.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod beforehand;
mod canary;
mod colours;
mod conformance;
mod crash;
mod denied;
mod emulated;
mod files;
mod green;
mod killed;
mod one_off;
mod peer;
mod peers;
mod phased;
mod prepared;
mod refusals;
mod rolling;
mod rules;
mod run_task;
mod scale;
#[path = "../scenario/mod.rs"]
mod scenario;
mod stage;
mod states;
/// What the servers in `peers` wait with.
mod wait {
    pub(crate) use executor_api::testing::{free_port, until};
}
