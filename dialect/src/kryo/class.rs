//! What a class of the manager looks like on the wire.

/// One class or enum of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Simple name: packages never appear on the wire.
    pub name: &'static str,
    /// Registration id.
    pub id: u32,
    /// Whether the class is final: then a place declared with it needs no id.
    pub last: bool,
    /// Fields in the order of the wire, which is that of their names.
    pub fields: &'static [FieldInfo],
    /// Names, if it is an enum.
    pub names: &'static [&'static str],
}

/// One field of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldInfo {
    /// `Class.field`.
    pub name: &'static str,
    /// What Java declares it as.
    pub declared: Declared,
    /// Whether this encoder ever leaves it `null`.
    pub optional: bool,
    /// Whether this encoder ever fills it.
    pub written: bool,
}

/// What Java declares a field as; it decides what stands before the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// A primitive, a boxed number, `String` or an array: the value alone, or a null byte and the value.
    Plain(&'static str),
    /// An enum: a null byte and the name.
    Enum(&'static str),
    /// A final class: a null byte and the object.
    Final(&'static str),
    /// An interface, a container or a class that is not final: the class id and the object.
    Open(&'static str),
}

impl std::fmt::Display for Declared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Declared::Plain(name) => f.write_str(name),
            Declared::Enum(name) => write!(f, "enum {name}"),
            Declared::Final(name) => write!(f, "final {name}"),
            Declared::Open(name) => write!(f, "open {name}"),
        }
    }
}
