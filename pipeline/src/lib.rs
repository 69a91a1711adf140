//! Pipeline YAML model, tolerance rules, planner and execution state machine. Pure: no I/O, no clock, no randomness.
//!
//! ```text
//! text --yaml--> tree --model, rules--> types --planner (+ Catalog, inputs)--> Plan --machine--> State, Actions --view--> document
//! ```

pub mod fault;
pub mod machine;
pub mod model;
pub mod rules;
pub mod yaml;
