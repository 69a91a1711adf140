//! How each type of the table stands in a field and in a list.

use super::class::{Class, Declared};
use super::writer::Writer;
use std::collections::BTreeMap;

/// Ids of the JDK's own classes.
mod jdk {
    pub(super) const STRING: u32 = 1;
    pub(super) const ENUM_SET: u32 = 25;
    pub(super) const ARRAY_LIST: u32 = 35;
    pub(super) const HASH_MAP: u32 = 36;
    pub(super) const HASH_SET: u32 = 49;
}

/// A value that can stand in a field.
pub trait Field {
    /// What Java declares the field as.
    const DECLARED: Declared;
    /// Whether it may be `null`.
    const OPTIONAL: bool = false;
    /// Whether it may be anything else.
    const WRITTEN: bool = true;
    /// Writes it.
    fn put(&self, writer: &mut Writer);
}

/// A field that may be `null`.
pub trait Reference: Field {
    /// Writes `null`.
    fn put_null(writer: &mut Writer) {
        writer.byte(0);
    }
}

/// A value that can stand in a list.
pub trait Element {
    /// Writes its class and itself.
    fn put_element(&self, writer: &mut Writer);
}

/// An object of a class of the table.
pub trait Record {
    /// The class.
    const CLASS: Class;
    /// Writes header and fields, without the id of the class.
    fn put_object(&self, writer: &mut Writer);

    /// Writes the object where its place is declared with its class.
    fn put_declared(&self, writer: &mut Writer) {
        match Self::CLASS.last {
            true => writer.byte(1),
            false => writer.class(Self::CLASS.id),
        }
        self.put_object(writer);
    }
}

/// An enum of the table.
pub trait Name: Copy {
    /// The enum.
    const CLASS: Class;
    /// Its name on the wire.
    fn name(self) -> &'static str;
}

/// A message with one object in it.
pub fn message(root: &impl Element) -> Vec<u8> {
    let mut writer = Writer::default();
    root.put_element(&mut writer);
    writer.finish()
}

impl<T: Reference> Field for Option<T> {
    const DECLARED: Declared = T::DECLARED;
    const OPTIONAL: bool = true;

    fn put(&self, writer: &mut Writer) {
        match self {
            Some(value) => value.put(writer),
            None => T::put_null(writer),
        }
    }
}

impl Field for String {
    const DECLARED: Declared = Declared::Plain("String");

    fn put(&self, writer: &mut Writer) {
        writer.text(self);
    }
}

impl Reference for String {
    fn put_null(writer: &mut Writer) {
        writer.null_text();
    }
}

impl Element for String {
    fn put_element(&self, writer: &mut Writer) {
        writer.class(jdk::STRING);
        writer.text(self);
    }
}

impl Field for bool {
    const DECLARED: Declared = Declared::Plain("boolean");

    fn put(&self, writer: &mut Writer) {
        writer.byte(u8::from(*self));
    }
}

impl Field for i32 {
    const DECLARED: Declared = Declared::Plain("int");

    fn put(&self, writer: &mut Writer) {
        writer.int(*self);
    }
}

impl Field for i64 {
    const DECLARED: Declared = Declared::Plain("long");

    fn put(&self, writer: &mut Writer) {
        writer.long(*self);
    }
}

macro_rules! boxed {
    ($($inner:ty: $name:literal),*) => {$(
        impl Field for Option<$inner> {
            const DECLARED: Declared = Declared::Plain($name);
            const OPTIONAL: bool = true;

            fn put(&self, writer: &mut Writer) {
                match self {
                    Some(value) => {
                        writer.byte(1);
                        value.put(writer);
                    }
                    None => writer.byte(0),
                }
            }
        }
    )*};
}

boxed!(bool: "Boolean", i32: "Integer", i64: "Long");

/// `byte[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Field for Bytes {
    const DECLARED: Declared = Declared::Plain("byte[]");

    fn put(&self, writer: &mut Writer) {
        writer.size(self.0.len() + 1);
        writer.bytes(&self.0);
    }
}

impl Reference for Bytes {}

/// A type that only occurs as `null`: this encoder has no way to write a value of it.
pub trait Unwritten {
    /// What Java declares the field as.
    const DECLARED: Declared;
}

/// A field that is always `null`.
#[derive(Debug)]
pub struct Never<T>(std::marker::PhantomData<T>);

impl<T> Default for Never<T> {
    fn default() -> Self {
        Never(std::marker::PhantomData)
    }
}

impl<T: Unwritten> Field for Never<T> {
    const DECLARED: Declared = T::DECLARED;
    const OPTIONAL: bool = true;
    const WRITTEN: bool = false;

    fn put(&self, writer: &mut Writer) {
        writer.byte(0);
    }
}

fn elements<T: Element>(all: &[T], writer: &mut Writer) {
    writer.size(all.len());
    for one in all {
        one.put_element(writer);
    }
}

impl<T: Element> Field for Vec<T> {
    const DECLARED: Declared = Declared::Open("List");

    fn put(&self, writer: &mut Writer) {
        writer.class(jdk::ARRAY_LIST);
        elements(self, writer);
    }
}

impl<T: Element> Reference for Vec<T> {}

/// A `Set`; whoever fills it sees to it that nothing stands in it twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set<T>(pub Vec<T>);

impl<T: Element> Field for Set<T> {
    const DECLARED: Declared = Declared::Open("Set");

    fn put(&self, writer: &mut Writer) {
        writer.class(jdk::HASH_SET);
        elements(&self.0, writer);
    }
}

impl<T: Element> Reference for Set<T> {}

/// Texts by text.
pub type Texts = BTreeMap<String, String>;

impl Field for Texts {
    const DECLARED: Declared = Declared::Open("Map");

    fn put(&self, writer: &mut Writer) {
        writer.class(jdk::HASH_MAP);
        writer.size(self.len());
        for (key, value) in self {
            key.put_element(writer);
            value.put_element(writer);
        }
    }
}

impl Reference for Texts {}

/// An `EnumSet`, in the order of the enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnumSet<E>(pub Vec<E>);

impl<E: Name> Field for EnumSet<E> {
    const DECLARED: Declared = Declared::Open("EnumSet");

    fn put(&self, writer: &mut Writer) {
        writer.class(jdk::ENUM_SET);
        writer.class(E::CLASS.id);
        writer.size(self.0.len());
        for one in &self.0 {
            writer.text(one.name());
        }
    }
}
