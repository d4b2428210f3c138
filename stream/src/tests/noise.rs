//! Whatever bytes a client sends, a connection ends and nothing panics.

use std::io::Cursor;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use proptest::prelude::*;
use tokio::io::{join, sink};
use tokio::net::{TcpListener, TcpStream};

use crate::http::Socket;
use crate::idle::IdleClock;
use crate::spdy::{self, NewStream};
use crate::websocket::{self, Channels, CloseSignal, Encoding};

/// Frames of SPDY that are whole, with anything in them, now and then with noise between.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..64);
    let control = (0u16..11, any::<u8>(), payload.clone()).prop_map(|(kind, flags, payload)| {
        let mut frame = BytesMut::new();
        frame.put_u16(0x8003);
        frame.put_u16(kind);
        frame.put_u32(u32::from(flags) << 24 | payload.len() as u32);
        frame.put_slice(&payload);
        frame.to_vec()
    });
    let data = (0u32..8, any::<u8>(), payload.clone()).prop_map(|(stream, flags, payload)| {
        let mut frame = BytesMut::new();
        frame.put_u32(stream);
        frame.put_u32(u32::from(flags) << 24 | payload.len() as u32);
        frame.put_slice(&payload);
        frame.to_vec()
    });
    let open = (0u32..8, 0u8..4, any::<bool>()).prop_map(|(stream, flags, fresh)| {
        // Only the first block of a connection can be decompressed: the others try what comes of that.
        let block = if fresh {
            spdy::ClientEncoder::new().encode(&[("streamtype", "data"), ("port", "7")])
        } else {
            Vec::new()
        };
        let mut frame = BytesMut::new();
        frame.put_u32(0x8003_0001);
        frame.put_u32(u32::from(flags) << 24 | (10 + block.len()) as u32);
        frame.put_u32(stream);
        frame.put_slice(&[0; 6]);
        frame.put_slice(&block);
        frame.to_vec()
    });
    let piece = prop_oneof![4 => control, 4 => data, 4 => open, 1 => payload];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

/// A socket of which both ends live, for what asks whether it is closed.
async fn socket() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(client, listener.accept());
    (Socket::new(server.unwrap().0).unwrap(), client.unwrap())
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), future)
            .await
            .expect("the connection ends");
    });
}

proptest! {
    #[test]
    fn any_frames_of_spdy_end(noise in frames()) {
        run(async {
            let (socket, _client) = socket().await;
            let idle = IdleClock::new(Duration::from_secs(60));
            let transport = join(Cursor::new(noise), sink());
            let handler = async |mut new: tokio::sync::mpsc::UnboundedReceiver<NewStream>| {
                let mut streams = Vec::new();
                while let Some(stream) = new.recv().await {
                    streams.extend(stream.accept());
                }
            };
            let ended = spdy::serve(transport, &socket, &idle, 4, handler).await;
            assert!(ended.is_err());
        });
    }

    #[test]
    fn any_bytes_over_websocket_end(noise in prop::collection::vec(any::<u8>(), 0..200), base64: bool) {
        run(async {
            let (socket, _client) = socket().await;
            let idle = IdleClock::new(Duration::from_secs(60));
            let transport = join(Cursor::new(noise), sink());
            let channels = Channels {
                count: 5,
                encoding: if base64 { Encoding::Base64 } else { Encoding::Binary },
                close: CloseSignal::Known,
                greets: Some(1),
            };
            let handler = async |channels| {
                let _channels: Vec<websocket::Channel> = channels;
                std::future::pending().await
            };
            let ended = websocket::serve(transport, &socket, &idle, channels, handler).await;
            assert!(ended.is_err());
        });
    }
}
