//! Whose network, processes and IPC a container has, in each mode.

use std::fs;

use anyhow::Result;
use podwright_cri_api::v1::NamespaceMode;
use podwright_integration::{
    node::Node,
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

fn in_pid_mode(name: &str, mode: NamespaceMode, target: &str) -> ContainerSpec {
    let target = target.to_owned();
    ContainerSpec::new(name).with_security(move |security| {
        let options = security.namespace_options.get_or_insert_default();
        options.pid = mode.into();
        options.target_id = target;
    })
}

fn namespace(pid: u32, kind: &str) -> Result<std::path::PathBuf> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?)
}

#[tokio::test]
async fn each_pid_mode_shows_its_processes() -> Result<()> {
    let node = Node::start().await?;
    let shared = node
        .cri
        .run_pod(PodSpec::new("shared").shared_pid())
        .await?;
    let marked =
        |name: &str, mode, seconds: &str| in_pid_mode(name, mode, "").command(&["sleep", seconds]);
    let one = node
        .cri
        .run(&shared, marked("one", NamespaceMode::Pod, "7001"))
        .await?;
    let two = node
        .cri
        .run(&shared, marked("two", NamespaceMode::Pod, "7002"))
        .await?;
    let own = node
        .cri
        .run(&shared, marked("own", NamespaceMode::Container, "7003"))
        .await?;
    let target = in_pid_mode("target", NamespaceMode::Target, &own).command(&["sleep", "7004"]);
    let target = node.cri.run(&shared, target).await?;
    let host = node
        .cri
        .run(&shared, marked("host", NamespaceMode::Node, "7005"))
        .await?;
    for (id, sees, not) in [
        (&one, vec!["7001", "7002"], vec!["7003", "7004", "7005"]),
        (&two, vec!["7001", "7002"], vec!["7003", "7004", "7005"]),
        (&own, vec!["7003", "7004"], vec!["7001", "7002", "7005"]),
        (&target, vec!["7003", "7004"], vec!["7001", "7002", "7005"]),
        (&host, vec!["7001", "7002", "7003", "7004", "7005"], vec![]),
    ] {
        let all = node
            .cri
            .shell(id, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
            .await?;
        for (seconds, expected) in sees
            .iter()
            .map(|s| (s, true))
            .chain(not.iter().map(|s| (s, false)))
        {
            assert_eq!(
                all.contains(&format!("sleep {seconds} ")),
                expected,
                "{seconds} in {all}"
            );
        }
    }
    assert_eq!(
        node.cri.shell(&one, "cat /proc/1/comm").await?,
        "pod-init\n"
    );
    assert_eq!(node.cri.shell(&own, "cat /proc/1/comm").await?, "sleep\n");
    // The init of the pod reaps what its containers leave.
    node.cri.shell(&one, "(sleep 0.01 &) ; exit 0").await?;
    podwright_integration::node::until("the orphan to be reaped", || async {
        let script = "grep -l 'State:.Z' /proc/[0-9]*/status | wc -l";
        let zombies = node
            .cri
            .shell(&two, script)
            .await
            .map_err(|error| error.to_string())?;
        if zombies.trim() == "0" {
            Ok(())
        } else {
            Err(zombies)
        }
    })
    .await?;
    let gone = in_pid_mode("gone", NamespaceMode::Target, "nobody");
    let status = node
        .cri
        .create(&shared, gone)
        .await
        .expect_err("there is no such container");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    let unnamed = in_pid_mode("unnamed", NamespaceMode::Target, "");
    assert!(node.cri.create(&shared, unnamed).await.is_err());
    let other = node.cri.run_pod(PodSpec::new("other")).await?;
    let stranger = in_pid_mode("stranger", NamespaceMode::Target, &own);
    let status = node
        .cri
        .create(&other, stranger)
        .await
        .expect_err("it is of another pod");
    assert!(status.message().contains("another pod"), "{status:?}");
    node.finish().await
}

#[tokio::test]
async fn ipc_is_the_pod_s_or_the_host_s() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let one = node.cri.run(&pod, ContainerSpec::new("one")).await?;
    let two = node.cri.run(&pod, ContainerSpec::new("two")).await?;
    node.cri
        .shell(&one, "touch /dev/mqueue/queue; echo x > /dev/shm/x")
        .await?;
    node.cri
        .shell(&two, "test -e /dev/mqueue/queue && grep -q x /dev/shm/x")
        .await?;
    let other = node.cri.run_pod(PodSpec::new("other")).await?;
    let alone = node.cri.run(&other, ContainerSpec::new("alone")).await?;
    node.cri
        .shell(
            &alone,
            "! test -e /dev/mqueue/queue && ! test -e /dev/shm/x",
        )
        .await?;
    let mut spec = PodSpec::new("host");
    spec.namespaces().ipc = NamespaceMode::Node.into();
    let host = node.cri.run_pod(spec).await?;
    let id = node.cri.run(&host, ContainerSpec::new("c")).await?;
    let pid = node.cri.container_pid(&id).await?;
    assert_eq!(
        namespace(pid, "ipc")?,
        namespace(std::process::id(), "ipc")?
    );
    let pid = node.cri.container_pid(&one).await?;
    assert_ne!(
        namespace(pid, "ipc")?,
        namespace(std::process::id(), "ipc")?
    );
    node.finish().await
}

#[tokio::test]
async fn the_host_s_network_brings_the_host_s_name() -> Result<()> {
    let node = Node::start().await?;
    let host = node
        .cri
        .run_pod(PodSpec::new("host").host_network())
        .await?;
    let id = node.cri.run(&host, ContainerSpec::new("c")).await?;
    let pid = node.cri.container_pid(&id).await?;
    for kind in ["net", "uts"] {
        assert_eq!(
            namespace(pid, kind)?,
            namespace(std::process::id(), kind)?,
            "{kind}"
        );
    }
    let own = node.cri.run_pod(PodSpec::new("own")).await?;
    let id = node.cri.run(&own, ContainerSpec::new("c")).await?;
    let pid = node.cri.container_pid(&id).await?;
    for kind in ["net", "uts", "mnt", "pid", "ipc"] {
        assert_ne!(
            namespace(pid, kind)?,
            namespace(std::process::id(), kind)?,
            "{kind}"
        );
    }
    assert_eq!(node.cri.shell(&id, "hostname").await?, "own\n");
    node.finish().await
}
