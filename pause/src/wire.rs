//! The codec of protocol messages and launch plans: little-endian numbers, length-prefixed bytes and lists.
//!
//! Decoding never trusts a length: a list or byte string longer than what is left of its message is an error, so a
//! broken or hostile peer costs no more memory than the message that it sent.

use core::fmt;

/// Why a message could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The message ended inside a value.
    Truncated,
    /// A tag that this version does not know, with the type it should have selected.
    UnknownTag(&'static str, u8),
    /// Bytes were left over behind the last value.
    TrailingBytes(usize),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the message ends inside a value"),
            Self::UnknownTag(of, tag) => write!(f, "unknown tag {tag} for {of}"),
            Self::TrailingBytes(count) => write!(f, "{count} bytes behind the last value"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// What is left of a message that is being decoded.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }
}

/// A value that travels between daemon and pause.
pub trait Wire: Sized {
    /// Appends the value's encoding to `out`.
    fn put(&self, out: &mut Vec<u8>);
    /// Decodes the next value of `from`.
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The value as a message of its own.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.put(&mut out);
        out
    }

    /// Decodes a message that holds this value and nothing else.
    fn from_bytes(message: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        let value = Self::get(&mut reader)?;
        match reader.rest.len() {
            0 => Ok(value),
            count => Err(DecodeError::TrailingBytes(count)),
        }
    }
}

macro_rules! wire_numbers {
    ($($number:ty),*) => {$(
        impl Wire for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let bytes = from.take(size_of::<$number>())?;
                let mut fixed = [0; size_of::<$number>()];
                fixed.copy_from_slice(bytes);
                Ok(<$number>::from_le_bytes(fixed))
            }
        }
    )*};
}
wire_numbers!(u8, u16, u32, u64, i32, i64);

/// A byte string: paths, arguments and file contents need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Bytes(pub Vec<u8>);

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<&std::path::Path> for Bytes {
    fn from(path: &std::path::Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl Wire for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.0.len(), out);
        out.extend_from_slice(&self.0);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = u32::get(from)? as usize;
        Ok(Self(from.take(length)?.to_vec()))
    }
}

/// Lengths are 32-bit: a message is bounded far below that (see [`crate::protocol::MAX_PLAN`]), so that a longer
/// value saturates here and fails to decode instead of wrapping.
fn put_length(length: usize, out: &mut Vec<u8>) {
    u32::try_from(length).unwrap_or(u32::MAX).put(out);
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        self.iter().for_each(|item| item.put(out));
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = u32::get(from)? as usize;
        // Every item takes a byte at least, so a length past the rest is a lie and must not reserve memory.
        if length > from.rest.len() {
            return Err(DecodeError::Truncated);
        }
        (0..length).map(|_| T::get(from)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.put(out);
            }
        }
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(from)? {
            0 => Ok(None),
            1 => T::get(from).map(Some),
            tag => Err(DecodeError::UnknownTag("Option", tag)),
        }
    }
}

/// Declares a struct whose encoding is its fields in order.
#[macro_export]
macro_rules! wire_struct {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type),* }
        impl $crate::wire::Wire for $name {
            #[allow(unused_variables)]
            fn put(&self, out: &mut Vec<u8>) { $($crate::wire::Wire::put(&self.$field, out);)* }
            #[allow(unused_variables)]
            fn get(from: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::wire::DecodeError> {
                Ok(Self { $($field: $crate::wire::Wire::get(from)?),* })
            }
        }
    };
}

/// Declares an enum whose encoding is a tag byte and the variant's fields in order. Tags are never given twice.
#[macro_export]
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $tag:literal => $variant:ident $({ $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? })?),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant $({ $($(#[$field_meta])* $field: $type),* })?),* }
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $({ $($field),* })? => { out.push($tag); $($($crate::wire::Wire::put($field, out);)*)? })*
                }
            }
            fn get(from: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::wire::DecodeError> {
                match <u8 as $crate::wire::Wire>::get(from)? {
                    $($tag => Ok(Self::$variant $({ $($field: $crate::wire::Wire::get(from)?),* })?),)*
                    tag => Err($crate::wire::DecodeError::UnknownTag(stringify!($name), tag)),
                }
            }
        }
    };
}
