//! The control plane.

pub mod app;
pub mod auth;
pub mod client_api;
pub mod clock;
pub mod delegate_api;
pub mod engine;
pub mod entities;
pub mod harness_api;
pub mod logstore;
mod perform;
pub mod policy;
pub mod preflight;
pub mod queue;
pub mod secrets;
pub mod server;
pub mod store;
pub mod triggers;
mod users;
