//! Wire types of the delegate REST protocol and the log service, delegate tokens, ids and limits. No I/O.
//!
//! Two borders meet here. [`task`], [`result`] and [`ext`] hold our own dialect: the typed document that a task
//! carries in `data` (DESIGN D2) and the answer to it. The other modules restate the Harness wire, field by field,
//! with the tolerance that its clients need (`DelegateParams`, task events, the JSON acquire package, log lines).
//!
//! Nothing here performs I/O, reads a clock or draws a random number: callers pass those in.

pub mod failure;
pub mod result;
pub mod task;
pub mod text;
