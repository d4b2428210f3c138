//! The macros that declare what travels.
//!
//! A field or variant that a later version has added says so: `[since 2] field: Type`, `9 [since 2] => Variant`. One
//! that only some builds have has a `#[cfg]`.

/// Declares a struct whose encoding is its fields in order.
#[macro_export]
macro_rules! wire_struct {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $([since $since:literal])? $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type),* }
        #[allow(unused_doc_comments)]
        impl $crate::wire::Wire for $name {
            #[allow(unused_variables)]
            fn put(&self, out: &mut $crate::wire::Writer) {
                $($(#[$field_meta])* { $crate::wire_put!(out, $name.$field, &self.$field $(, $since)?); })*
            }
            #[allow(unused_variables)]
            fn get(from: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::wire::DecodeError> {
                Ok(Self { $($(#[$field_meta])* $field: $crate::wire_get!(from $(, $since)?)),* })
            }
            fn describe(schema: &mut $crate::wire::Schema) -> String {
                if !schema.begin(stringify!($name)) {
                    $($(#[$field_meta])* {
                        let kind = <$type as $crate::wire::Wire>::describe(schema);
                        let since = $crate::wire_since!($($since)?);
                        schema.add(stringify!($name), since, format!("{}: {kind}", stringify!($field)));
                    })*
                }
                stringify!($name).to_owned()
            }
        }
    };
}

/// Declares an enum whose encoding is a tag byte and the variant's fields in order. Tags are never given twice.
#[macro_export]
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $tag:literal $([since $since:literal])? => $variant:ident
        $({ $($(#[$field_meta:meta])* $([since $field_since:literal])? $field:ident: $type:ty),* $(,)? })?),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant $({ $($(#[$field_meta])* $field: $type),* })?),* }
        #[allow(unused_doc_comments)]
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut $crate::wire::Writer) {
                match self {
                    $($(#[$variant_meta])* Self::$variant $({ $($(#[$field_meta])* $field),* })? => {
                        out.put_tag($tag, $crate::wire_since!($($since)?), concat!(stringify!($name), "::", stringify!($variant)));
                        $($($(#[$field_meta])* { $crate::wire_put!(out, $variant.$field, $field $(, $field_since)?); })*)?
                    })*
                }
            }
            fn get(from: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::wire::DecodeError> {
                match <u8 as $crate::wire::Wire>::get(from)? {
                    $($(#[$variant_meta])* $tag if from.has($crate::wire_since!($($since)?)) => {
                        Ok(Self::$variant $({ $($(#[$field_meta])* $field: $crate::wire_get!(from $(, $field_since)?)),* })?)
                    })*
                    tag => Err($crate::wire::DecodeError::UnknownTag(stringify!($name), tag)),
                }
            }
            fn describe(schema: &mut $crate::wire::Schema) -> String {
                if !schema.begin(stringify!($name)) {
                    $($(#[$variant_meta])* {
                        let since = $crate::wire_since!($($since)?);
                        schema.add(stringify!($name), since, format!("{} {}", $tag, stringify!($variant)));
                        $($($(#[$field_meta])* {
                            let kind = <$type as $crate::wire::Wire>::describe(schema);
                            let since = since.max($crate::wire_since!($($field_since)?));
                            schema.add(stringify!($name), since, format!("    {}: {kind}", stringify!($field)));
                        })*)?
                    })*
                }
                stringify!($name).to_owned()
            }
        }
    };
}

/// The version that a field or variant is there since: the first, unless it says another.
#[doc(hidden)]
#[macro_export]
macro_rules! wire_since {
    () => {
        1
    };
    ($since:literal) => {
        $since
    };
}

/// Puts a field.
#[doc(hidden)]
#[macro_export]
macro_rules! wire_put {
    ($out:ident, $of:ident.$field:ident, $value:expr) => {
        $crate::wire::Wire::put($value, $out)
    };
    ($out:ident, $of:ident.$field:ident, $value:expr, $since:literal) => {
        $out.put_since(
            $since,
            concat!(stringify!($of), ".", stringify!($field)),
            $value,
        )
    };
}

/// Gets a field.
#[doc(hidden)]
#[macro_export]
macro_rules! wire_get {
    ($from:ident) => {
        $crate::wire::Wire::get($from)?
    };
    ($from:ident, $since:literal) => {
        $from.get_since($since)?
    };
}
