//! The control plane.

pub mod app;
pub mod auth;
pub mod clock;
pub mod delegate_api;
pub mod logstore;
pub mod queue;
pub mod secrets;
pub mod server;
pub mod store;
