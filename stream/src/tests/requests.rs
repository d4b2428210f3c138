//! Requests, and how they are refused.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::{connect, parts, request, soon, spdy, until};
use super::serving::Serving;
use super::spdy_client::SpdyClient;
use crate::StreamConfig;

const SPDY: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "SPDY/3.1"),
    ("X-Stream-Protocol-Version", "v4.channel.k8s.io"),
];

async fn refused(method: &str, url: &str, headers: &[(&str, &str)], status: u16, text: &str) {
    let answer = request(method, url, headers).await;
    assert_eq!(answer.status, status, "{}", answer.head);
    let body = answer.body().await;
    assert!(body.contains(text), "{body:?} has no {text:?}");
}

#[tokio::test]
async fn a_token_is_good_for_one_request_of_its_kind() {
    let serving = Serving::new().await;
    let url = serving.exec("o", &["print", "x", ""]);
    let used = "was used already";
    let _first = spdy(&url, "v4.channel.k8s.io").await;
    refused("POST", &url, SPDY, 404, used).await;
    let other_kind = serving
        .exec("o", &["exit", "0"])
        .replace("/exec/", "/attach/");
    refused("POST", &other_kind, SPDY, 404, used).await;
    let guessed = format!("{}x", serving.exec("o", &["exit", "0"]));
    refused("GET", &guessed, SPDY, 404, used).await;
    for path in ["/", "/exec", "/exec/", "/exec/a/b", "/metrics"] {
        let url = format!("http://{}{path}", parts(&url).0);
        refused("GET", &url, SPDY, 404, used).await;
    }
}

#[tokio::test]
async fn a_token_expires() {
    let config = StreamConfig {
        token_lifetime: Duration::ZERO,
        ..StreamConfig::default()
    };
    let serving = Serving::with(config).await;
    let url = serving.exec("o", &["exit", "0"]);
    refused("POST", &url, SPDY, 404, "has expired").await;
}

#[tokio::test]
async fn requests_that_cannot_be_upgraded_are_told_why() {
    let serving = Serving::new().await;
    let url = || serving.exec("o", &["exit", "0"]);
    refused("GET", &url(), &[], 400, "Upgrade: SPDY/3.1").await;
    refused(
        "GET",
        &url(),
        &[("Upgrade", "SPDY/3.1")],
        400,
        "unable to upgrade",
    )
    .await;
    refused("GET", &url(), &SPDY[..2], 400, "x-stream-protocol-version").await;
    refused("DELETE", &url(), SPDY, 405, "GET and POST").await;
    let unknown = [
        SPDY[0],
        SPDY[1],
        ("X-Stream-Protocol-Version", "v9.channel.k8s.io"),
    ];
    let answer = request("POST", &url(), &unknown).await;
    assert_eq!(answer.status, 403);
    let accepted = "X-Accepted-Stream-Protocol-Versions: v4.channel.k8s.io";
    assert!(answer.head.contains(accepted), "{}", answer.head);
    let web_socket = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    refused("GET", &url(), &web_socket, 400, "version must be 13").await;
    let version = ("Sec-WebSocket-Version", "13");
    let keyless = [&web_socket[..], &[version]].concat();
    refused("GET", &url(), &keyless, 400, "Sec-WebSocket-Key").await;
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let protocol = ("Sec-WebSocket-Protocol", "chat");
    let strange = [&web_socket[..], &[version, key, protocol]].concat();
    refused("GET", &url(), &strange, 403, "negotiate").await;
    let portless = [&web_socket[..], &[version, key]].concat();
    refused(
        "GET",
        &serving.port_forward(&[]),
        &portless,
        400,
        "\"port\" is required",
    )
    .await;
}

#[tokio::test]
async fn the_first_protocol_that_is_spoken_is_chosen() {
    let serving = Serving::new().await;
    let offers = "v9.channel.k8s.io, v3.channel.k8s.io,v4.channel.k8s.io";
    let headers = [SPDY[0], SPDY[1], ("X-Stream-Protocol-Version", offers)];
    let answer = request("GET", &serving.exec("o", &["exit", "0"]), &headers).await;
    assert_eq!(answer.status, 101);
    let chosen = "X-Stream-Protocol-Version: v3.channel.k8s.io\r\n";
    assert!(answer.head.contains(chosen), "{}", answer.head);
}

#[tokio::test]
async fn sessions_have_so_many_places() {
    let config = StreamConfig {
        max_sessions: 1,
        ..StreamConfig::default()
    };
    let serving = Serving::with(config).await;
    let first = spdy(&serving.exec("o", &["hang"]), "v4.channel.k8s.io").await;
    refused(
        "POST",
        &serving.exec("o", &["exit", "0"]),
        SPDY,
        503,
        "places",
    )
    .await;
    let mut first = SpdyClient::new(first);
    first.open_types(&["error", "stdout"]).await;
    until("the session runs", || serving.commands.live() == 1).await;
    drop(first);
    until("the session is over", || serving.commands.live() == 0).await;
    soon("a place", async {
        loop {
            let answer = request("POST", &serving.exec("o", &["exit", "0"]), SPDY).await;
            if answer.status == 101 {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_head_is_bounded_in_size_and_time() {
    let config = StreamConfig {
        head_timeout: Duration::from_secs(2),
        ..StreamConfig::default()
    };
    let serving = Serving::with(config).await;
    let url = serving.exec("o", &["exit", "0"]);
    let long = "x".repeat(20_000);
    let answer = request("GET", &url, &[("Cookie", &long)]).await;
    assert_eq!(answer.status, 431, "{}", answer.head);
    let mut slow = connect(&url).await;
    slow.write_all(b"GET /exec/x HTTP/1.1\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = soon("the end of a slow head", slow.read_to_end(&mut rest)).await;
    let mut garbage = connect(&url).await;
    garbage.write_all(&[0x16, 3, 1, 0xff, 0xff]).await.unwrap();
    let _ = soon("the end of garbage", garbage.read_to_end(&mut rest)).await;
}

/// Thousands that say nothing keep nobody out, and no more of them are held than the bound says.
#[tokio::test]
async fn idle_connections_make_room_for_those_that_ask() {
    let config = StreamConfig {
        max_pending_heads: 16,
        ..StreamConfig::default()
    };
    let serving = Serving::with(config).await;
    let url = serving.exec("o", &["print", "here", ""]);
    let mut idle = Vec::new();
    for _ in 0..3_000 {
        idle.push(connect(&url).await);
    }
    let mut client = SpdyClient::new(spdy(&url, "v4.channel.k8s.io").await);
    let streams = client.open_types(&["error", "stdout"]).await;
    assert_eq!(client.rest().await.text(streams[1]), "here");
    // All but the last few were closed.
    for stream in &mut idle[..2_900] {
        let end = soon("the end of an idle connection", stream.read_u8()).await;
        assert!(end.is_err());
    }
}

#[tokio::test]
async fn a_shutdown_ends_open_sessions() {
    let serving = Serving::new().await;
    let client = spdy(&serving.exec("o", &["hang"]), "v4.channel.k8s.io").await;
    let mut client = SpdyClient::new(client);
    client.open_types(&["error", "stdout"]).await;
    until("the session runs", || serving.commands.live() == 1).await;
    serving.shut_down().await;
    assert_eq!(client.frame().await, None);
}
