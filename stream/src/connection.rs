//! An upgraded connection, from the answer 101 to its end.

use crate::backend::Backend;
use crate::config::StreamConfig;
use crate::http::{Accepted, Socket, Transport};

/// Speaks the protocol that was agreed on until the session is over, or the client gone.
pub(crate) async fn run<B: Backend>(
    _config: &StreamConfig,
    _backend: &B,
    accepted: Accepted,
    _transport: Transport,
    _socket: Socket,
) {
    tracing::debug!(upgrade = ?accepted.upgrade, "a streaming session");
}
