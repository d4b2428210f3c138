//! How fast bytes go over loopback: `cargo test --release -p podwright-stream --features measure speed -- --nocapture`.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::{spdy, web_socket};
use super::serving::Serving;
use super::spdy_client::{FIN, SpdyClient};

const BYTES: usize = 4 << 30;
const PIECE: usize = 32 * 1024;

fn report(what: &str, since: Instant) {
    let speed = BYTES as f64 / f64::from(1 << 20) / since.elapsed().as_secs_f64();
    println!("{what}: {speed:.0} MiB/s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speed() {
    let serving = Serving::new().await;
    let talk = || serving.exec("o", &["talk", &BYTES.to_string()]);
    let v4 = "v4.channel.k8s.io";
    let v5 = "v5.channel.k8s.io";

    let mut client = SpdyClient::new(spdy(&talk(), v4).await);
    client.open_types(&["error", "stdout"]).await;
    let since = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    // The client understands nothing: it costs less than the server.
    while client.transport.read(&mut buffer).await.unwrap() > 0 {}
    report("SPDY to the client", since);

    let mut client = SpdyClient::new(spdy(&serving.exec("io", &["count"]), v4).await);
    let streams = client.open_types(&["error", "stdin", "stdout"]).await;
    let since = Instant::now();
    let frame = [&streams[1].to_be_bytes()[..], &[0, 0, 0x80, 0], &[7; PIECE]].concat();
    let frames = frame.repeat(16);
    for _ in 0..BYTES / PIECE / 16 {
        client.transport.write_all(&frames).await.unwrap();
    }
    client.data(streams[1], FIN, b"").await;
    assert_eq!(client.rest().await.text(streams[2]), BYTES.to_string());
    report("SPDY from the client", since);

    let mut client = web_socket(&talk(), v5).await;
    let since = Instant::now();
    // Until the close frame, which is not answered.
    loop {
        let read = client.read(&mut buffer).await.unwrap();
        if buffer[..read].ends_with(&[0x88, 2, 3, 0xe8]) {
            break;
        }
    }
    report("WebSocket to the client", since);

    let mut client = web_socket(&serving.exec("io", &["count"]), v5).await;
    let since = Instant::now();
    // Masked with zeros, which costs the client nothing and the server what it always does.
    let length = (1 + PIECE as u16).to_be_bytes();
    let frame = [&[0x82, 0xfe][..], &length, &[0; 4], &[0], &[7; PIECE]].concat();
    let frames = frame.repeat(16);
    for _ in 0..BYTES / PIECE / 16 {
        client.write_all(&frames).await.unwrap();
    }
    client
        .write_all(&[0x82, 0x82, 0, 0, 0, 0, 255, 0])
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(&[0x88, 2, 3, 0xe8]) {
        answer.push(client.read_u8().await.unwrap());
    }
    let count = BYTES.to_string();
    assert!(
        answer
            .windows(count.len())
            .any(|text| text == count.as_bytes())
    );
    report("WebSocket from the client", since);
}
