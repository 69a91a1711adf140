//! Pipeline YAML: model, tolerance rules, planner and execution state machine. Pure: no I/O, no clock (DESIGN D12).
//!
//! The path of a pipeline through this crate:
//!
//! ```text
//! text --yaml--> document tree with positions --model--> typed pipeline + faults
//!      --rules (R1..R25, each a notice)--> --planner + entities--> Plan (frozen, serialisable)
//! Plan + Event --machine::apply--> State + Actions          (the same live and in replay)
//! State --view--> the JSON that `run` and `show` print
//! ```

pub mod machine;
