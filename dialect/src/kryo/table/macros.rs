//! The words in which the table is written.

/// Whether the word before a class is `final`.
macro_rules! is_final {
    (final) => {
        true
    };
    (open) => {
        false
    };
}

/// Declares classes and the list of them:
/// `final Name = id { javaField rust_field: Type, … }`.
macro_rules! classes {
    ($($(#[$doc:meta])* $kind:ident $class:ident = $id:literal {
        $($(#[$note:meta])* $java:ident $field:ident: $type:ty,)*
    })*) => {
        /// The classes of this part, in their order.
        pub(super) const CLASSES: &[Class] = &[$($class::CLASS),*];

        $(
            $(#[$doc])*
            #[derive(Debug)]
            #[allow(missing_docs, reason = "The names are Harness' own; a class may have no fields.")]
            pub struct $class {
                $($(#[$note])* pub $field: $type,)*
            }

            impl Record for $class {
                const CLASS: Class = Class {
                    name: stringify!($class),
                    id: $id,
                    last: is_final!($kind),
                    fields: &[$(FieldInfo {
                        name: concat!(stringify!($class), ".", stringify!($java)),
                        declared: <$type as Field>::DECLARED,
                        optional: <$type as Field>::OPTIONAL,
                        written: <$type as Field>::WRITTEN,
                    }),*],
                    names: &[],
                };

                fn put_object(&self, writer: &mut Writer) {
                    const CLASS: Class = $class::CLASS;
                    writer.open(&CLASS);
                    $(
                        self.$field.put(writer);
                        writer.end_field();
                    )*
                    writer.close();
                }
            }

            impl Field for $class {
                const DECLARED: Declared = match is_final!($kind) {
                    true => Declared::Final(stringify!($class)),
                    false => Declared::Open(stringify!($class)),
                };

                fn put(&self, writer: &mut Writer) {
                    self.put_declared(writer);
                }
            }

            impl Reference for $class {}

            impl Element for $class {
                fn put_element(&self, writer: &mut Writer) {
                    writer.class($id);
                    self.put_object(writer);
                }
            }

            #[cfg(test)]
            impl crate::kryo::sample_tests::Sample for $class {
                #[allow(unused_variables, reason = "A class may have no fields.")]
                fn sample(random: &mut crate::kryo::sample_tests::Random) -> Self {
                    $class { $($field: <$type as crate::kryo::sample_tests::Sample>::sample(random),)* }
                }

                fn shown(&self, out: &mut String) {
                    out.push_str(concat!(stringify!($class), "("));
                    $(
                        out.push_str(concat!(stringify!($class), ".", stringify!($java), "="));
                        crate::kryo::sample_tests::Sample::shown(&self.$field, out);
                    )*
                    out.push(')');
                }
            }
        )*
    };
}

/// Declares an enum: `Name = id { Variant "NAME", … }`.
macro_rules! names {
    ($(#[$doc:meta])* $class:ident = $id:literal { $($variant:ident $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "The names are Harness' own.")]
        pub enum $class { $($variant,)* }

        impl Name for $class {
            const CLASS: Class =
                Class { name: stringify!($class), id: $id, last: true, fields: &[], names: &[$($name),*] };

            fn name(self) -> &'static str {
                match self { $($class::$variant => $name,)* }
            }
        }

        impl Field for $class {
            const DECLARED: Declared = Declared::Enum(stringify!($class));

            fn put(&self, writer: &mut Writer) {
                writer.byte(1);
                writer.text(self.name());
            }
        }

        impl Reference for $class {}

        #[cfg(test)]
        impl crate::kryo::sample_tests::Sample for $class {
            fn sample(random: &mut crate::kryo::sample_tests::Random) -> Self {
                random.one_of(&[$($class::$variant),*])
            }

            fn shown(&self, out: &mut String) {
                out.push_str(stringify!($class));
                out.push('.');
                out.push_str(self.name());
                out.push(';');
            }
        }
    };
}

/// Declares an interface and the classes of ours that implement it.
macro_rules! interface {
    ($(#[$doc:meta])* $rust:ident = $name:literal { $($variant:ident($class:ident),)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[expect(missing_docs, reason = "The names are Harness' own.")]
        #[allow(clippy::large_enum_variant, reason = "One is made for each answer, and gone with it.")]
        pub enum $rust { $($variant($class),)* }

        impl $rust {
            /// The classes that may stand there.
            pub(super) const INTERFACE: super::Interface =
                super::Interface { name: $name, classes: &[$(&$class::CLASS),*] };
        }

        impl Field for $rust {
            const DECLARED: Declared = Declared::Open($name);

            fn put(&self, writer: &mut Writer) {
                match self { $($rust::$variant(object) => object.put_element(writer),)* }
            }
        }

        impl Reference for $rust {}

        $(impl From<$class> for $rust {
            fn from(object: $class) -> Self {
                $rust::$variant(object)
            }
        })*

        #[cfg(test)]
        impl crate::kryo::sample_tests::Sample for $rust {
            fn sample(random: &mut crate::kryo::sample_tests::Random) -> Self {
                let all: &[fn(&mut crate::kryo::sample_tests::Random) -> $rust] =
                    &[$(|random| $rust::$variant(crate::kryo::sample_tests::Sample::sample(random))),*];
                random.one_of(all)(random)
            }

            fn shown(&self, out: &mut String) {
                match self { $($rust::$variant(object) => crate::kryo::sample_tests::Sample::shown(object, out),)* }
            }
        }
    };
}

/// Declares a type that only ever stands as `null`.
macro_rules! unwritten {
    ($($(#[$doc:meta])* $class:ident = $declared:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $class {}

        impl Unwritten for $class {
            const DECLARED: Declared = $declared;
        }
    )*};
}
