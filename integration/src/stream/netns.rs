//! Servers in pods, in this process.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use tokio::net::TcpListener;

/// Listens on a port of the pod's loopback that the kernel chooses, in the network namespace of process `pid`.
///
/// # Errors
/// When the namespace cannot be entered, or not listened in.
pub fn listen_in_pod(pid: u32) -> Result<TcpListener> {
    listen_in_pod_at(pid, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// The same at another address.
///
/// # Errors
/// As for [`listen_in_pod`].
pub fn listen_in_pod_at(pid: u32, address: SocketAddr) -> Result<TcpListener> {
    // A thread of its own, which ends in the pod's namespace: no other ever runs there.
    let listening = std::thread::spawn(move || -> Result<std::net::TcpListener> {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = std::fs::File::open(&path).with_context(|| format!("opening {path}"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the pod's network")?;
        Ok(std::net::TcpListener::bind(address)?)
    });
    let listener = listening
        .join()
        .map_err(|_| anyhow!("the thread panicked"))??;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}
