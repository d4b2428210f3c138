//! SPDY/3.1, the server's side: many streams over one connection.
//!
//! Two futures of the connection's task share a [`state`]: one reads and handles frames ([`reader`]), one writes what streams
//! and the state have to say ([`writer`]). [`serve`] runs both beside the handler of new streams.

mod dictionary;
mod driver;
mod flow;
mod frame;
mod headers;
mod reader;
mod state;
mod stream;
mod writer;

use std::io;

pub(crate) use driver::serve;
#[cfg(test)]
pub(crate) use headers::tests::ClientEncoder;
pub(crate) use headers::{HeaderError, Headers};
pub(crate) use stream::{NewStream, Stream};

/// Why a connection ended before its handler had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpdyError {
    #[error("the client has closed the connection")]
    Closed,
    #[error("nothing went over the connection for the idle timeout")]
    Idle,
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("a frame of SPDY version {0}; this is version 3")]
    Version(u16),
    #[error("a control frame of type {kind} is too short")]
    Truncated { kind: u16 },
    #[error(
        "a control frame has {length} bytes; at most {} are taken",
        frame::MAX_CONTROL
    )]
    TooLong { length: usize },
    #[error("a frame is for stream 0, which is none")]
    StreamZero,
    #[error("the connection's window was made larger than may be")]
    Window,
    #[error("a stream's headers cannot be read")]
    Headers(#[from] HeaderError),
}

impl SpdyError {
    /// Whether the client is to be told that it broke the protocol.
    fn is_protocol(&self) -> bool {
        !matches!(self, Self::Closed | Self::Idle | Self::Io(_))
    }
}
