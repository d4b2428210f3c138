//! A connection's futures together.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::frame::GoAway;
use super::reader::Reader;
use super::state::{Phase, Shared};
use super::{NewStream, SpdyError, writer};
use crate::http::Socket;
use crate::idle::IdleClock;

/// After our last frame, the client has so long to close the connection. Closing it first, with something of the client's
/// unread, would make the kernel reset it (RFC 1122, section 4.2.2.13) and take from the client what it has not read yet.
const LINGER: Duration = Duration::from_secs(10);
/// A client that broke the protocol is told so if it listens.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Speaks SPDY until `handler` is done and all that it has said was sent, or until the connection ends, which drops
/// the handler. Returns why it ended early.
pub(crate) async fn serve<T, F>(
    transport: T,
    socket: &Socket,
    idle: &IdleClock,
    max_streams: usize,
    handler: impl FnOnce(mpsc::UnboundedReceiver<NewStream>) -> F,
) -> Result<(), SpdyError>
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let (shared, new_streams) = Shared::new(max_streams);
    let driving = drive(&shared, transport, socket, idle);
    tokio::pin!(driving);
    {
        let handler = handler(new_streams);
        tokio::pin!(handler);
        tokio::select! {
            result = &mut driving => return result,
            () = &mut handler => {}
        }
    }
    shared.close();
    driving.await
}

async fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    transport: T,
    socket: &Socket,
    idle: &IdleClock,
) -> Result<(), SpdyError> {
    let (source, sink) = tokio::io::split(transport);
    let mut reader = Reader::new(shared, source, socket, idle);
    let reading = reader.run();
    let writing = writer::run(shared, sink, idle);
    tokio::pin!(reading, writing);
    let error = tokio::select! {
        error = &mut reading => error,
        written = &mut writing => {
            written?;
            let _ = tokio::time::timeout(LINGER, &mut reading).await;
            return Ok(());
        }
        () = idle.expired() => SpdyError::Idle,
        never = timers(shared) => match never {},
    };
    if error.is_protocol() {
        shared.control(|state| {
            state.control.go_away(state.last_stream, GoAway::Protocol);
            state.phase = Phase::Closed;
        });
        let _ = tokio::time::timeout(LAST_WORDS, &mut writing).await;
    }
    Err(error)
}

/// Ends flow control's waits in time.
async fn timers(shared: &Shared) -> std::convert::Infallible {
    loop {
        let deadline = shared.lock().flow.deadline();
        let Some(deadline) = deadline else {
            shared.timers.notified().await;
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {
                shared.control(|state| {
                    state.flow.expire(Instant::now());
                    state.enqueue_all();
                });
            }
            () = shared.timers.notified() => {}
        }
    }
}
