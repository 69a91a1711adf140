//! ECS steps.
//!
//! AWS is spoken to in documents through the crate `aws`; its faults become a [`StepError`] once, there or in `error`.
//!
//! ```text
//! spec ─documents─► task definition ─settle─► service ─compare─► [checkpoint ─► change]* ─► steady state ─► outcome
//!                                    scaling: suspend ◄──────────────────────────────────► resume
//! ```

#![allow(dead_code)]

mod config;
mod error;
mod memory;

pub use config::Settings;
