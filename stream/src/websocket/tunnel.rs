//! A stream of bytes in binary messages: what a client tunnels SPDY through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

/// The most that goes into one message.
const MAX_SENT: usize = 64 * 1024;

/// The bytes in the messages of both sides; where messages begin and end means nothing.
#[derive(Debug)]
pub(crate) struct Tunnel<T> {
    messages: WebSocketStream<T>,
    /// What is left of the last message.
    current: Bytes,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Tunnel<T> {
    pub(crate) async fn new(transport: T) -> Self {
        Self {
            messages: super::messages(transport).await,
            current: Bytes::new(),
        }
    }
}

#[cfg(test)]
impl<T: AsyncRead + AsyncWrite + Unpin> Tunnel<T> {
    /// The client's end.
    pub(crate) async fn client(transport: T) -> Self {
        let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
        Self {
            messages: WebSocketStream::from_raw_socket(transport, role, None).await,
            current: Bytes::new(),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Clients send a frame in several small messages; all that has come makes one read.
        let filled = buf.filled().len();
        while buf.remaining() > 0 {
            if this.current.is_empty() {
                match Pin::new(&mut this.messages).poll_next(cx) {
                    Poll::Ready(Some(Ok(Message::Binary(data)))) => this.current = data,
                    Poll::Ready(Some(Ok(Message::Text(_)))) => {
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    }
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io_error(error))),
                    Poll::Ready(None) => break,
                    Poll::Pending if buf.filled().len() > filled => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
            let amount = this.current.len().min(buf.remaining());
            buf.put_slice(&this.current[..amount]);
            this.current.advance(amount);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.messages).poll_ready(cx)).map_err(io_error)?;
        let length = bufs
            .iter()
            .map(|buf| buf.len())
            .sum::<usize>()
            .min(MAX_SENT);
        let mut message = BytesMut::with_capacity(length);
        for buf in bufs {
            let amount = buf.len().min(length - message.len());
            message.extend_from_slice(&buf[..amount]);
        }
        let message = Message::Binary(message.freeze());
        Pin::new(&mut self.messages)
            .start_send(message)
            .map_err(io_error)?;
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages)
            .poll_flush(cx)
            .map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages)
            .poll_close(cx)
            .map_err(io_error)
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
