//! Servers that the end-to-end tests use as well.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "Each user takes a part of them.")]

#[path = "../../../../tests/src/peers/owned.rs"]
pub mod owned;
#[path = "../../../../tests/src/peers/web.rs"]
pub mod web;
