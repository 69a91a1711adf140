//! Native strategies against a double of ECS with a virtual clock (`tests/src/peers/ecs_double`): no emulator has them. What these
//! tests prove is how a step reads and answers the documents that AWS describes, and nothing about AWS itself.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "Tests may panic and print."
)]

mod gates;
mod killed;
mod plain;
#[path = "../scenario/mod.rs"]
mod scenario;
mod town;
mod undone;
