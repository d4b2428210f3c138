//! Hostile and broken streaming clients: each gets an end, another pod does not notice, and the daemon holds
//! afterwards what it held before.

mod client;
mod frames;
mod neighbour;

use std::collections::VecDeque;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use podwright_cri_api::v1::ExecRequest;
use podwright_integration::{
    node::{Node, until},
    patience::amount,
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

use client::{Connection, Upgrade, exec_url, port_forward_url};
use frames::*;
use neighbour::{Holdings, Neighbour};

/// A node with a pod that is attacked, and another one.
struct Scene {
    node: Node,
    pod: String,
    id: String,
    neighbour: Neighbour,
    before: Holdings,
}

impl Scene {
    async fn set() -> Result<Self> {
        let node = Node::start().await?;
        let pod = node.cri.run_pod(PodSpec::new("attacked")).await?;
        let id = node.cri.run(&pod, ContainerSpec::new("attacked")).await?;
        let neighbour = Neighbour::start(&node).await?;
        // What is made once, at the first use, is no leak.
        let url = exec_url(&node, &id, "exit 0").await?;
        let mut first = Connection::upgraded(&url, Upgrade::WebSocket).await?;
        first.closed().await?;
        Ok(Self {
            before: Holdings::of(&node)?,
            pod: pod.id,
            node,
            id,
            neighbour,
        })
    }

    /// Checks that the daemon has not grown by more than this in KiB, whatever is open.
    fn within(&self, limit: u64, what: &str) -> Result<()> {
        let grown = self.before.grown()?;
        ensure!(grown <= limit, "{what}: {grown} KiB more in the daemon");
        Ok(())
    }

    /// Checks that the neighbour did not notice, and that nothing is left.
    async fn end(self) -> Result<()> {
        self.wait_quiet().await?;
        self.neighbour.finish().await?;
        self.before.wait_back().await?;
        self.node.finish().await
    }

    /// An exec of `script` whose client is a raw connection.
    async fn upgraded(&self, to: Upgrade, script: &str) -> Result<Connection> {
        Connection::upgraded(&exec_url(&self.node, &self.id, script).await?, to).await
    }

    /// Waits until no command of a client is left.
    async fn wait_quiet(&self) -> Result<()> {
        until("the commands of clients that left to end", || async {
            // The shell that asks, and the program that it runs.
            let script = "set -- /proc/[0-9]*/cmdline; for file do tr '\\0' ' ' < $file; echo; done 2>/dev/null";
            let list = self.node.cri.shell(&self.id, script).await;
            let list = list.map_err(|error| format!("{error:#}"))?;
            let of_clients = |line: &&str| line.contains("mark=") || line.starts_with("cat ");
            let left: Vec<_> = list.lines().filter(of_clients).collect();
            left.is_empty().then_some(()).ok_or(format!("{left:?}"))
        })
        .await
    }
}

/// A script that goes on, and is found by its mark among the container's processes.
const ENDLESS: &str = ": mark=endless; cat";

#[tokio::test]
async fn requests_without_a_right_run_nothing() -> Result<()> {
    let scene = Scene::set().await?;
    let (node, id) = (&scene.node, &scene.id);
    let script = "touch /ran";
    let spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    for (what, method, headers, expected) in [
        ("no upgrade", "GET", "", 400),
        ("no protocol", "POST", spdy, 400),
        ("another method", "PUT", "", 405),
        (
            "no HTTP/2",
            "POST",
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            400,
        ),
    ] {
        let url = exec_url(node, id, script).await?;
        let mut connection = Connection::open(&url).await?;
        connection.request(method, &url, headers).await?;
        assert_eq!(connection.status().await?, expected, "{what}");
        connection.closed().await.context(what)?;
    }

    let url = exec_url(node, id, script).await?;
    let token = url.path.rsplit('/').next().unwrap_or_default();
    let mut guess = token.to_owned();
    let last = guess.pop().context("an empty token")?;
    guess.push(if last == 'A' { 'B' } else { 'A' });
    let wrong = [
        "/".to_owned(),
        "/exec".to_owned(),
        "/exec/".to_owned(),
        format!("/exec/{guess}"),
        format!("/exec/{token}/more"),
        format!("/{token}"),
        format!("/exec/..%2Fexec%2F{token}"),
        format!("/exec/{}", "x".repeat(8000)),
    ];
    for path in wrong {
        for to in [Upgrade::Spdy, Upgrade::WebSocket] {
            let (status, _) = Connection::asked(&url.with_path(&path), to).await?;
            assert_eq!(status, 404, "{to:?} {path:.60}");
        }
    }
    // A right for one thing is none for another, and showing it there ends it.
    let elsewhere = url.with_path(&format!("/attach/{token}"));
    for url in [&elsewhere, &url] {
        assert_eq!(Connection::asked(url, Upgrade::Spdy).await?.0, 404);
    }
    let ran = node.cri.exec(id, &["ls", "/ran"], 10).await?;
    assert_ne!(ran.exit_code, 0, "a request without a right was served");

    // Once is once, whoever comes at the same time.
    let url = exec_url(node, id, "echo ran >> /once").await?;
    let asked = try_join_all((0..20).map(|_| Connection::asked(&url, Upgrade::WebSocket)));
    let mut asked = asked.await?;
    asked.sort_unstable_by_key(|(status, _)| *status);
    let statuses: Vec<_> = asked.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses[..1], [101]);
    assert_eq!(statuses[1..], [404; 19]);
    asked[0].1.closed().await?;
    assert_eq!(node.cri.shell(id, "cat /once").await?, "ran\n");
    scene.end().await
}

#[tokio::test]
async fn heads_that_are_none_end_their_connection() -> Result<()> {
    let scene = Scene::set().await?;
    let url = exec_url(&scene.node, &scene.id, "exit 0").await?;
    let endless = format!("GET {} HTTP/1.1\r\nX: {}", url.path, "x".repeat(1 << 20));
    let many = format!(
        "GET {} HTTP/1.1\r\n{}\r\n",
        url.path,
        "X: x\r\n".repeat(10_000)
    );
    // The beginning of TLS, of HTTP/2, of nothing.
    for (what, bytes) in [
        ("TLS", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("zeros", &[0; 4096]),
        ("no version", b"GET /\r\n\r\n"),
        ("a long head", endless.as_bytes()),
        ("many headers", many.as_bytes()),
    ] {
        let mut connection = Connection::open(&url).await?;
        // It may be closed while this is being sent.
        let _ = connection.send(bytes).await;
        connection.closed().await.context(what)?;
    }
    scene.end().await
}

/// So many connections, of which as many are held as this process may have descriptors for.
const CONNECTIONS: usize = 10_000;
/// Descriptors for everything else that tests of this process do.
const SPARED: u64 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_leave_others_alone() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let held = usize::try_from(hard.saturating_sub(SPARED))?.min(amount(CONNECTIONS));
    let scene = Scene::set().await?;
    let url = exec_url(&scene.node, &scene.id, "exit 0").await?;
    let mut connections = VecDeque::new();
    for number in 0..amount(CONNECTIONS) {
        let mut connection = Connection::open(&url).await?;
        // Some say nothing, some begin to, and wait.
        if number % 2 == 0 {
            let _ = connection.send(b"GET /exec/").await;
        }
        connections.push_back(connection);
        if connections.len() > held {
            connections.pop_front();
        }
    }
    scene.within(64 * 1024, "connections")?;
    // Among all of them, one with a right is served.
    let mut served = scene.upgraded(Upgrade::WebSocket, "exit 0").await?;
    served.closed().await?;
    // The server closes them all by itself, long before these clients do.
    for mut connection in connections {
        connection.closed().await?;
    }
    scene.end().await
}

#[tokio::test]
async fn urls_that_nobody_uses_are_bounded() -> Result<()> {
    let scene = Scene::set().await?;
    let mut runtime = scene.node.cri.client().runtime;
    let request = ExecRequest {
        container_id: scene.id.clone(),
        cmd: vec!["true".to_owned()],
        stdout: true,
        ..ExecRequest::default()
    };
    let mut given = 0;
    let refused = loop {
        match runtime.exec(request.clone()).await {
            Ok(_) if given == 100_000 => anyhow::bail!("{given} URLs were given"),
            Ok(_) => given += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    scene.neighbour.finish().await?;
    scene.node.finish().await
}

/// Sessions whose clients read nothing.
const SLOW: usize = 24;

#[tokio::test]
async fn slow_readers_are_not_fed() -> Result<()> {
    let scene = Scene::set().await?;
    let script = ": mark=endless; cat /dev/zero";
    // SPDY has output only on streams that the client opens, and flow control of its own: WebSocket is the worse.
    let sessions = (0..SLOW).map(|_| scene.upgraded(Upgrade::WebSocket, script));
    let sessions = try_join_all(sessions).await?;
    try_join_all(sessions.iter().map(Connection::readable)).await?;
    // In this time gigabytes could flow.
    for _ in 0..amount(100) {
        scene.node.cri.shell(&scene.id, "true").await?;
        scene.within(32 * 1024, "slow readers")?;
    }
    drop(sessions);
    scene.end().await
}

#[tokio::test]
async fn broken_web_sockets_end_alone() -> Result<()> {
    let scene = Scene::set().await?;
    for (what, bytes) in [
        ("a frame without a mask", unmasked(b"\0abc")),
        ("2^63 bytes", claims(1 << 63)),
        ("2^62 bytes", claims(1 << 62)),
        ("a gigabyte", claims(1 << 30)),
        ("a reserved opcode", masked(LAST | RESERVED, b"\0abc")),
        ("an extension", masked(LAST | EXTENSION | BINARY, b"\0abc")),
        ("a long ping", masked(LAST | PING, &[0; 126])),
        ("a ping in parts", masked(PING, b"ping")),
        (
            "an end without a beginning",
            masked(LAST | CONTINUATION, b"\0abc"),
        ),
        (
            "a beginning within a message",
            [masked(BINARY, b"\0abc"), masked(LAST | BINARY, b"\0abc")].concat(),
        ),
    ] {
        let mut session = scene.upgraded(Upgrade::WebSocket, ENDLESS).await?;
        session.send(&bytes).await.context(what)?;
        session.closed().await.context(what)?;
    }
    // Odd, and no reason to end: other channels, nothing at all, more pings than anybody answers.
    let mut session = scene.upgraded(Upgrade::WebSocket, ENDLESS).await?;
    session.send(&masked(LAST | BINARY, b"")).await?;
    session.send(&masked(LAST | BINARY, b"\x09abc")).await?;
    let pings = masked(LAST | PING, &[b'p'; 125]).repeat(10_000);
    let _ = session.send(&pings).await;
    drop(session);
    scene.end().await
}

/// Bytes after which a SPDY connection is of no use.
fn broken_spdy() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let good = headers(1, &[("streamtype", "stdin")])?;
    Ok(vec![
        (
            "a wrong version",
            [&head(2, SYN_STREAM, 10)[..], &[0; 10]].concat(),
        ),
        (
            "16 MiB of a frame",
            head(3, SYN_STREAM, 0x00ff_ffff).to_vec(),
        ),
        ("a frame that is too short", control(SYN_STREAM, &[0; 4])),
        ("no compressed headers", syn_stream(1, &[0xff; 64])),
        ("a bomb", syn_stream(1, &bomb(256 << 20)?)),
        ("stream 0", syn_stream(0, &good)),
        (
            "streams that run backwards",
            [syn_stream(5, &good), syn_stream(3, &good)].concat(),
        ),
        ("many settings", control(SETTINGS, &u32::MAX.to_be_bytes())),
    ])
}

#[tokio::test]
async fn broken_spdy_ends_alone() -> Result<()> {
    // Made first: to compress a bomb takes seconds in an emulated machine, in which this thread would not ask the neighbour.
    let broken = broken_spdy()?;
    let scene = Scene::set().await?;
    for (what, bytes) in broken {
        let mut session = scene.upgraded(Upgrade::Spdy, ENDLESS).await?;
        let _ = session.send(&bytes).await;
        session.closed().await.context(what)?;
        scene.within(64 * 1024, what)?;
    }
    // Odd, and perhaps no reason to end: whatever the server does, it does not stay when the client leaves.
    let good = headers(1, &[("streamtype", "stdin")])?;
    let window = pair(WINDOW_UPDATE, 1, 0x7fff_ffff).repeat(2);
    for (what, bytes) in [
        // As the beginning of a data frame of some stream, of three megabytes.
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("headers cut off", syn_stream(1, &good[..good.len() / 2])),
        ("a server's stream", syn_stream(2, &good)),
        ("too many headers", syn_stream(1, &headers(u32::MAX, &[])?)),
        ("data of no stream", data(77, b"abc")),
        ("a reply to nothing", pair(SYN_REPLY, 77, 0)),
        ("a reset of nothing", pair(RST_STREAM, 77, 5)),
        ("a window beyond its limit", window),
        ("an unknown frame", control(99, b"abc")),
        (
            "a flood of pings",
            control(SPDY_PING, &[0, 0, 0, 1]).repeat(100_000),
        ),
    ] {
        let mut session = scene.upgraded(Upgrade::Spdy, ENDLESS).await?;
        let _ = session.send(&bytes).await;
        scene.within(64 * 1024, what)?;
    }
    scene.end().await
}

#[tokio::test]
async fn port_forwards_that_break_end_alone() -> Result<()> {
    let scene = Scene::set().await?;
    let stream = |number: u32, kind: &str, port: &str| {
        let headers = headers(
            3,
            &[("streamtype", kind), ("port", port), ("requestid", "1")],
        )?;
        anyhow::Ok(syn_stream(number, &headers))
    };
    // Ports that are none, a port that nobody listens on, more pairs of streams than anybody needs.
    for port in ["", "0", "-1", "65536", "http", "4242"] {
        let mut session = forwarded(&scene).await?;
        session.send(&stream(1, "error", port)?).await?;
        session.send(&stream(3, "data", port)?).await?;
        session.readable().await.context(port.to_owned())?;
    }
    let mut session = forwarded(&scene).await?;
    for number in 0..50_000 {
        let kind = if number % 2 == 0 { "error" } else { "data" };
        if session
            .send(&stream(2 * number + 1, kind, "4242")?)
            .await
            .is_err()
        {
            break;
        }
    }
    scene.within(64 * 1024, "streams")?;
    drop(session);
    scene.end().await
}

async fn forwarded(scene: &Scene) -> Result<Connection> {
    let url = port_forward_url(&scene.node, &scene.pod).await?;
    let mut connection = Connection::open(&url).await?;
    let headers = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                   X-Stream-Protocol-Version: portforward.k8s.io\r\n";
    connection.request("POST", &url, headers).await?;
    let status = connection.status().await?;
    ensure!(status == 101, "the port-forward was answered {status}");
    Ok(connection)
}
