//! What the end-to-end tests stand on: the product's own processes ([`world`]) and the real systems around them
//! ([`peers`]).

#![expect(clippy::indexing_slicing, reason = "This crate is test code; a panic is its way to fail.")]

pub mod peers;
pub mod recorder;
pub mod wait;
pub mod world;
