//! Pipeline YAML model, tolerance rules, planner and execution state machine. Pure: no I/O, no clock, no randomness.
//!
//! ```text
//! text --yaml--> tree --model, rules--> types --planner (+ Catalog, inputs)--> Plan --machine--> State, Actions --view--> document
//! ```

pub mod connection;
pub mod entities;
pub mod fault;
pub mod groups;
pub mod input_sets;
pub mod machine;
pub mod model;
pub mod plan;
pub mod planner;
pub mod rules;
mod scope;
pub mod template;
pub mod trigger;
pub mod view;
pub mod yaml;

pub use fault::{Fault, Mode, Notice};
pub use plan::Plan;
