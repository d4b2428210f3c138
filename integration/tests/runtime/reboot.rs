//! The machine's end: no pod outlives it, what is on the disk is told truly, and what it says of processes, sockets and
//! addresses is not believed. `cargo xtask power-cuts` does it to a real machine, at any moment.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{ContainerState, PodSandboxState};
use podwright_integration::{
    cri::Pod,
    node::{Node, RunDirectory},
    pod::{ContainerSpec, PodSpec},
};

const FAILS: &str = "echo fails; exit 7";

/// A pod with one container in each state, by id.
struct Busy {
    pod: Pod,
    failed: String,
    running: String,
    created: String,
}

async fn busy(node: &Node, spec: PodSpec) -> Result<Busy> {
    let pod = node.cri.run_pod(spec).await?;
    let fails = ContainerSpec::new("fails").shell(FAILS);
    let failed = node.cri.run(&pod, fails).await?;
    node.cri.wait_exit(&failed).await?;
    let running = node.cri.run(&pod, ContainerSpec::new("runs")).await?;
    let created = node.cri.create(&pod, ContainerSpec::new("waits")).await?;
    Ok(Busy {
        pod,
        failed,
        running,
        created,
    })
}

async fn assert_ended(node: &Node, container: &str, code: i32, reason: &str) -> Result<()> {
    let status = node.cri.status(container).await?;
    assert_eq!(status.state(), ContainerState::ContainerExited, "{reason}");
    assert_eq!((status.exit_code, status.reason.as_str()), (code, reason));
    assert!(status.finished_at > 0);
    Ok(())
}

async fn assert_pod_is_over(node: &Node, pod: &Pod) -> Result<()> {
    let status = node.cri.pod_status(&pod.id).await?;
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    Ok(())
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn pods_end_with_their_machine_and_what_they_had_is_free() -> Result<()> {
    for run in [RunDirectory::InMemory, RunDirectory::OnDisk] {
        let mut node = Node::start().await?;
        let port = node.daemon.slot().host_port(0);
        let old = busy(&node, PodSpec::new("old").port(80, port)).await?;
        node.daemon.lose_machine(run).await?;
        node.daemon.restart().await?;

        assert_pod_is_over(&node, &old.pod).await?;
        assert_ended(&node, &old.failed, 7, "Error").await?;
        assert_ended(&node, &old.running, 255, "Unknown").await?;
        assert_ended(&node, &old.created, 128, "StartError").await?;
        let lines = node.cri.logs(&old.failed).await?;
        assert_eq!(lines.len(), 1, "the log is kept");
        let addresses = node.daemon.slot().path("state/network/pods");
        assert_eq!(entries(&addresses), <[PathBuf; 0]>::default());

        let new = busy(&node, PodSpec::new("new").port(80, port)).await?;
        assert_eq!(node.cri.shell(&new.running, "echo new").await?, "new\n");
        for _ in 0..2 {
            node.cri.stop_pod(&old.pod.id).await?;
            node.cri.remove_pod(&old.pod.id).await?;
        }
        node.finish().await?;
    }
    Ok(())
}

/// The number of a process is another one's after a reboot.
#[tokio::test]
async fn a_recorded_process_id_is_not_believed() -> Result<()> {
    let mut node = Node::start().await?;
    let old = busy(&node, PodSpec::new("old")).await?;
    node.daemon.lose_machine(RunDirectory::OnDisk).await?;
    let mut bystander = tokio::process::Command::new("sleep")
        .arg("1000")
        .kill_on_drop(true)
        .spawn()?;
    let pid = bystander.id().context("it has ended")?;
    let started = object(&node, "containers", &old.running).join("started");
    // Fields 1 and 2: the process id, and a time.
    let mut body = vec![0x08];
    prost::encoding::encode_varint(pid.into(), &mut body);
    body.extend([0x10, 1]);
    let sum = crc32fast::hash(&body);
    let mut record = format!("podwright-record 1 {} {sum:08x}\n", body.len()).into_bytes();
    record.extend(body);
    fs::write(&started, record)?;
    node.daemon.restart().await?;

    assert_ended(&node, &old.running, 255, "Unknown").await?;
    node.cri.stop(&old.running, 0).await?;
    node.cri.remove_all_pods().await?;
    assert_eq!(bystander.try_wait()?, None, "it was killed for another");
    node.finish().await
}

fn object(node: &Node, kind: &str, id: &str) -> PathBuf {
    node.daemon.slot().path("state").join(kind).join(id)
}

/// As file systems leave what was not synced: empty, short, or zeros.
fn tear(path: &Path, how: usize) -> Result<()> {
    let whole = fs::read(path).with_context(|| format!("no record {}", path.display()))?;
    let torn = match how % 3 {
        0 => Vec::new(),
        1 => whole[..whole.len() / 2].to_vec(),
        _ => vec![0; whole.len()],
    };
    Ok(fs::write(path, torn)?)
}

#[tokio::test]
async fn a_torn_record_costs_what_it_told_and_no_more() -> Result<()> {
    for how in 0..3 {
        let mut node = Node::start().await?;
        let kept = busy(&node, PodSpec::new("kept")).await?;
        let stopped = node.cri.run_pod(PodSpec::new("stopped")).await?;
        node.cri.stop_pod(&stopped.id).await?;
        let dropped = busy(&node, PodSpec::new("dropped")).await?;
        node.daemon.lose_machine(RunDirectory::InMemory).await?;
        let torn = [
            object(&node, "pods", &kept.pod.id).join("ready"),
            object(&node, "containers", &kept.failed).join("exit"),
            object(&node, "containers", &kept.running).join("started"),
            object(&node, "containers", &kept.created).join("record"),
            object(&node, "pods", &stopped.id).join("stopped"),
            object(&node, "pods", &dropped.pod.id).join("record"),
            object(&node, "network/pods", &kept.pod.id),
        ];
        for path in &torn {
            tear(path, how)?;
        }
        node.daemon.restart().await?;

        assert_pod_is_over(&node, &kept.pod).await?;
        assert_ended(&node, &kept.failed, 255, "Unknown").await?;
        assert_ended(&node, &kept.running, 255, "Unknown").await?;
        assert_pod_is_over(&node, &stopped).await?;
        for gone in [&kept.created, &dropped.failed, &dropped.running] {
            assert!(node.cri.status(gone).await.is_err(), "{gone}");
        }
        assert!(node.cri.pod_status(&dropped.pod.id).await.is_err());
        let log = node.daemon.log();
        for path in &torn {
            let told = log.lines().filter(|line| line.contains("WARN"));
            let path = path.display().to_string();
            assert!(told.into_iter().any(|line| line.contains(&path)), "{path}");
        }

        let before = log.len();
        node.daemon.kill9().await?;
        node.daemon.restart().await?;
        assert_ended(&node, &kept.running, 255, "Unknown").await?;
        let log = node.daemon.log();
        assert!(!log[before..].contains("torn"), "{}", &log[before..]);
        node.finish().await?;
    }
    Ok(())
}

/// A power loss may bring back what was removed before it. The node starts whatever its records say together.
#[tokio::test]
async fn two_records_of_one_address_keep_no_node_from_starting() -> Result<()> {
    let mut node = Node::start().await?;
    let port = node.daemon.slot().host_port(0);
    let one = node.cri.run_pod(PodSpec::new("one").port(80, port)).await?;
    let two = node.cri.run_pod(PodSpec::new("two")).await?;
    node.daemon.lose_machine(RunDirectory::InMemory).await?;
    let record = |pod: &Pod| object(&node, "network/pods", &pod.id);
    fs::copy(record(&one), record(&two))?;
    node.daemon.restart().await?;
    assert_pod_is_over(&node, &one).await?;
    assert_pod_is_over(&node, &two).await?;
    let new = node.cri.run_pod(PodSpec::new("new").port(80, port)).await;
    new.context("the port is free")?;
    node.finish().await
}
