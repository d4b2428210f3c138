//! Well-behaved clients over SPDY, with flow control and without.

use sha2::{Digest as _, Sha256};

use super::backend::{ECHO, HASH, TALK, hex, pattern};
use super::client::{spdy, until};
use super::serving::Serving;
use super::spdy_client::{FIN, Frame, NONE, SpdyClient};
use crate::StreamConfig;

const V4: &str = "v4.channel.k8s.io";
const FORWARD: &str = "portforward.k8s.io";

/// Runs a command to its end: stdout, stderr and what is said of how it ended.
async fn run(serving: &Serving, version: &str, command: &[&str]) -> [String; 3] {
    let mut client = SpdyClient::new(spdy(&serving.exec("oe", command), version).await);
    let streams = client.open_types(&["error", "stdout", "stderr"]).await;
    let rest = client.rest().await;
    assert_eq!(rest.go_away, Some(0));
    [1, 2, 0].map(|index| rest.text(streams[index]).to_owned())
}

#[tokio::test]
async fn each_version_tells_how_it_ended() {
    let serving = Serving::new().await;
    let success = "{\"metadata\":{},\"status\":\"Success\"}";
    for version in [
        V4,
        "v3.channel.k8s.io",
        "v2.channel.k8s.io",
        "channel.k8s.io",
    ] {
        let [stdout, stderr, end] = run(&serving, version, &["print", "to one", "to two"]).await;
        assert_eq!([&*stdout, &*stderr], ["to one", "to two"]);
        assert_eq!(end, if version == V4 { success } else { "" });
        let [_, _, end] = run(&serving, version, &["exit", "3"]).await;
        let code = "\"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"3\"}]}";
        assert_eq!(end.contains(code), version == V4, "{end}");
        assert!(end.contains("non-zero exit code: 3"), "{end}");
        let [_, _, end] = run(&serving, version, &["nonsense"]).await;
        assert!(end.contains("no such command"), "{end}");
        assert_eq!(end.contains("InternalError"), version == V4, "{end}");
    }
    serving.shut_down().await;
}

#[tokio::test]
async fn attach_tells_how_it_ended() {
    let serving = Serving::new().await;
    let mut client = SpdyClient::new(spdy(&serving.attach("io", "gone"), V4).await);
    let streams = client.open_types(&["error", "stdin", "stdout"]).await;
    let rest = client.rest().await;
    let text = "error attaching to container: the container is not running";
    assert!(rest.text(streams[0]).contains(text));
    let mut client = SpdyClient::new(spdy(&serving.attach("io", "there"), V4).await);
    let streams = client.open_types(&["error", "stdin", "stdout"]).await;
    client.data(streams[1], FIN, b"through").await;
    assert_eq!(client.rest().await.text(streams[2]), "through");
}

#[tokio::test]
async fn streams_are_those_that_were_asked_for() {
    let serving = Serving::new().await;
    let cases: [(&str, &[&str], &str); 3] = [
        ("o", &["error", "stdout"], "[false, true, false, false]"),
        (
            "iot",
            &["error", "stdin", "stdout", "resize"],
            "[true, true, false, true]",
        ),
        // One that nobody asked for is accepted, and leads nowhere.
        (
            "o",
            &["error", "stdin", "stdout"],
            "[false, true, false, false]",
        ),
    ];
    for (asked, types, expected) in cases {
        let mut client = SpdyClient::new(spdy(&serving.exec(asked, &["streams"]), V4).await);
        let streams = client.open_types(types).await;
        let stdout = types.iter().position(|kind| *kind == "stdout").unwrap();
        assert_eq!(client.rest().await.text(streams[stdout]), expected);
    }
}

#[tokio::test]
async fn a_terminal_learns_its_sizes() {
    let serving = Serving::new().await;
    let mut client = SpdyClient::new(spdy(&serving.exec("ot", &["sizes"]), V4).await);
    let streams = client.open_types(&["error", "stdout", "resize"]).await;
    for (size, printed) in [((80, 24), "80x24\n"), ((100, 50), "100x50\n")] {
        let json = format!("{{\"Width\":{},\"Height\":{}}}", size.0, size.1);
        client.data(streams[2], NONE, json.as_bytes()).await;
        let data = printed.as_bytes().to_vec();
        let stream = streams[1];
        let fin = false;
        assert_eq!(
            client.frame().await,
            Some(Frame::Data { stream, fin, data })
        );
    }
    client.data(streams[2], FIN, b"").await;
    assert_eq!(client.rest().await.text(streams[1]), "");
}

#[tokio::test]
async fn megabytes_go_both_ways_whole_and_half_close_passes() {
    let serving = Serving::new().await;
    let sent = pattern(24 << 20);
    let mut client = SpdyClient::new(spdy(&serving.exec("io", &["hash"]), V4).await);
    let streams = client.open_types(&["error", "stdin", "stdout"]).await;
    for piece in sent.chunks(32 * 1024) {
        client.data(streams[1], NONE, piece).await;
    }
    client.data(streams[1], FIN, b"").await;
    let rest = client.rest().await;
    assert_eq!(rest.text(streams[2]), hex(&Sha256::digest(&sent)));

    let bytes = (48 << 20).to_string();
    let mut client = SpdyClient::new(spdy(&serving.exec("o", &["talk", &bytes]), V4).await);
    let streams = client.open_types(&["error", "stdout"]).await;
    let rest = client.rest().await;
    let expected = pattern(64 * 1024).repeat(48 * 16);
    assert!(rest.finished(streams[1]) == expected, "the output differs");
}

#[tokio::test]
async fn a_frame_of_16_mib_is_taken() {
    let serving = Serving::new().await;
    let sent = pattern((1 << 24) - 1);
    let mut client = SpdyClient::new(spdy(&serving.exec("io", &["hash"]), V4).await);
    let streams = client.open_types(&["error", "stdin", "stdout"]).await;
    client.data(streams[1], FIN, &sent).await;
    let rest = client.rest().await;
    assert_eq!(rest.text(streams[2]), hex(&Sha256::digest(&sent)));
}

#[tokio::test]
async fn stdin_that_nobody_reads_keeps_no_command_from_ending() {
    let serving = Serving::new().await;
    let mut client = SpdyClient::new(spdy(&serving.exec("io", &["exit", "0"]), V4).await);
    let streams = client.open_types(&["error", "stdin", "stdout"]).await;
    client.data(streams[1], NONE, &pattern(4 << 20)).await;
    assert!(client.rest().await.text(streams[0]).contains("Success"));
}

#[tokio::test]
async fn windows_of_a_peer_that_has_them_are_kept_to() {
    let serving = Serving::new().await;
    let mut client = SpdyClient::new(spdy(&serving.exec("o", &["talk", "100000"]), V4).await);
    client.initial_window(1_000).await;
    let streams = client.open_types(&["error", "stdout"]).await;
    let mut got = 0;
    let mut error = Vec::new();
    while got < 1_000 || error.is_empty() {
        match client.frame().await {
            Some(Frame::Data { stream, data, .. }) if stream == streams[1] => got += data.len(),
            Some(Frame::Data { data, .. }) => error.extend(data),
            Some(Frame::WindowUpdate { stream: 0, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, 1_000);
    // It has nothing more to say but an answer.
    client.ping(1).await;
    loop {
        match client.frame().await {
            Some(Frame::WindowUpdate { stream: 0, .. }) => {}
            other => break assert_eq!(other, Some(Frame::Ping(1))),
        }
    }
    client.window_update(streams[1], 98_999).await;
    client.window_update(0, 1 << 20).await;
    while got < 99_999 {
        let Some(Frame::Data { data, fin, .. }) = client.frame().await else {
            panic!("no data");
        };
        assert!(!fin);
        got += data.len();
    }
    client.window_update(streams[1], 1).await;
    let rest = client.rest().await;
    assert_eq!(rest.finished(streams[1]).len(), 1);
}

#[tokio::test]
async fn a_peer_that_stops_at_its_window_is_granted_more() {
    let serving = Serving::new().await;
    let sent = pattern(1 << 20);
    let mut client = SpdyClient::new(spdy(&serving.exec("io", &["hash"]), V4).await);
    let streams = client.open_types(&["error", "stdin", "stdout"]).await;
    let (mut stream_window, mut window) = (64 * 1024, 64 * 1024);
    for piece in sent.chunks(16 * 1024) {
        while stream_window < piece.len() || window < piece.len() {
            match client.frame().await {
                Some(Frame::WindowUpdate { stream: 0, delta }) => window += delta as usize,
                Some(Frame::WindowUpdate { delta, .. }) => stream_window += delta as usize,
                other => panic!("{other:?}"),
            }
        }
        client.data(streams[1], NONE, piece).await;
        stream_window -= piece.len();
        window -= piece.len();
    }
    client.data(streams[1], FIN, b"").await;
    let rest = client.rest().await;
    assert_eq!(rest.text(streams[2]), hex(&Sha256::digest(&sent)));
}

/// As moby/spdystream, but for PING, which it does not answer while its own queues are full.
#[tokio::test]
async fn a_peer_that_answers_nothing_gets_all() {
    let serving = Serving::new().await;
    let mut client = SpdyClient::new(spdy(&serving.exec("o", &["talk", "1000000"]), V4).await);
    let streams = client.open_types(&["error", "stdout"]).await;
    let mut got = 0;
    loop {
        match client.frame().await {
            Some(Frame::Data { stream, data, fin }) if stream == streams[1] => {
                got += data.len();
                if fin {
                    break;
                }
            }
            Some(Frame::Ping(2) | Frame::Data { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, 1_000_000);
}

#[tokio::test]
async fn connections_are_forwarded_side_by_side() {
    let serving = Serving::new().await;
    let mut client = SpdyClient::new(spdy(&serving.port_forward(&[]), FORWARD).await);
    let mut pairs = Vec::new();
    for number in 0..20 {
        pairs.push(client.open_pair(ECHO, &number.to_string()).await);
    }
    let (hash, hash_error) = client.open_pair(HASH, "hash").await;
    for (number, (data, _)) in (0u8..).zip(&pairs) {
        client.data(*data, FIN, &[number; 1_000]).await;
    }
    client.data(hash, NONE, b"half").await;
    client.data(hash, FIN, b"closed").await;
    let mut said = std::collections::HashMap::<u32, Vec<u8>>::new();
    let mut ended = 0;
    while ended < 2 * pairs.len() + 2 {
        let Some(Frame::Data { stream, fin, data }) = client.frame().await else {
            panic!("no data");
        };
        said.entry(stream).or_default().extend(data);
        ended += usize::from(fin);
    }
    for (number, (data, error)) in (0u8..).zip(&pairs) {
        assert_eq!(said[data], [number; 1_000]);
        assert!(said[error].is_empty());
    }
    assert_eq!(said[&hash], hex(&Sha256::digest(b"halfclosed")).as_bytes());
    assert!(said[&hash_error].is_empty());
    until("nothing is forwarded", || serving.commands.live() == 0).await;
}

#[tokio::test]
async fn a_connection_that_fails_is_told_of_and_others_go_on() {
    let serving = Serving::new().await;
    let mut client = SpdyClient::new(spdy(&serving.port_forward(&[]), FORWARD).await);
    let (data, error) = client.open_pair(1, "refused").await;
    let mut said = String::new();
    let mut ended = 0;
    while ended < 2 {
        let Some(Frame::Data { stream, fin, data }) = client.frame().await else {
            panic!("no data");
        };
        assert!(stream == error || data.is_empty());
        said += std::str::from_utf8(&data).unwrap();
        ended += u8::from(fin);
    }
    assert_eq!(
        said,
        "error forwarding port 1 to pod pod: connection refused"
    );
    // A client resets its stream, and learns nothing more of it but the end of its error stream.
    client.reset(data).await;
    let (talk, talk_error) = client.open_pair(TALK, "reset").await;
    until("it talks", || serving.commands.live() == 1).await;
    client.reset(talk).await;
    until("it is silent", || serving.commands.live() == 0).await;
    loop {
        match client.frame().await {
            Some(Frame::Data {
                stream,
                fin: true,
                data,
            }) if stream == talk_error => {
                assert!(data.is_empty());
                break;
            }
            Some(Frame::Data { stream, .. }) if stream == talk => {}
            Some(Frame::Ping(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let (echo, _) = client.open_pair(ECHO, "again").await;
    client.data(echo, NONE, b"still here").await;
    let (stream, fin, data) = (echo, false, b"still here".to_vec());
    assert_eq!(
        client.frame().await,
        Some(Frame::Data { stream, fin, data })
    );
}

#[tokio::test]
async fn streams_that_say_wrongly_what_they_are_for_are_refused() {
    let serving = Serving::new().await;
    let mut client = SpdyClient::new(spdy(&serving.port_forward(&[ECHO]), FORWARD).await);
    let wrong: &[&[(&str, &str)]] = &[
        &[("streamtype", "data")],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "data"), ("port", "65536")],
        &[("streamtype", "other"), ("port", "7")],
        &[("port", "7")],
        // Not what the session is for.
        &[("streamtype", "data"), ("port", "8")],
    ];
    for headers in wrong {
        let stream = client.open(headers).await;
        let status = 3;
        assert_eq!(client.frame().await, Some(Frame::Reset { stream, status }));
    }
    // A client of old: no request ids.
    let error = client.open(&[("streamtype", "error"), ("port", "7")]).await;
    let data = client.open(&[("streamtype", "data"), ("port", "7")]).await;
    assert_eq!(client.frame().await, Some(Frame::Reply(error)));
    assert_eq!(client.frame().await, Some(Frame::Reply(data)));
    client.data(data, NONE, b"x").await;
    assert!(matches!(client.frame().await, Some(Frame::Data { .. })));
}

#[tokio::test]
async fn streams_that_do_not_come_end_the_session() {
    let config = StreamConfig {
        stream_creation_timeout: std::time::Duration::from_secs(1),
        ..StreamConfig::default()
    };
    let serving = Serving::with(config).await;
    let mut client = SpdyClient::new(spdy(&serving.exec("o", &["exit", "0"]), V4).await);
    let streams = client.open_types(&["error"]).await;
    let rest = client.rest().await;
    assert!(rest.text(streams[0]).contains("timed out waiting"));
    let mut client = SpdyClient::new(spdy(&serving.port_forward(&[]), FORWARD).await);
    let headers = [("streamtype", "error"), ("port", "7"), ("requestid", "1")];
    let stream = client.open(&headers).await;
    assert_eq!(client.frame().await, Some(Frame::Reply(stream)));
    let Some(Frame::Data { data, .. }) = client.frame().await else {
        panic!("no text");
    };
    assert!(String::from_utf8(data).unwrap().contains("timed out"));
}
