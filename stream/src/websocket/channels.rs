//! Kubernetes' channels: a fixed number of streams, told apart by the first byte of each message.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt as _, Sink, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::message::{CloseSignal, Encoding, MessageError, Said};
use crate::http::Socket;
use crate::idle::IdleClock;
use crate::pipe::{
    Bell, CHUNK, Doorbell, Drain, Feed, Incoming, Level, Outgoing, incoming, outgoing,
};

/// How often a sign of life is sent.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How often while the backend has no room, and so nothing is read, not even PINGs: a PONG that nobody asked for (RFC 6455,
/// section 5.5.3). Kubernetes' clients give a server up that sends none for a minute. When the client is gone, its FIN may
/// be stuck behind data that has no room here; its kernel answers whatever comes after close(2) with a reset, which is noticed.
const STALLED: Duration = Duration::from_secs(2);

/// After our last frame, the client has so long to close the connection. Closing it first, with something of the client's
/// unread, would make the kernel reset it (RFC 1122, section 4.2.2.13) and take from the client what it has not read yet.
const LINGER: Duration = Duration::from_secs(10);
/// A client that broke the protocol is told so if it listens.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a connection ended before its handler had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebSocketError {
    #[error("the client has closed the connection")]
    Closed,
    #[error("nothing went over the connection for the idle timeout")]
    Idle,
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the client does not speak WebSocket as it should")]
    Protocol(#[source] Box<Error>),
    #[error("the client does not speak the channels' protocol")]
    Message(#[from] MessageError),
}

impl From<Error> for WebSocketError {
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => Self::Closed,
            Error::Io(error) => Self::Io(error),
            error => Self::Protocol(Box::new(error)),
        }
    }
}

/// How channels are spoken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channels {
    pub(crate) count: u8,
    pub(crate) encoding: Encoding,
    pub(crate) close: CloseSignal,
    /// The channel that an empty message is sent on at once, by which clients know that the session is there.
    pub(crate) greets: Option<u8>,
}

/// A channel, in both directions. The one that is not used is dropped.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
}

/// What is said when all other channels have said all.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) channel: u8,
    pub(crate) data: Bytes,
}

/// The driver's ends of a channel.
#[derive(Debug)]
struct Ends {
    feed: Feed,
    drain: Drain,
    bell: Bell,
}

#[derive(Debug)]
struct Shared {
    channels: Channels,
    ends: Vec<Ends>,
    doorbell: Arc<Doorbell>,
    /// The backend has no room, and so nothing is read.
    stalled: AtomicBool,
}

/// Speaks the channels until `handler` is done and all that it has said was sent, or until the connection ends, which
/// drops the handler. Returns why it ended early.
pub(crate) async fn serve<T, F>(
    transport: T,
    socket: &Socket,
    idle: &IdleClock,
    channels: Channels,
    handler: impl FnOnce(Vec<Channel>) -> F,
) -> Result<(), WebSocketError>
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Option<Last>>,
{
    let (shared, given) = Shared::new(channels);
    let (mut sink, mut source) = super::messages(transport).await.split();
    let (finish, finished) = oneshot::channel();
    let error = {
        let reading = shared.read(&mut source, socket, idle);
        let writing = shared.write(&mut sink, idle, finished);
        tokio::pin!(reading, writing);
        let handling = async {
            let last = handler(given).await;
            let _ = finish.send(last);
            std::future::pending::<std::convert::Infallible>().await
        };
        tokio::select! {
            error = &mut reading => error,
            written = &mut writing => match written {
                Ok(()) => {
                    let _ = tokio::time::timeout(LINGER, reading).await;
                    return Ok(());
                }
                Err(error) => error,
            },
            () = idle.expired() => WebSocketError::Idle,
            never = handling => match never {},
        }
    };
    if let Some(code) = error.close_code() {
        let reason = CloseFrame {
            code,
            reason: error.to_string().into(),
        };
        let _ = tokio::time::timeout(LAST_WORDS, sink.send(Message::Close(Some(reason)))).await;
    }
    Err(error)
}

impl WebSocketError {
    /// What the client is told when it was its fault; RFC 6455, section 7.4.1.
    fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::Protocol(error) => Some(match **error {
                Error::Capacity(_) => CloseCode::Size,
                Error::Utf8(_) => CloseCode::Invalid,
                _ => CloseCode::Protocol,
            }),
            Self::Message(_) => Some(CloseCode::Invalid),
            Self::Closed | Self::Idle | Self::Io(_) => None,
        }
    }
}

impl Shared {
    fn new(channels: Channels) -> (Self, Vec<Channel>) {
        let doorbell: Arc<Doorbell> = Arc::default();
        let (ends, given) = (0..channels.count)
            .map(|number| {
                let bell = Bell::new(&doorbell, u32::from(number));
                let (feed, incoming) = incoming(bell.clone());
                let (drain, outgoing) = outgoing(bell.clone());
                (Ends { feed, drain, bell }, Channel { incoming, outgoing })
            })
            .unzip();
        let shared = Self {
            channels,
            ends,
            doorbell,
            stalled: AtomicBool::new(false),
        };
        (shared, given)
    }

    /// Hands messages on until the connection ends; returns why.
    async fn read<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        source: &mut SplitStream<WebSocketStream<T>>,
        socket: &Socket,
        idle: &IdleClock,
    ) -> WebSocketError {
        loop {
            let message = match source.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return error.into(),
                None => return WebSocketError::Closed,
            };
            idle.touch();
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => text.into(),
                Message::Close(_) => {
                    // The library's answer goes out with the next read, if there is room for it.
                    let _ = source.next().now_or_never();
                    return WebSocketError::Closed;
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if let Err(error) = self.hear(data, socket).await {
                return error;
            }
        }
    }

    async fn hear(&self, message: Bytes, socket: &Socket) -> Result<(), WebSocketError> {
        let Channels {
            encoding, close, ..
        } = self.channels;
        // What is said on a channel that there is not is ignored, as the kubelet's streaming server does it.
        match encoding.decode(close, message)? {
            Said::Nothing => {}
            Said::Close(channel) => {
                let ends = self.ends.get(usize::from(channel));
                ends.ok_or(MessageError::Close)?.feed.finish();
            }
            Said::Data(channel, mut data) => {
                let Some(ends) = self.ends.get(usize::from(channel)) else {
                    return Ok(());
                };
                while !data.is_empty() {
                    let room = self.room(&ends.feed, socket).await?;
                    ends.feed.push(data.split_to(room.min(data.len())));
                }
            }
        }
        Ok(())
    }

    /// Waits until the backend has read enough; meanwhile, the connection is not read.
    async fn room(&self, feed: &Feed, socket: &Socket) -> Result<usize, WebSocketError> {
        if let Some(room) = poll_fn(|cx| feed.poll_room(cx)).now_or_never() {
            return Ok(room);
        }
        self.stalled.store(true, Ordering::Relaxed);
        self.doorbell.wake();
        let room = tokio::select! {
            room = poll_fn(|cx| feed.poll_room(cx)) => Ok(room),
            () = socket.closed() => Err(WebSocketError::Closed),
        };
        self.stalled.store(false, Ordering::Relaxed);
        room
    }

    /// Writes what channels say until the handler is done and all was said, and closes the connection from our side.
    async fn write<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        sink: &mut SplitSink<WebSocketStream<T>, Message>,
        idle: &IdleClock,
        mut finished: oneshot::Receiver<Option<Last>>,
    ) -> Result<(), WebSocketError> {
        let encoding = self.channels.encoding;
        if let Some(channel) = self.channels.greets {
            sink.feed(encoding.encode(channel, &[])).await?;
        }
        let mut last_sign = Instant::now();
        let mut last = None;
        loop {
            if self.round(sink).await? {
                idle.touch();
            } else {
                if let Some(last) = last {
                    return close(sink, encoding, last).await;
                }
                sink.flush().await?;
                tokio::select! {
                    () = self.doorbell.wait() => {}
                    () = tokio::time::sleep_until(last_sign + self.sign_interval()) => {}
                    said = &mut finished => last = Some(said.ok().flatten()),
                }
            }
            if last_sign + self.sign_interval() <= Instant::now() {
                last_sign = Instant::now();
                sink.feed(self.sign()).await?;
            }
        }
    }

    fn sign_interval(&self) -> Duration {
        if self.stalled.load(Ordering::Relaxed) {
            STALLED
        } else {
            KEEPALIVE
        }
    }

    fn sign(&self) -> Message {
        if self.stalled.load(Ordering::Relaxed) {
            Message::Pong(Bytes::new())
        } else {
            Message::Ping(Bytes::new())
        }
    }

    /// Writes a chunk of each channel that has one, and says whether any had.
    async fn round(
        &self,
        sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    ) -> Result<bool, WebSocketError> {
        let mut any = false;
        self.doorbell.take(&mut Default::default());
        for (number, ends) in (0u8..).zip(&self.ends) {
            ends.bell.answer();
            if ends.drain.level() == Level::Some
                && let Some(data) = ends.drain.pop(CHUNK)
            {
                sink.feed(self.channels.encoding.encode(number, &data))
                    .await?;
                any = true;
            }
        }
        Ok(any)
    }
}

async fn close(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    encoding: Encoding,
    last: Option<Last>,
) -> Result<(), WebSocketError> {
    if let Some(Last { channel, data }) = last {
        sink.feed(encoding.encode(channel, &data)).await?;
    }
    let reason = CloseFrame {
        code: CloseCode::Normal,
        reason: Default::default(),
    };
    sink.send(Message::Close(Some(reason))).await?;
    Ok(())
}
