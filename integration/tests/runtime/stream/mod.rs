//! Streamed sessions: exec, attach and port-forward.
//!
//! The tests' own client speaks WebSocket; crictl, which has Kubernetes' client code, brings SPDY as well.

mod attach;
mod cut_off;
mod exec;
mod port_forward;

use anyhow::{Result, ensure};
use podwright_integration::{
    cri::Pod,
    node::{Node, until},
    pod::{ContainerSpec, PodSpec},
    stream::{Sending, Transport},
    tools::Tools,
};
use std::process::Command;

/// A node with a pod with a container.
async fn with(container: ContainerSpec) -> Result<(Node, Pod, String)> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, container).await?;
    Ok((node, pod, id))
}

async fn sleeping() -> Result<(Node, Pod, String)> {
    with(ContainerSpec::new("c")).await
}

/// A container that reads its standard input.
fn reading(script: &str) -> ContainerSpec {
    let mut container = ContainerSpec::new("c").shell(script);
    container.config.stdin = true;
    container
}

/// A shell without line editing, which would talk to the terminal by itself.
const SHELL: &str = r#"while read -r line; do eval "$line"; done"#;

/// crictl for this node.
async fn crictl(
    node: &Node,
    transport: Transport,
    verb: &str,
    arguments: &[&str],
) -> Result<Command> {
    let tools = tokio::task::spawn_blocking(Tools::open).await??;
    let mut command = tools.crictl_for(&node.daemon.socket());
    command.args([verb, transport.flag()]).args(arguments);
    Ok(command)
}

/// Waits until no process of the container has `mark` in its command line.
async fn wait_gone(node: &Node, id: &str, mark: &str) -> Result<()> {
    // pgrep's own command line has the brackets in it.
    let (first, rest) = mark.split_at(1);
    let script = format!("pgrep -af '[{first}]{rest}' || true");
    until("the command's processes to be gone", || async {
        let found = node.cri.shell(id, &script).await;
        match found.map_err(|error| error.to_string())? {
            none if none.is_empty() => Ok(()),
            found => Err(format!("still there: {found}")),
        }
    })
    .await
}

/// Bytes that differ from place to place, without end.
struct Pattern(u64);

impl Pattern {
    const BLOCK: usize = 64 * 1024;

    fn next(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(Self::BLOCK);
        while block.len() < Self::BLOCK {
            // xorshift64*
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            block.extend_from_slice(&self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
        block
    }
}

/// Sends this many blocks of the pattern on a channel; their SHA-256.
async fn send_pattern(sending: &mut Sending, channel: u8, blocks: usize) -> Result<[u8; 32]> {
    use sha2::{Digest as _, Sha256};
    let (mut pattern, mut hash) = (Pattern(1), Sha256::new());
    for _ in 0..blocks {
        let block = pattern.next();
        hash.update(&block);
        sending.send(channel, &block).await?;
    }
    Ok(hash.finalize().into())
}

fn ensure_contains(text: &str, wanted: &str) -> Result<()> {
    ensure!(text.contains(wanted), "no {wanted:?} in {text:?}");
    Ok(())
}
