//! The interface against plugins of all kinds, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile;
mod order;
mod peer;
