//! Streamed sessions: bytes per second out of and into a command, and a pod's port.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use podwright_integration::stream::{
    IN_OUT, OUT, PORT_FORWARD, Parts, REMOTE_COMMAND_OF_ANY, STDIN, STDOUT, Session, listen_in_pod,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{Figure, Measured, Target};

/// In each direction: 4 GiB, and something that is left of it in 32 bits.
const LENGTH: usize = (4 << 30) + (1 << 20);
const BLOCK: usize = 64 * 1024;
/// A forwarded port's channel.
const DATA: u8 = 0;

/// Both ways through exec and port-forward, one after the other.
pub(crate) async fn measure(target: &Target, measured: &mut Measured) -> Result<()> {
    let pod = target.cri.run_pod(target.pod()).await?;
    // Without limits: it is not the container that is measured.
    let container = podwright_integration::pod::ContainerSpec::new("streams");
    let id = target.cri.run(&pod, container).await?;
    measured.add(Figure::ExecOut, exec_out(target, &id).await?);
    measured.add(Figure::ExecIn, exec_in(target, &id).await?);
    let (to_pod, from_pod) = forward(target, &pod.id, &id).await?;
    measured.add(Figure::ForwardIn, to_pod);
    measured.add(Figure::ForwardOut, from_pod);
    target.remove(&pod).await
}

fn rate(start: Instant) -> f64 {
    (LENGTH >> 20) as f64 / start.elapsed().as_secs_f64()
}

async fn open(target: &Target, id: &str, command: &[&str], parts: Parts) -> Result<Session> {
    let url = target.cri.exec_url(id, command, parts).await?;
    Session::open(&url, REMOTE_COMMAND_OF_ANY).await
}

async fn exec_out(target: &Target, id: &str) -> Result<f64> {
    let count = format!("count={}", LENGTH >> 18);
    let command = ["dd", "if=/dev/zero", "bs=256k", &count];
    let start = Instant::now();
    let mut session = open(target, id, &command, OUT).await?;
    let mut received = 0;
    while let Some((channel, data)) = session.receive().await? {
        received += if channel == STDOUT { data.len() } else { 0 };
    }
    ensure!(received == LENGTH, "{received} bytes came of {LENGTH}");
    Ok(rate(start))
}

async fn exec_in(target: &Target, id: &str) -> Result<f64> {
    // busybox's wc looks at each byte, and is slower than what is measured. It ends by the count: not every runtime can be told
    // the end of stdin.
    let script = format!(
        "dd of=/dev/null bs=64k iflag=fullblock count={} 2>&1",
        LENGTH / BLOCK
    );
    let start = Instant::now();
    let session = open(target, id, &["sh", "-c", &script], IN_OUT).await?;
    let (mut sending, receiving) = session.split();
    let block = vec![7; BLOCK];
    for _ in 0..LENGTH / BLOCK {
        sending.send(STDIN, &block).await?;
    }
    let counted = receiving.finish().await?;
    let rate = rate(start);
    let text = counted.text();
    ensure!(
        text.starts_with(&format!("{}+0 records in\n", LENGTH / BLOCK)),
        "dd took in {text:?}, and not {LENGTH} bytes in blocks of {BLOCK}"
    );
    Ok(rate)
}

/// To the pod, and back.
async fn forward(target: &Target, pod: &str, id: &str) -> Result<(f64, f64)> {
    let listener = listen_in_pod(target.cri.container_pid(id).await?)?;
    let port = listener.local_addr()?.port();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        let mut buffer = vec![0; 4 * BLOCK];
        let mut left = LENGTH;
        while left > 0 {
            let count = socket.read(&mut buffer).await?;
            ensure!(count > 0, "{left} bytes are missing");
            left -= count;
        }
        for _ in 0..LENGTH / buffer.len() {
            socket.write_all(&buffer).await?;
        }
        anyhow::Ok(())
    });
    let url = target.cri.port_forward_url(pod, &[i32::from(port)]).await?;
    let mut session = Session::open(&format!("{url}?port={port}"), PORT_FORWARD).await?;
    for _channel in 0..2 {
        // The first message of each names the port.
        session.receive().await?;
    }
    let start = Instant::now();
    let block = vec![7; BLOCK];
    for _ in 0..LENGTH / BLOCK {
        session.send(DATA, &block).await?;
    }
    let mut left = LENGTH;
    let mut to_pod = None;
    let mut back = Instant::now();
    while left > 0 {
        let (channel, data) = session.receive().await?.context("it ended early")?;
        ensure!(
            channel == DATA,
            "the port is not forwarded: {}",
            String::from_utf8_lossy(&data)
        );
        if to_pod.is_none() {
            to_pod = Some(rate(start));
            back = Instant::now();
        }
        left -= data.len();
    }
    server.await??;
    Ok((to_pod.unwrap_or_default(), rate(back)))
}
