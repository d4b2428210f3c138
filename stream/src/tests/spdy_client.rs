//! A client's side of SPDY, which does what it is told: also what it must not.

use std::collections::HashMap;

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::soon;
use crate::spdy::ClientEncoder;

/// Flags of frames.
pub(super) const FIN: u8 = 1;
pub(super) const NONE: u8 = 0;

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Reply(u32),
    Data {
        stream: u32,
        fin: bool,
        data: Vec<u8>,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Ping(u32),
    GoAway {
        status: u32,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
}

pub(super) struct SpdyClient<T = TcpStream> {
    pub(super) transport: T,
    pub(super) encoder: ClientEncoder,
    buffer: BytesMut,
    next: u32,
}

impl<T: AsyncRead + AsyncWrite + Unpin> SpdyClient<T> {
    pub(super) fn new(transport: T) -> Self {
        Self {
            transport,
            encoder: ClientEncoder::new(),
            buffer: BytesMut::new(),
            next: 1,
        }
    }

    pub(super) async fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_u16(0x8003);
        frame.put_u16(kind);
        frame.put_u32(u32::from(flags) << 24 | payload.len() as u32);
        frame.put_slice(payload);
        self.transport.write_all(&frame).await.unwrap();
        self.transport.flush().await.unwrap();
    }

    /// SYN_STREAM; gives the stream's number.
    pub(super) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let block = self.encoder.encode(headers);
        self.open_with(NONE, &block).await
    }

    pub(super) async fn open_with(&mut self, flags: u8, block: &[u8]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let mut payload = BytesMut::new();
        payload.put_u32(stream);
        payload.put_slice(&[0; 6]);
        payload.put_slice(block);
        self.control(1, flags, &payload).await;
        stream
    }

    pub(super) async fn reset(&mut self, stream: u32) {
        self.control(
            3,
            NONE,
            &[stream.to_be_bytes(), 5u32.to_be_bytes()].concat(),
        )
        .await;
    }

    pub(super) async fn ping(&mut self, id: u32) {
        self.control(6, NONE, &id.to_be_bytes()).await;
    }

    pub(super) async fn window_update(&mut self, stream: u32, delta: u32) {
        self.control(
            9,
            NONE,
            &[stream.to_be_bytes(), delta.to_be_bytes()].concat(),
        )
        .await;
    }

    /// SETTINGS with an initial window.
    pub(super) async fn initial_window(&mut self, window: u32) {
        let payload = [1u32, 7, window].map(u32::to_be_bytes).concat();
        self.control(4, NONE, &payload).await;
    }

    pub(super) async fn data(&mut self, stream: u32, flags: u8, data: &[u8]) {
        let mut frame = BytesMut::with_capacity(8 + data.len());
        frame.put_u32(stream);
        frame.put_u32(u32::from(flags) << 24 | data.len() as u32);
        frame.put_slice(data);
        self.transport.write_all(&frame).await.unwrap();
        self.transport.flush().await.unwrap();
    }

    /// The next frame; `None` at the connection's end.
    pub(super) async fn frame(&mut self) -> Option<Frame> {
        soon("a frame", async {
            self.fill(8).await?;
            let header = self.buffer.split_to(8);
            let length = (&header[4..]).get_u32() as usize & 0x00ff_ffff;
            self.fill(length).await?;
            let mut payload = self.buffer.split_to(length).freeze();
            let first = (&header[..4]).get_u32();
            if first & 0x8000_0000 == 0 {
                return Some(Frame::Data {
                    stream: first,
                    fin: header[4] & FIN != 0,
                    data: payload.to_vec(),
                });
            }
            Some(match first & 0xffff {
                2 => Frame::Reply(payload.get_u32()),
                3 => Frame::Reset {
                    stream: payload.get_u32(),
                    status: payload.get_u32(),
                },
                6 => Frame::Ping(payload.get_u32()),
                7 => {
                    payload.advance(4);
                    Frame::GoAway {
                        status: payload.get_u32(),
                    }
                }
                9 => Frame::WindowUpdate {
                    stream: payload.get_u32(),
                    delta: payload.get_u32(),
                },
                kind => panic!("a frame of type {kind}"),
            })
        })
        .await
    }

    async fn fill(&mut self, length: usize) -> Option<()> {
        while self.buffer.len() < length {
            if self.transport.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
        Some(())
    }

    /// Opens the streams of a remotecommand, and waits for their replies.
    pub(super) async fn open_types(&mut self, types: &[&str]) -> Vec<u32> {
        let mut streams = Vec::new();
        for kind in types {
            streams.push(self.open(&[("streamtype", kind)]).await);
        }
        for stream in &streams {
            self.replied(*stream).await;
        }
        streams
    }

    /// Opens the streams of a forwarded connection, and waits for their replies: data and error.
    pub(super) async fn open_pair(&mut self, port: u16, request: &str) -> (u32, u32) {
        let port = port.to_string();
        let headers = |kind| {
            [
                ("streamtype", kind),
                ("port", &*port),
                ("requestid", request),
            ]
        };
        let error = self.open(&headers("error")).await;
        let data = self.open(&headers("data")).await;
        for stream in [error, data] {
            self.replied(stream).await;
        }
        (data, error)
    }

    /// Waits for a stream's reply. What is said on other streams meanwhile is not looked at.
    async fn replied(&mut self, stream: u32) {
        loop {
            match self.frame().await {
                Some(Frame::Reply(replied)) => return assert_eq!(replied, stream),
                Some(Frame::WindowUpdate { .. } | Frame::Data { .. } | Frame::Ping(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// All that the server says to the connection's end, answering its PINGs: the data of each stream, with FIN or without.
    pub(super) async fn rest(mut self) -> Rest {
        let mut rest = Rest::default();
        while let Some(frame) = self.frame().await {
            match frame {
                Frame::Data { stream, fin, data } => {
                    let said = rest.streams.entry(stream).or_default();
                    assert!(!said.1, "stream {stream} goes on after its end");
                    said.0.extend_from_slice(&data);
                    said.1 = fin;
                }
                Frame::Ping(id) => self.ping(id).await,
                Frame::GoAway { status } => rest.go_away = Some(status),
                Frame::WindowUpdate { .. } => {}
                other => rest.others.push(other),
            }
        }
        rest
    }
}

/// See [`SpdyClient::rest`].
#[derive(Debug, Default)]
pub(super) struct Rest {
    streams: HashMap<u32, (Vec<u8>, bool)>,
    pub(super) go_away: Option<u32>,
    pub(super) others: Vec<Frame>,
}

impl Rest {
    /// What was said on a stream that was then half-closed.
    pub(super) fn finished(&self, stream: u32) -> &[u8] {
        let (data, fin) = &self.streams[&stream];
        assert!(fin, "stream {stream} was not half-closed");
        data
    }

    pub(super) fn text(&self, stream: u32) -> &str {
        std::str::from_utf8(self.finished(stream)).unwrap()
    }
}
