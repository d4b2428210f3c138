//! Connections into pods.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use podwright_integration::{
    node::{Node, deadline},
    patience::amount,
    pod::{ContainerSpec, PodSpec},
    stream::{Running, Session, Transport, listen_in_pod},
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use super::{crictl, ensure_contains, send_pattern, sleeping};

/// A forwarded port's channels.
const DATA: u8 = 0;
const ERROR: u8 = 1;

async fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr)> {
    let accepted = tokio::time::timeout(deadline(), listener.accept()).await;
    Ok(accepted.context("no connection came")??)
}

/// The first message of each channel names the port.
async fn expect_port(session: &mut Session, port: u16) -> Result<()> {
    for channel in [DATA, ERROR] {
        let (from, data) = session.receive().await?.context("it ended")?;
        assert_eq!((from, &data[..]), (channel, &port.to_le_bytes()[..]));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarter_of_a_gibibyte_arrives_whole_both_ways() -> Result<()> {
    let blocks = amount(4096);
    let length = blocks * 65536;
    let (node, pod, id) = sleeping().await?;
    let listener = listen_in_pod(node.cri.container_pid(&id).await?)?;
    let port = listener.local_addr()?.port();
    // Sends back what comes, and hashes it.
    let server = tokio::spawn(async move {
        let (mut socket, _) = accept(&listener).await?;
        let (mut hash, mut buffer, mut left) = (Sha256::new(), vec![0; 1 << 17], length);
        while left > 0 {
            let count = socket.read(&mut buffer).await?;
            anyhow::ensure!(count > 0, "the client ended {left} bytes early");
            hash.update(&buffer[..count]);
            socket.write_all(&buffer[..count]).await?;
            left -= count;
        }
        anyhow::Ok(<[u8; 32]>::from(hash.finalize()))
    });
    let mut session = node.cri.forward(&pod.id, port).await?;
    expect_port(&mut session, port).await?;
    let (mut sending, mut receiving) = session.split();
    let sent = tokio::spawn(async move {
        let hash = send_pattern(&mut sending, DATA, blocks).await?;
        anyhow::Ok((hash, sending))
    });
    let (mut hash, mut left) = (Sha256::new(), length);
    while left > 0 {
        let (channel, data) = receiving.receive().await?.context("it ended early")?;
        assert_eq!(channel, DATA, "{}", String::from_utf8_lossy(&data));
        hash.update(&data);
        left -= data.len();
    }
    let (expected, _sending) = sent.await??;
    assert_eq!(server.await??, expected, "to the pod");
    assert_eq!(<[u8; 32]>::from(hash.finalize()), expected, "and back");
    node.finish().await
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told() -> Result<()> {
    let (node, pod, id) = sleeping().await?;
    let listener = listen_in_pod(node.cri.container_pid(&id).await?)?;
    let port = listener.local_addr()?.port();
    drop(listener);
    let mut session = node.cri.forward(&pod.id, port).await?;
    expect_port(&mut session, port).await?;
    let (channel, data) = session.receive().await?.context("no word of it")?;
    let text = String::from_utf8_lossy(&data).into_owned();
    assert_eq!(channel, ERROR, "{text}");
    ensure_contains(&text, &port.to_string())?;
    ensure_contains(&text, "onnection refused")?;
    node.finish().await
}

#[tokio::test]
async fn requests_that_cannot_succeed_are_refused_at_once() -> Result<()> {
    let (node, pod, _) = sleeping().await?;
    let many: Vec<i32> = (1..1000).collect();
    for (sandbox, ports, code) in [
        ("", &[][..], Code::InvalidArgument),
        ("nosuch", &[], Code::NotFound),
        (&pod.id, &[0], Code::InvalidArgument),
        (&pod.id, &[-1], Code::InvalidArgument),
        (&pod.id, &[65_536], Code::InvalidArgument),
        (&pod.id, &many, Code::InvalidArgument),
    ] {
        let refused = node.cri.port_forward_url(sandbox, ports).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    node.cri.stop_pod(&pod.id).await?;
    let refused = node.cri.port_forward_url(&pod.id, &[80]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    node.finish().await
}

/// crictl port-forward from a port that the kernel chooses; the program and its local address.
async fn forwarding(
    node: &Node,
    transport: Transport,
    pod: &str,
    port: u16,
) -> Result<(Running, SocketAddr)> {
    let command = crictl(node, transport, "port-forward", &[pod, &format!(":{port}")]).await?;
    let mut running = Running::start(command)?;
    let said = running.until_stdout(&format!(" -> {port}\n")).await?;
    let local = said
        .lines()
        .find_map(|line| line.strip_prefix("Forwarding from 127.0.0.1:"))
        .and_then(|rest| rest.split(' ').next())
        .with_context(|| format!("no local port in {said:?}"))?;
    Ok((
        running,
        SocketAddr::from((Ipv4Addr::LOCALHOST, local.parse()?)),
    ))
}

/// Answers once the client has half-closed: with its words in capitals.
async fn answer_at_the_end(listener: &TcpListener) -> Result<()> {
    let (mut socket, _) = accept(listener).await?;
    let mut said = String::new();
    socket.read_to_string(&mut said).await?;
    socket.write_all(said.to_uppercase().as_bytes()).await?;
    Ok(())
}

async fn ask(local: SocketAddr, question: &str) -> Result<String> {
    let mut socket = TcpStream::connect(local).await?;
    socket.write_all(question.as_bytes()).await?;
    socket.shutdown().await?;
    let mut answer = String::new();
    let read = socket.read_to_string(&mut answer);
    tokio::time::timeout(deadline(), read)
        .await
        .context("no end of the answer")??;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closing_passes_through_crictl() -> Result<()> {
    let (node, pod, id) = sleeping().await?;
    let listener = listen_in_pod(node.cri.container_pid(&id).await?)?;
    let port = listener.local_addr()?.port();
    for transport in Transport::ALL {
        let (running, local) = forwarding(&node, transport, &pod.id, port).await?;
        // A connection that breaks does not end the others.
        drop(TcpStream::connect(local).await?);
        let (broken, _) = accept(&listener).await?;
        broken.set_zero_linger()?;
        drop(broken);
        for question in ["first", "second"] {
            let (answered, answer) =
                tokio::join!(answer_at_the_end(&listener), ask(local, question));
            answered?;
            assert_eq!(answer?, question.to_uppercase(), "{transport:?}");
        }
        running.kill().await?;
    }
    drop(listener);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_on_the_hosts_network_are_reached_there() -> Result<()> {
    let node = Node::start().await?;
    let pod = node
        .cri
        .run_pod(PodSpec::new("host").host_network())
        .await?;
    node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let (running, local) = forwarding(&node, Transport::Spdy, &pod.id, port).await?;
    let (answered, answer) = tokio::join!(answer_at_the_end(&listener), ask(local, "host"));
    answered?;
    assert_eq!(answer?, "HOST");
    running.kill().await?;
    node.finish().await
}

#[tokio::test]
async fn servers_that_listen_on_ipv6_alone_are_reached() -> Result<()> {
    let (node, pod, id) = sleeping().await?;
    let listener = podwright_integration::stream::listen_in_pod_at(
        node.cri.container_pid(&id).await?,
        "[::1]:0".parse()?,
    )?;
    let port = listener.local_addr()?.port();
    let mut session = node.cri.forward(&pod.id, port).await?;
    expect_port(&mut session, port).await?;
    session.send(DATA, b"ping").await?;
    let (mut socket, _) = accept(&listener).await?;
    let mut said = [0; 4];
    socket.read_exact(&mut said).await?;
    assert_eq!(&said, b"ping");
    socket.write_all(b"pong").await?;
    let (channel, data) = session.receive().await?.context("no answer")?;
    assert_eq!((channel, &data[..]), (DATA, &b"pong"[..]));
    drop((socket, listener));
    // The session still stands; it ends with its pod.
    node.finish().await
}
