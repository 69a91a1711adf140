//! The one table of classes, ids and fields. Encoder, `docs/harness-answers.md` and the tests against the real Kryo are all
//! made from it; a name that does not stand here cannot be written. **Source**: facts `kryo-dialect.md` §4.
//!
//! A field that is not an `Option` here is one that the manager uses without asking whether it is there, or that makes no
//! sense without a value: leaving it out is impossible.

#[macro_use]
mod macros;

mod connectors;
mod ecs;
mod kubernetes;
mod shared;

pub use connectors::*;
pub use ecs::*;
pub use kubernetes::*;
pub use shared::*;

use super::class::Class;

/// Every class of the table in its order.
pub fn classes() -> impl Iterator<Item = &'static Class> {
    [shared::CLASSES, kubernetes::CLASSES, ecs::CLASSES, connectors::CLASSES].into_iter().flatten()
}

/// The interfaces of the table and what may stand in a place declared with them.
pub fn interfaces() -> impl Iterator<Item = &'static Interface> {
    [shared::INTERFACES, kubernetes::INTERFACES].into_iter().flatten()
}

/// An interface: a place declared with it takes an object of any of these classes.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Simple name.
    pub name: &'static str,
    /// The classes that we put there.
    pub classes: &'static [&'static Class],
}
