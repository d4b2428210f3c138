//! The beginning of every client: a connection, and a request that is upgraded.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Nothing here takes so long, but on a machine that is busy.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// Waits until a condition holds, that nothing tells of.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    soon(what, async {
        while !condition() {
            looks.tick().await;
        }
    })
    .await;
}

/// An answer, and the connection behind it.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) stream: TcpStream,
}

impl Answer {
    /// What follows the head, to the connection's end.
    pub(super) async fn body(mut self) -> String {
        let mut body = String::new();
        soon("the body", self.stream.read_to_string(&mut body))
            .await
            .unwrap();
        body
    }
}

/// `http://host:port/path` in its parts.
pub(super) fn parts(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").unwrap().1;
    let at = rest.find('/').unwrap();
    (&rest[..at], &rest[at..])
}

pub(super) async fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(parts(url).0).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends a request and reads the head of the answer.
pub(super) async fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = connect(url).await;
    let (host, path) = parts(url);
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the answer", stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    Answer {
        status: head[9..12].parse().unwrap(),
        head,
        stream,
    }
}

/// A request that is upgraded to SPDY.
pub(super) async fn spdy(url: &str, protocols: &str) -> TcpStream {
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "SPDY/3.1"),
        ("X-Stream-Protocol-Version", protocols),
    ];
    let answer = request("POST", url, &headers).await;
    assert_eq!(answer.status, 101, "{}", answer.head);
    answer.stream
}

/// A request that is upgraded to WebSocket; RFC 6455's example of a key.
pub(super) async fn web_socket(url: &str, protocols: &str) -> TcpStream {
    let mut headers = vec![
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    if !protocols.is_empty() {
        headers.push(("Sec-WebSocket-Protocol", protocols));
    }
    let answer = request("GET", url, &headers).await;
    assert_eq!(answer.status, 101, "{}", answer.head);
    let accept = "Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    assert!(answer.head.contains(accept), "{}", answer.head);
    answer.stream
}
