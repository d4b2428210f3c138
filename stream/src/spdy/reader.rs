//! From the socket to the streams.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::SpdyError;
use super::frame::{Control, Fin, FrameHeader, MAX_CONTROL, Reset, ping};
use super::headers::{Decoder, HeaderError, Headers};
use super::state::Shared;
use crate::http::Socket;
use crate::idle::IdleClock;
use crate::pipe::Feed;

/// What one read asks for: little while little comes, so that an idle connection holds little.
const MIN_READ: usize = 4 * 1024;
const MAX_READ: usize = 128 * 1024;

/// While nothing is read, the client is sent a PING so often. When it is gone, its FIN may be stuck behind data that has no
/// room here; its kernel answers whatever comes after close(2) with a reset (RFC 1122, section 4.2.2.13), which is noticed.
const STALL_PING: Duration = Duration::from_secs(2);

/// Reads frames until the connection ends.
#[derive(Debug)]
pub(super) struct Reader<'a, R> {
    shared: &'a Arc<Shared>,
    source: R,
    /// Tells of the connection's end while it is not read.
    socket: &'a Socket,
    idle: &'a IdleClock,
    buffer: BytesMut,
    next_read: usize,
    decoder: Decoder,
}

impl<'a, R: AsyncRead + Unpin> Reader<'a, R> {
    pub(super) fn new(
        shared: &'a Arc<Shared>,
        source: R,
        socket: &'a Socket,
        idle: &'a IdleClock,
    ) -> Self {
        Self {
            shared,
            source,
            socket,
            idle,
            buffer: BytesMut::new(),
            next_read: MIN_READ,
            decoder: Decoder::default(),
        }
    }

    /// Returns why the connection ended; it never does otherwise.
    pub(super) async fn run(&mut self) -> SpdyError {
        loop {
            if let Err(error) = self.frame().await {
                return error;
            }
        }
    }

    async fn frame(&mut self) -> Result<(), SpdyError> {
        while self.shared.is_backlogged() {
            tokio::select! {
                () = self.shared.written.notified() => {}
                () = self.socket.closed() => return Err(SpdyError::Closed),
            }
        }
        let header = self.take(FrameHeader::LENGTH).await?;
        let mut bytes = [0; FrameHeader::LENGTH];
        bytes.copy_from_slice(&header);
        match FrameHeader::parse(bytes) {
            FrameHeader::Data {
                stream,
                fin,
                length,
            } => self.data(stream, fin, length).await,
            FrameHeader::Control { length, .. } if length > MAX_CONTROL => {
                Err(SpdyError::TooLong { length })
            }
            FrameHeader::Control {
                version,
                kind,
                flags,
                length,
            } => {
                let payload = self.take(length).await?;
                self.control(Control::parse(version, kind, flags, payload)?)
            }
        }
    }

    /// Hands a data frame on as it comes, however long it is.
    async fn data(&mut self, stream: u32, fin: Fin, length: usize) -> Result<(), SpdyError> {
        let feed = self.shared.feed(stream)?;
        let mut left = length;
        while left > 0 {
            let room = match &feed {
                Some(feed) => self.room(feed).await?,
                None => left,
            };
            if self.buffer.is_empty() {
                self.fill().await?;
            }
            let amount = left.min(room).min(self.buffer.len());
            let data = self.buffer.split_to(amount).freeze();
            left -= amount;
            match &feed {
                Some(feed) => {
                    self.shared.received(stream, amount);
                    feed.push(data);
                }
                None => self.shared.discarded(amount),
            }
        }
        if fin == Fin::Last {
            self.shared.finish_remote(stream);
        }
        Ok(())
    }

    /// Waits until the backend has read enough; meanwhile, the connection is not read.
    async fn room(&self, feed: &Feed) -> Result<usize, SpdyError> {
        loop {
            tokio::select! {
                biased;
                room = poll_fn(|cx| feed.poll_room(cx)) => return Ok(room),
                () = self.socket.closed() => return Err(SpdyError::Closed),
                () = tokio::time::sleep(STALL_PING) => {
                    self.shared.control(|state| state.control.ping(ping::STALL));
                }
            }
        }
    }

    fn control(&mut self, control: Control) -> Result<(), SpdyError> {
        match control {
            Control::SynStream {
                stream,
                fin,
                reply,
                block,
            } => {
                let headers = self.headers(&block)?;
                self.shared.open(stream, fin, reply, headers)?;
            }
            Control::Headers { stream, fin, block } => {
                // What they say means nothing here, but the blocks after them build on them.
                let _ = self.headers(&block)?;
                if fin == Fin::Last {
                    self.shared.finish_remote(stream);
                }
            }
            Control::RstStream { stream } => self.shared.reset_by_client(stream),
            Control::Settings { initial_window } => {
                if let Some(window) = initial_window {
                    self.shared.control(|state| {
                        let delta = state.flow.set_initial(window);
                        for open in state.streams.values_mut() {
                            open.send.shift(delta);
                        }
                        state.unblock();
                    });
                }
            }
            Control::Ping(ping::PROBE) => self.shared.control(|state| {
                state.flow.probed();
                state.unblock();
            }),
            // Ours are even, and come back: section 2.6.5.
            Control::Ping(id) if id.is_multiple_of(2) => {}
            Control::Ping(id) => self.shared.control(|state| state.control.ping(id)),
            Control::GoAway => {
                // The client takes no streams from us, of which there are none. When it has none left either, it is done.
                if self.shared.lock().streams.is_empty() {
                    return Err(SpdyError::Closed);
                }
            }
            Control::WindowUpdate { stream, delta } => self.window_update(stream, delta)?,
            Control::Unknown => {}
        }
        Ok(())
    }

    /// Decompresses headers. A block that is malformed costs its stream, one that does not decompress the connection.
    fn headers(&mut self, block: &Bytes) -> Result<Result<Headers, HeaderError>, SpdyError> {
        match self.decoder.decode(block) {
            Err(error @ (HeaderError::Compression | HeaderError::TooLong)) => Err(error.into()),
            result => Ok(result),
        }
    }

    fn window_update(&self, stream: u32, delta: u32) -> Result<(), SpdyError> {
        let mut state = self.shared.lock();
        let state_now = &mut *state;
        if stream == 0 {
            state_now
                .flow
                .session_update(delta)
                .map_err(|_| SpdyError::Window)?;
        } else if let Some(open) = state_now.streams.get_mut(&stream)
            && state_now.flow.stream_update(&mut open.send, delta).is_err()
        {
            drop(state);
            self.shared.reset(stream, Reset::FlowControl);
            return Ok(());
        }
        state.unblock();
        drop(state);
        self.shared.doorbell.wake();
        Ok(())
    }

    /// The next bytes, all of them.
    async fn take(&mut self, length: usize) -> Result<Bytes, SpdyError> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn fill(&mut self) -> Result<(), SpdyError> {
        if self.buffer.capacity() - self.buffer.len() < MIN_READ / 2 {
            self.buffer.reserve(self.next_read);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let read = self.source.read_buf(&mut self.buffer).await?;
        if read == 0 {
            return Err(SpdyError::Closed);
        }
        self.idle.touch();
        self.next_read = match read {
            _ if read == room => (self.next_read * 2).min(MAX_READ),
            _ if read < self.next_read / 4 => (self.next_read / 2).max(MIN_READ),
            _ => self.next_read,
        };
        Ok(())
    }
}
