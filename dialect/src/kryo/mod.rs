//! Kryo 4.0.3 as the manager sets it up, as far as answers need it: a writer, and no reader.
//!
//! [`table`] says which classes there are, [`fields`] how a value stands in its place, [`writer`] which bytes that makes. Names
//! and ids come from the table alone, because a single unknown one makes the manager drop the whole message.

mod class;
mod document;
pub mod fields;
pub mod table;
mod writer;

pub use class::{Class, Declared, FieldInfo};
pub use document::document;
pub use fields::{Bytes, EnumSet, Never, Set, Texts, message};
pub use writer::Writer;

#[cfg(test)]
mod real_kryo_tests;
#[cfg(test)]
pub(crate) mod sample_tests;
#[cfg(test)]
mod tests;
