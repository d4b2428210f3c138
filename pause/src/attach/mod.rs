//! Attached clients: a container's output on its way to them, besides its log.
//!
//! Whatever a stream gives to its log goes to the clients that are attached to the stream as well. What a client does not
//! take at once waits in a backlog, and while there is one, nothing more is read from the stream: the container is held
//! back, no memory filled. A client that takes nothing for [`STALLED`] is dropped, so that nobody's terminal that is
//! forgotten in scroll mode stops a container for good.

mod backlog;
mod fanout;
mod sink;

pub(crate) use fanout::Fanout;
pub(crate) use sink::{Client, Sink};

/// How long a client may take nothing while something waits for it, in nanoseconds.
pub(crate) const STALLED: i64 = 5_000_000_000;

/// The most clients that are attached to one container at a time.
pub(crate) const MAX_CLIENTS: usize = 16;
