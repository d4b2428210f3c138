//! Clients that break the protocol, and clients that try to make us hold what they do not take.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::backend::{ECHO, SILENT, TALK, pattern};
use super::client::{soon, spdy, until, web_socket};
use super::serving::Serving;
use super::spdy_client::{FIN, Frame, NONE, SpdyClient};
use crate::StreamConfig;

const FORWARD: &str = "portforward.k8s.io";

/// What the kernel and our queues may hold of a stream that nobody reads: its socket buffers grow to some MiB.
const HELD: usize = 24 << 20;

async fn forwarding(serving: &Serving) -> SpdyClient {
    SpdyClient::new(spdy(&serving.port_forward(&[]), FORWARD).await)
}

/// The server says that the protocol was broken, and closes.
async fn thrown_out(mut client: SpdyClient, serving: &Serving) {
    loop {
        match client.frame().await {
            Some(Frame::GoAway { status }) => {
                assert_eq!(status, 1);
                break;
            }
            Some(_) => {}
            None => panic!("closed without a word"),
        }
    }
    assert_eq!(client.frame().await, None);
    until("nothing lives", || serving.commands.live() == 0).await;
}

#[tokio::test]
async fn broken_frames_end_the_connection() {
    let serving = Serving::new().await;
    let frames: &[&[u8]] = &[
        // Of version 2.
        &[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1],
        // A SYN_STREAM of 4 bytes, a PING of none.
        &[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1],
        &[0x80, 3, 0, 6, 0, 0, 0, 0],
        // A control frame of 16 MiB.
        &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
        // Data for stream 0.
        &[0, 0, 0, 0, 0, 0, 0, 1, 0],
        // Headers that are not zlib data.
        &[
            0x80, 3, 0, 1, 0, 0, 0, 14, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7,
        ],
        // WINDOW_UPDATEs that are more than a window can be.
        &[
            0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff,
        ],
    ];
    for frame in frames {
        let mut client = forwarding(&serving).await;
        client.open_pair(SILENT, "1").await;
        client.transport.write_all(frame).await.unwrap();
        thrown_out(client, &serving).await;
    }
}

#[tokio::test]
async fn a_zip_bomb_ends_the_connection() {
    let serving = Serving::new().await;
    let mut client = forwarding(&serving).await;
    let block = client.encoder.compress(&vec![0; 1 << 20]);
    client.open_with(NONE, &block).await;
    thrown_out(client, &serving).await;
}

#[tokio::test]
async fn malformed_headers_cost_their_stream_only() {
    let serving = Serving::new().await;
    let mut client = forwarding(&serving).await;
    let block = client.encoder.compress(&[0, 0, 0, 9, 0xff, 0xff]);
    let stream = client.open_with(NONE, &block).await;
    let status = 1;
    assert_eq!(client.frame().await, Some(Frame::Reset { stream, status }));
    let (data, _) = client.open_pair(ECHO, "1").await;
    client.data(data, NONE, b"x").await;
    assert!(matches!(client.frame().await, Some(Frame::Data { .. })));
}

#[tokio::test]
async fn data_for_no_stream_is_thrown_away() {
    let serving = Serving::new().await;
    let mut client = forwarding(&serving).await;
    client.data(99, NONE, &pattern(1 << 20)).await;
    let (stream, status) = (99, 2);
    assert_eq!(client.frame().await, Some(Frame::Reset { stream, status }));
    // On one that the client has half-closed itself.
    let (data, _) = client.open_pair(SILENT, "1").await;
    client.data(data, FIN, b"").await;
    client.data(data, NONE, b"more").await;
    let (stream, status) = (data, 1);
    loop {
        match client.frame().await {
            Some(Frame::WindowUpdate { .. }) => {}
            other => break assert_eq!(other, Some(Frame::Reset { stream, status })),
        }
    }
    // Frames of types that nobody knows mean nothing.
    client.control(77, 0, b"whatever").await;
    client.ping(1).await;
    assert!(client.frame().await.is_some());
}

#[tokio::test]
async fn more_streams_than_may_be_are_refused() {
    let config = StreamConfig {
        max_streams: 4,
        ..StreamConfig::default()
    };
    let serving = Serving::with(config).await;
    let mut client = forwarding(&serving).await;
    let first = client.open_pair(SILENT, "1").await;
    client.open_pair(SILENT, "2").await;
    for number in 0..1_000 {
        let port = [("streamtype", "data"), ("port", "7"), ("requestid", "x")];
        let stream = client.open(&port).await;
        let status = 3;
        let refused = Some(Frame::Reset { stream, status });
        assert_eq!(client.frame().await, refused, "{number}");
    }
    client.reset(first.0).await;
    client.reset(first.1).await;
    client.open_pair(ECHO, "3").await;
}

/// Writes until the server takes no more.
async fn write_on(client: &mut (impl AsyncRead + AsyncWrite + Unpin), data: &[u8]) -> usize {
    let mut written = 0;
    while let Ok(result) = tokio::time::timeout(Duration::from_secs(1), client.write(data)).await {
        written += result.unwrap();
        assert!(written < 2 * HELD, "{written} bytes were taken");
    }
    written
}

#[tokio::test]
async fn what_the_backend_does_not_read_is_not_read_from_the_socket() {
    let serving = Serving::new().await;
    let mut client = forwarding(&serving).await;
    let (data, _) = client.open_pair(SILENT, "1").await;
    let frame = [&data.to_be_bytes()[..], &[0, 1, 0, 0], &[7; 65_536]].concat();
    let written = write_on(&mut client.transport, &frame).await;
    assert!(written < HELD, "{written} bytes were taken");
    // It goes while it is not read.
    drop(client);
    until("nothing lives", || serving.commands.live() == 0).await;
}

#[tokio::test]
async fn nor_over_websocket() {
    let serving = Serving::new().await;
    let url = serving.exec("i", &["hang"]);
    let mut stream = web_socket(&url, "v5.channel.k8s.io").await;
    let length = 65_536u64.to_be_bytes();
    let frame = [&[0x82, 0xff][..], &length, &[0; 4], &[0; 65_536]].concat();
    let written = write_on(&mut stream, &frame).await;
    assert!(written < HELD, "{written} bytes were taken");
    drop(stream);
    until("nothing lives", || serving.commands.live() == 0).await;
}

#[tokio::test]
async fn answers_that_the_client_does_not_read_are_not_heaped_up() {
    let serving = Serving::new().await;
    let mut client = forwarding(&serving).await;
    let pings = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1].repeat(4_096);
    let written = write_on(&mut client.transport, &pings).await;
    assert!(written < HELD, "{written} bytes were taken");
}

#[tokio::test]
async fn what_the_client_does_not_read_is_not_taken_from_the_backend() {
    let serving = Serving::new().await;
    let mut client = forwarding(&serving).await;
    client.open_pair(TALK, "1").await;
    // Until nothing moves any more.
    let mut looks = tokio::time::interval(Duration::from_millis(500));
    let mut before = usize::MAX;
    soon("the talker stops", async {
        loop {
            looks.tick().await;
            let talked = serving.commands.talked.load(Ordering::SeqCst);
            if talked > 0 && talked == before {
                return;
            }
            before = talked;
        }
    })
    .await;
    assert!(before < HELD, "{before} bytes were taken");
    drop(client);
    until("nothing lives", || serving.commands.live() == 0).await;
}
