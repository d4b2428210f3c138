//! Clients that go without a word. All that their sessions hold goes with them.

use std::time::Duration;

use futures_util::SinkExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Handle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::backend::{ECHO, SILENT, TALK, pattern};
use super::client::{soon, spdy, until, web_socket};
use super::serving::Serving;
use super::spdy_client::{NONE, SpdyClient};
use crate::StreamConfig;

const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";

/// A client of some kind, that does something until it is dropped.
async fn client(serving: &Serving, kind: usize) {
    match kind % 5 {
        0 => {
            let mut client = SpdyClient::new(spdy(&serving.exec("io", &["cat"]), V4).await);
            let streams = client.open_types(&["error", "stdin", "stdout"]).await;
            loop {
                client.data(streams[1], NONE, &[7; 10_000]).await;
                client.frame().await;
            }
        }
        1 => {
            let url = serving.exec("o", &["talk", "1000000000"]);
            let mut client = SpdyClient::new(spdy(&url, V4).await);
            client.open_types(&["error", "stdout"]).await;
            std::future::pending().await
        }
        2 => {
            let mut client =
                SpdyClient::new(spdy(&serving.port_forward(&[]), "portforward.k8s.io").await);
            let mut data = Vec::new();
            for (request, port) in ["1", "2", "3"].iter().zip([SILENT, ECHO, SILENT]) {
                data.push(client.open_pair(port, request).await.0);
            }
            loop {
                client.data(data[0], NONE, &[7; 10_000]).await;
            }
        }
        3 => {
            let stream = web_socket(&serving.attach("io", "there"), V5).await;
            let mut client = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
            loop {
                let message = Message::Binary(vec![0; 10_000].into());
                client.send(message).await.unwrap();
            }
        }
        _ => {
            let _client = web_socket(&serving.port_forward(&[TALK, SILENT]), V4).await;
            std::future::pending().await
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_at_random_they_leave_nothing() {
    let serving = Serving::new().await;
    let metrics = Handle::current().metrics();
    let tasks = metrics.num_alive_tasks();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut random = pattern(300).into_iter();
    for batch in 0..30 {
        let clients = (0..10).map(|number| {
            let after = Duration::from_millis(u64::from(random.next().unwrap()) / 4);
            tokio::time::timeout(after, client(&serving, batch * 10 + number))
        });
        futures_util::future::join_all(clients).await;
    }
    until("no future lives", || serving.commands.live() == 0).await;
    until("no task lives", || metrics.num_alive_tasks() == tasks).await;
    assert!(descriptors() < 1_000);
}

/// FIN behind data that nobody reads: epoll tells of it all the same.
#[tokio::test]
async fn one_that_closes_behind_unread_data_is_missed() {
    let serving = Serving::new().await;
    let mut client = SpdyClient::new(spdy(&serving.exec("i", &["hang"]), V4).await);
    let streams = client.open_types(&["error", "stdin"]).await;
    until("it runs", || serving.commands.live() == 1).await;
    // `hang` has stdin and does not read it.
    client.data(streams[1], NONE, &pattern(512 * 1024)).await;
    client.transport.shutdown().await.unwrap();
    until("it is over", || serving.commands.live() == 0).await;
}

#[tokio::test]
async fn one_that_says_nothing_is_given_up() {
    let config = StreamConfig {
        idle_timeout: Duration::from_secs(1),
        ..StreamConfig::default()
    };
    let serving = Serving::with(config).await;
    let mut client = SpdyClient::new(spdy(&serving.exec("o", &["hang"]), V4).await);
    client.open_types(&["error", "stdout"]).await;
    assert_eq!(client.frame().await, None);
    let stream = web_socket(&serving.exec("o", &["hang"]), V5).await;
    let mut stream = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    soon("the end", async {
        use futures_util::StreamExt as _;
        while let Some(Ok(_)) = stream.next().await {}
    })
    .await;
    until("nothing lives", || serving.commands.live() == 0).await;
}
