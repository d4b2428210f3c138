//! Commands in running containers.

use std::time::{Duration, Instant};

use anyhow::Result;
use podwright_integration::{
    cri::Pod,
    node::{Node, until},
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

async fn sleeping() -> Result<(Node, Pod, String)> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    Ok((node, pod, id))
}

#[tokio::test]
async fn output_and_exit_code_come_back() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let done = node
        .cri
        .exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 42"], 10)
        .await?;
    assert_eq!(
        (&done.stdout[..], &done.stderr[..], done.exit_code),
        (&b"out\n"[..], &b"err\n"[..], 42)
    );
    let killed = node.cri.exec(&id, &["sh", "-c", "kill -9 $$"], 10).await?;
    assert_eq!(killed.exit_code, 137);
    node.finish().await
}

#[tokio::test]
async fn standard_input_is_empty() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let done = node.cri.exec(&id, &["cat"], 10).await?;
    assert_eq!((done.exit_code, done.stdout.len()), (0, 0));
    node.finish().await
}

#[tokio::test]
async fn a_timeout_kills_the_whole_group() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let started = Instant::now();
    let script = "sleep 4242 & sh -c 'trap \"\" TERM; sleep 4242' & trap '' TERM; sleep 4242";
    let refused = node
        .cri
        .exec(&id, &["sh", "-c", script], 1)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "after {:?}",
        started.elapsed()
    );
    until("the command's children to be gone", || async {
        let found = node.cri.shell(&id, "pgrep -f '[s]leep 4242' || true").await;
        let found = found.map_err(|error| error.to_string())?;
        if found.is_empty() {
            Ok(())
        } else {
            Err(format!("still there: {found}"))
        }
    })
    .await?;
    node.finish().await
}

/// A background child holds the pipes; the command itself is done.
#[tokio::test]
async fn a_background_child_does_not_hold_the_call() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let started = Instant::now();
    let done = node
        .cri
        .exec(&id, &["sh", "-c", "echo done; sleep 1000 &"], 20)
        .await?;
    assert_eq!(done.exit_code, 0);
    assert_eq!(done.stdout, b"done\n");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "after {:?}",
        started.elapsed()
    );
    node.finish().await
}

#[tokio::test]
async fn large_output_is_bounded() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let request = podwright_cri_api::v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: ["sh", "-c", "head -c 33554432 /dev/zero"]
            .map(str::to_owned)
            .into(),
        timeout: 30,
    };
    // Two streams of 16 MiB do not fit into the kubelet's own 16 MiB, so the limit here is wider.
    let mut runtime = node
        .cri
        .client()
        .runtime
        .max_decoding_message_size(64 << 20);
    match runtime.exec_sync(request).await {
        Ok(done) => assert!(done.into_inner().stdout.len() <= 16 << 20),
        Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}"),
    }
    node.finish().await
}

#[tokio::test]
async fn many_at_once_keep_apart() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let commands: Vec<_> = (0..40)
        .map(|number| format!("echo {number}; exit {number}"))
        .collect();
    let calls = commands.iter().map(|script| {
        let command = ["sh", "-c", script.as_str()];
        let (node, id) = (&node, &id);
        async move { node.cri.exec(id, &command, 20).await }
    });
    for (number, done) in futures_util::future::join_all(calls)
        .await
        .into_iter()
        .enumerate()
    {
        let done = done?;
        assert_eq!(done.exit_code, i32::try_from(number)?);
        assert_eq!(String::from_utf8(done.stdout)?, format!("{number}\n"));
    }
    node.finish().await
}
