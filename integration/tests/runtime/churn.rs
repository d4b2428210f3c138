//! Many pods come and go; the daemon stays as it was.

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use podwright_integration::{
    node::{Node, Usage, until},
    patience::amount,
    pod::{ContainerSpec, PodSpec},
};

/// Makes and removes `count` pods, eight at once, each with a container and an exec.
async fn churn(node: &Node, count: usize) -> Result<()> {
    for _ in 0..count.div_ceil(8) {
        let rounds = (0..8).map(|_| async {
            let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
            let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
            node.cri.shell(&id, "true").await?;
            node.cri.stop_pod(&pod.id).await?;
            node.cri.remove_pod(&pod.id).await?;
            anyhow::Ok(())
        });
        try_join_all(rounds).await?;
    }
    Ok(())
}

#[tokio::test]
async fn descriptors_and_threads_stay_flat() -> Result<()> {
    let node = Node::start().await?;
    let pid = node.daemon.pid().context("the daemon runs")?;
    churn(&node, 16).await?;
    let before = Usage::of(pid)?;
    churn(&node, amount(96).max(32)).await?;
    until("the daemon to hold no more than before", || async {
        let now = Usage::of(pid).map_err(|error| error.to_string())?;
        if !now.more_than(&before).is_empty() || now.threads > before.threads {
            return Err(format!("before {before:?}, now {now:?}"));
        }
        Ok(())
    })
    .await?;
    node.finish().await
}
