//! Clients over WebSocket.

use futures_util::{SinkExt as _, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::backend::{ECHO, HASH, hex, pattern};
use super::client::{soon, until, web_socket};
use super::serving::Serving;
use super::spdy_client::{self, FIN, SpdyClient};
use crate::websocket::Tunnel;

type Client = WebSocketStream<TcpStream>;

async fn open(url: &str, protocols: &str) -> Client {
    let stream = web_socket(url, protocols).await;
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

async fn say(client: &mut Client, channel: u8, data: &[u8]) {
    let message = [&[channel], data].concat();
    client.send(Message::Binary(message.into())).await.unwrap();
}

/// What was said on each channel to the end, and the reason.
#[derive(Default)]
struct Said {
    channels: [Vec<u8>; 6],
    close: Option<CloseFrame>,
}

impl Said {
    fn text(&self, channel: usize) -> &str {
        std::str::from_utf8(&self.channels[channel]).unwrap()
    }

    fn code(&self) -> u16 {
        self.close.as_ref().map_or(0, |close| close.code.into())
    }
}

async fn rest(mut client: Client) -> Said {
    let mut said = Said::default();
    soon("the end", async {
        while let Some(Ok(message)) = client.next().await {
            match message {
                Message::Binary(data) => {
                    said.channels[usize::from(data[0])].extend_from_slice(&data[1..]);
                }
                Message::Close(close) => said.close = close,
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    said
}

#[tokio::test]
async fn each_version_tells_how_it_ended() {
    let serving = Serving::new().await;
    let versions = [
        "",
        "channel.k8s.io",
        "v3.channel.k8s.io",
        "v4.channel.k8s.io",
        "v5.channel.k8s.io",
    ];
    for version in versions {
        let has_status = version.starts_with("v4") || version.starts_with("v5");
        let said = rest(open(&serving.exec("oe", &["print", "one", "two"]), version).await).await;
        assert_eq!([said.text(1), said.text(2)], ["one", "two"]);
        assert_eq!(said.text(3).contains("Success"), has_status);
        assert_eq!(said.code(), 1_000);
        let said = rest(open(&serving.exec("o", &["exit", "7"]), version).await).await;
        assert_eq!(said.text(3).contains("\"message\":\"7\""), has_status);
        assert!(said.text(3).contains("non-zero exit code: 7"));
        let said = rest(open(&serving.exec("o", &["nonsense"]), version).await).await;
        assert!(said.text(3).contains("no such command"));
    }
    serving.shut_down().await;
}

#[tokio::test]
async fn the_session_is_announced_by_an_empty_message() {
    let serving = Serving::new().await;
    for (streams, channel) in [("ioe", 1), ("ie", 2), ("i", 3)] {
        let mut client = open(&serving.exec(streams, &["hang"]), "v5.channel.k8s.io").await;
        let first = soon("a message", client.next()).await.unwrap().unwrap();
        assert_eq!(first, Message::Binary(vec![channel].into()));
    }
}

#[tokio::test]
async fn megabytes_go_both_ways_whole_and_a_channel_is_closed() {
    let serving = Serving::new().await;
    let sent = pattern(24 << 20);
    let mut client = open(&serving.exec("io", &["hash"]), "v5.channel.k8s.io").await;
    for piece in sent.chunks(32 * 1024) {
        say(&mut client, 0, piece).await;
    }
    say(&mut client, 255, &[0]).await;
    let said = rest(client).await;
    assert_eq!(said.text(1), hex(&Sha256::digest(&sent)));

    let bytes = (48 << 20).to_string();
    let said = rest(open(&serving.exec("o", &["talk", &bytes]), "v5.channel.k8s.io").await).await;
    let expected = pattern(64 * 1024).repeat(48 * 16);
    assert!(said.channels[1] == expected, "the output differs");
    assert!(said.text(3).contains("Success"));
}

#[tokio::test]
async fn base64_is_for_clients_without_bytes() {
    let serving = Serving::new().await;
    let mut client = open(&serving.attach("io", "there"), "v4.base64.channel.k8s.io").await;
    let next = async |client: &mut Client| soon("a message", client.next()).await.unwrap().unwrap();
    assert_eq!(next(&mut client).await, Message::Text("1".into()));
    client
        .send(Message::Text("0Zm9vCg==".into()))
        .await
        .unwrap();
    assert_eq!(next(&mut client).await, Message::Text("1Zm9vCg==".into()));
    client
        .send(Message::Text("0not base64".into()))
        .await
        .unwrap();
    let Message::Close(Some(close)) = next(&mut client).await else {
        panic!("not closed");
    };
    assert_eq!(u16::from(close.code), 1_007);
}

#[tokio::test]
async fn a_terminal_learns_its_sizes() {
    let serving = Serving::new().await;
    let mut client = open(&serving.exec("ot", &["sizes"]), "v5.channel.k8s.io").await;
    say(&mut client, 4, b"{\"Width\":80,\"Height\":24}").await;
    say(&mut client, 255, &[4]).await;
    assert_eq!(rest(client).await.text(1), "80x24\n");
}

#[tokio::test]
async fn messages_in_pieces_and_pings_are_understood() {
    let serving = Serving::new().await;
    let mut client = open(&serving.exec("io", &["hash"]), "v5.channel.k8s.io").await;
    let frame = |data: &'static [u8], opcode, last| {
        Message::Frame(Frame::message(data, OpCode::Data(opcode), last))
    };
    client
        .send(frame(b"\x00in ", Data::Binary, false))
        .await
        .unwrap();
    client
        .send(Message::Ping(b"there?"[..].into()))
        .await
        .unwrap();
    client
        .send(frame(b"two ", Data::Continue, false))
        .await
        .unwrap();
    client
        .send(frame(b"pieces", Data::Continue, true))
        .await
        .unwrap();
    let mut ponged = false;
    while !ponged {
        let message = soon("a message", client.next()).await.unwrap().unwrap();
        ponged = message == Message::Pong(b"there?"[..].into());
    }
    // A channel that there is not means nothing.
    say(&mut client, 77, b"whatever").await;
    say(&mut client, 255, &[0]).await;
    assert_eq!(
        rest(client).await.text(1),
        hex(&Sha256::digest(b"in two pieces"))
    );
}

/// Raw bytes after the handshake, and the code that the connection is closed with.
async fn closed_for(serving: &Serving, bytes: &[u8]) -> u16 {
    let mut stream = web_socket(&serving.exec("io", &["cat"]), "v5.channel.k8s.io").await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    // Behind the greeting: a close frame with its code.
    let close = answer.strip_prefix(&[0x82, 1, 1]).unwrap_or(&answer);
    assert_eq!(close[0], 0x88, "{answer:?}");
    u16::from_be_bytes([close[2], close[3]])
}

#[tokio::test]
async fn broken_and_giant_frames_end_the_connection() {
    let serving = Serving::new().await;
    // Not masked; of an unknown kind; a piece of nothing; a ping in pieces.
    for frame in [[0x82, 1], [0x83, 0x80], [0x80, 0x80], [0x09, 0x80]] {
        let frame = [&frame[..], &[0; 4]].concat();
        assert_eq!(closed_for(&serving, &frame).await, 1_002, "{frame:?}");
    }
    let giant = [&[0x82, 0xff][..], &(33u64 << 20).to_be_bytes(), &[0; 4]].concat();
    assert_eq!(closed_for(&serving, &giant).await, 1_009);
    let endless = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    assert_eq!(closed_for(&serving, &endless).await, 1_009);
    // A channel to close that is not named.
    let mut client = open(&serving.exec("io", &["cat"]), "v5.channel.k8s.io").await;
    say(&mut client, 255, &[]).await;
    assert_eq!(rest(client).await.code(), 1_007);
    until("nothing lives", || serving.commands.live() == 0).await;
}

#[tokio::test]
async fn ports_are_forwarded_over_channels() {
    let serving = Serving::new().await;
    let mut client = open(&serving.port_forward(&[ECHO, 1]), "v4.channel.k8s.io").await;
    say(&mut client, 0, b"echo").await;
    let mut said = <[Vec<u8>; 4]>::default();
    soon("all is said", async {
        while said[0].len() < 6 || said[3].len() < 10 {
            if let Message::Binary(data) = client.next().await.unwrap().unwrap() {
                said[usize::from(data[0])].extend_from_slice(&data[1..]);
            }
        }
    })
    .await;
    assert_eq!(said[0], b"\x07\x00echo");
    assert_eq!(said[1], b"\x07\x00");
    assert_eq!(said[2], b"\x01\x00");
    let failed = b"\x01\x00error forwarding port 1 to pod pod: connection refused";
    assert_eq!(said[3], failed);
    drop(client);
    // Ports in the query, when the session names none.
    let url = serving.port_forward(&[]) + "?port=11";
    let said = rest(open(&url, "").await).await;
    assert_eq!([&*said.channels[0], &said.channels[1]], [b"\x0b\x00"; 2]);
    until("nothing lives", || serving.commands.live() == 0).await;
}

#[tokio::test]
async fn spdy_goes_through_a_tunnel() {
    let serving = Serving::new().await;
    let url = serving.port_forward(&[]);
    let stream = web_socket(&url, "SPDY/3.1+portforward.k8s.io").await;
    let tunnel = Tunnel::client(stream).await;
    let mut client = SpdyClient::new(tunnel);
    let sent = pattern(8 << 20);
    let (data, error) = client.open_pair(HASH, "1").await;
    for piece in sent.chunks(32 * 1024) {
        client.data(data, spdy_client::NONE, piece).await;
    }
    client.data(data, FIN, b"").await;
    let mut said = Vec::new();
    let mut ended = 0;
    while ended < 2 {
        if let Some(spdy_client::Frame::Data {
            stream,
            fin,
            data: more,
        }) = client.frame().await
        {
            assert!(stream == data || (stream == error && more.is_empty()));
            said.extend(more);
            ended += u8::from(fin);
        }
    }
    assert_eq!(said, hex(&Sha256::digest(&sent)).as_bytes());
    drop(client);
    until("nothing lives", || serving.commands.live() == 0).await;
}
