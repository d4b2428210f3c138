//! The bounded queues between a connection's driver and the backend: one for each direction of each stream.
//!
//! ```text
//! socket → driver ─ Feed │ Incoming → backend
//! socket ← driver ← Drain │ Outgoing ─ backend
//! ```
//!
//! Chunks are passed on without copying where they are big enough to be worth it. The driver is woken through the
//! connection's [`Doorbell`], which says which streams have something to do.

mod doorbell;
mod incoming;
mod outgoing;
mod queue;

pub(crate) use doorbell::{Bell, Doorbell};
pub use incoming::Incoming;
pub(crate) use incoming::{Feed, incoming};
pub use outgoing::Outgoing;
pub(crate) use outgoing::{Drain, Level, outgoing};

/// What one direction of one stream holds before its writer has to wait.
pub(crate) const CAPACITY: usize = 256 * 1024;

/// The most that is handed on in one piece.
pub(crate) const CHUNK: usize = 64 * 1024;

#[cfg(test)]
mod tests;
