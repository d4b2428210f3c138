//! A connection to a port in a pod.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use podwright_stream::{Duplex, Incoming, Outgoing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use super::copy::CHUNK;
use crate::error::{CallError, Kind, chain};
use crate::node::Node;
use crate::pause::Pause;

/// How long a server in a pod may take to accept. It is on the same machine: what takes longer does not work.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to the port on the pod's loopback, and copies both ways until both sides have ended.
pub(super) async fn run(
    node: &Arc<Node>,
    sandbox: &str,
    port: u16,
    data: Duplex,
) -> Result<(), CallError> {
    let sandbox = node.sandboxes.require(sandbox)?;
    let pause = sandbox.require_pause("forward a port")?;
    let connected = connect(&pause, port).await.map_err(|why| {
        let what = format!(
            "cannot connect to port {port} in the pod sandbox {}: {why}",
            sandbox.id
        );
        CallError::new(Kind::Unavailable, what)
    })?;
    if let Connected::Open(connection) = connected {
        let (from_pod, to_pod) = connection.into_split();
        let copied = async {
            tokio::join!(
                to_server(data.incoming, to_pod),
                from_server(from_pod, data.outgoing)
            )
        };
        tokio::select! {
            _ = copied => {}
            // A socket keeps the pod's network and its link alive: a client that stays must not.
            () = pause.ended() => {}
        }
    }
    Ok(())
}

/// A connection that a server has accepted.
enum Connected {
    Open(TcpStream),
    /// The server has broken it off at once.
    Broken,
}

/// Servers listen on IPv4, on IPv6 or on both: the one that is refused says nothing about the other.
async fn connect(pause: &Pause, port: u16) -> Result<Connected, String> {
    let mut refusals = Vec::new();
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ] {
        match tokio::time::timeout(CONNECT, connect_to(pause, address)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(why)) => refusals.push(format!("{address}: {why}")),
            Err(_) => refusals.push(format!("{address}: no answer in {} s", CONNECT.as_secs())),
        }
    }
    Err(refusals.join("; "))
}

async fn connect_to(pause: &Pause, address: SocketAddr) -> Result<Connected, String> {
    let family = match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    // Made by pause, in the pod's network: this process stays in its own.
    let socket: OwnedFd = pause
        .tcp_socket(family)
        .await
        .map_err(|error| chain(&error))?;
    let connecting = TcpSocket::from_std_stream(socket.into()).connect(address);
    let connected = connecting
        .await
        .and_then(|connection| connection.set_nodelay(true).map(|()| connection));
    match connected {
        Ok(connection) => Ok(Connected::Open(connection)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Connected::Broken),
        Err(error) => Err(error.to_string()),
    }
}

// A connection that breaks is the two parties' affair, who see it end: an error on one forwarded connection would make
// kubectl end all of them (Kubernetes issue 107203).

async fn to_server(mut client: Incoming, mut server: OwnedWriteHalf) {
    while let Ok(Some(chunk)) = client.chunk().await {
        if server.write_all(&chunk).await.is_err() {
            return;
        }
    }
    // ENOTCONN: the server has gone.
    let _ = server.shutdown().await;
}

async fn from_server(mut server: OwnedReadHalf, mut client: Outgoing) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match server.read_buf(&mut buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
        if client.send(buffer.split().freeze()).await.is_err() {
            return;
        }
    }
    // An error means that the client is gone.
    let _ = client.shutdown().await;
}
