//! The ECS steps against the AWS peer (`tests/peers/aws`): real containers, real traffic, one region for all tests here.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod canary;
mod crash;
mod peer;
mod phased;
mod rolling;
mod scale;
