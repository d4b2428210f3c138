//! The codec of protocol messages and launch plans: little-endian numbers, length-prefixed bytes and lists.
//!
//! Decoding never trusts a length: a list or byte string longer than what is left of its message is an error, so a
//! broken or hostile peer costs no more memory than the message that it sent.
//!
//! # Versions
//! A message is written and read in a [`Version`]. What says `[since N]` is not in the messages of earlier ones: a field is
//! left out, and read as its default; a variant does not exist.

mod macros;
mod schema;

use crate::version::Version;
use core::fmt;

pub use schema::Schema;

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

/// What the peer's version has no word for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newer {
    /// The field or variant, with its type.
    pub what: &'static str,
    /// The first version that has it.
    pub since: Version,
}

/// A message that is being encoded in a version.
pub struct Writer {
    bytes: Vec<u8>,
    version: Version,
    left_out: Option<Newer>,
    unspeakable: Option<Newer>,
}

impl Writer {
    fn new(version: Version) -> Self {
        Self {
            bytes: Vec::with_capacity(256),
            version,
            left_out: None,
            unspeakable: None,
        }
    }

    /// Puts a field that there is since a version. An earlier one does not have it: its default is what not saying it
    /// means, any other value is left out.
    pub fn put_since<T: Wire + Default + PartialEq>(
        &mut self,
        since: u16,
        what: &'static str,
        value: &T,
    ) {
        let since = Version(since);
        if self.version >= since {
            value.put(self);
        } else if *value != T::default() {
            self.left_out.get_or_insert(Newer { what, since });
        }
    }

    /// Puts the tag of a variant that there is since a version. An earlier one does not have it, nor any message with it.
    pub fn put_tag(&mut self, tag: u8, since: u16, what: &'static str) {
        let since = Version(since);
        if self.version < since {
            self.unspeakable.get_or_insert(Newer { what, since });
        }
        self.bytes.push(tag);
    }
}

/// What is left of a message that is being decoded.
pub struct Reader<'a> {
    rest: &'a [u8],
    version: Version,
}

impl<'a> Reader<'a> {
    /// Reads from the start of a message in this version.
    pub fn new(message: &'a [u8], version: Version) -> Self {
        Self {
            rest: message,
            version,
        }
    }

    /// Whether what there is since a version can be in the message.
    pub fn has(&self, since: u16) -> bool {
        self.version >= Version(since)
    }

    /// A field that there is since a version.
    pub fn get_since<T: Wire + Default>(&mut self, since: u16) -> Result<T, DecodeError> {
        if self.has(since) {
            T::get(self)
        } else {
            Ok(T::default())
        }
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
    fn put(&self, out: &mut Writer);
    /// Decodes the next value of `from`.
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError>;
    /// Tells the encoding's layout: the type's name, and what it is made of to `schema`.
    fn describe(schema: &mut Schema) -> String;

    /// The value as a message of its own, between two that know the same: [`Version::NEWEST`].
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new(Version::NEWEST);
        self.put(&mut out);
        out.bytes
    }

    /// The value as a message to a peer that speaks `version`: all of it, or an error that says what cannot be said.
    fn to_bytes_of(&self, version: Version) -> Result<Vec<u8>, Newer> {
        let mut out = Writer::new(version);
        self.put(&mut out);
        match out.unspeakable.or(out.left_out) {
            None => Ok(out.bytes),
            Some(newer) => Err(newer),
        }
    }

    /// As [`Self::to_bytes_of`], without the fields that the peer does not know.
    fn to_known_bytes_of(&self, version: Version) -> Result<Vec<u8>, Newer> {
        let mut out = Writer::new(version);
        self.put(&mut out);
        out.unspeakable.map_or(Ok(out.bytes), Err)
    }

    /// What [`Self::to_bytes`] gave.
    fn from_bytes(message: &[u8]) -> Result<Self, DecodeError> {
        Self::from_bytes_of(message, Version::NEWEST)
    }

    /// Decodes a message of a version that holds this value and nothing else.
    fn from_bytes_of(message: &[u8], version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message, version);
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
            fn put(&self, out: &mut Writer) {
                out.bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn describe(_: &mut Schema) -> String {
                stringify!($number).to_owned()
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
    fn put(&self, out: &mut Writer) {
        put_length(self.0.len(), out);
        out.bytes.extend_from_slice(&self.0);
    }
    fn describe(_: &mut Schema) -> String {
        "bytes".to_owned()
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = u32::get(from)? as usize;
        Ok(Self(from.take(length)?.to_vec()))
    }
}

/// Lengths are 32-bit: a message is bounded far below that (see [`crate::protocol::MAX_PLAN`]), so that a longer
/// value saturates here and fails to decode instead of wrapping.
fn put_length(length: usize, out: &mut Writer) {
    u32::try_from(length).unwrap_or(u32::MAX).put(out);
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Writer) {
        put_length(self.len(), out);
        self.iter().for_each(|item| item.put(out));
    }
    fn describe(schema: &mut Schema) -> String {
        format!("list of {}", T::describe(schema))
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
    fn put(&self, out: &mut Writer) {
        match self {
            None => out.bytes.push(0),
            Some(value) => {
                out.bytes.push(1);
                value.put(out);
            }
        }
    }
    fn describe(schema: &mut Schema) -> String {
        format!("optional {}", T::describe(schema))
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(from)? {
            0 => Ok(None),
            1 => T::get(from).map(Some),
            tag => Err(DecodeError::UnknownTag("Option", tag)),
        }
    }
}
