//! Limits, as the kernel has them.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{LinuxContainerResources, UpdateContainerResourcesRequest};
use podwright_integration::{
    node::Node,
    pod::{ContainerSpec, PodSpec},
};

/// A file of the cgroup that process `pid` is in: `v1` is the controller and the file's name there,
/// `v2` the file's name on version 2.
fn read(pid: u32, v1: (&str, &str), v2: &str) -> Result<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        let mut lines = table
            .lines()
            .map(|line| line.splitn(3, ':').collect::<Vec<_>>());
        lines
            .find(|parts| wanted(parts[1]))
            .map(|parts| parts[2].trim_start_matches('/').to_owned())
    };
    let has_controller = |list: &str| list.split(',').any(|name| name == v1.0);
    let file = match path_of(&has_controller) {
        Some(path) => PathBuf::from("/sys/fs/cgroup")
            .join(v1.0)
            .join(path)
            .join(v1.1),
        None => {
            let path = path_of(&str::is_empty).context("no cgroup2")?;
            PathBuf::from("/sys/fs/cgroup").join(path).join(v2)
        }
    };
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(text.trim().to_owned())
}

fn limits() -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        cpuset_cpus: "0".to_owned(),
        ..LinuxContainerResources::default()
    }
}

#[tokio::test]
async fn limits_are_set_and_updated() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let spec = ContainerSpec::new("c").with_resources(|resources| *resources = limits());
    let id = node.cri.run(&pod, spec).await?;
    let pid = node.cri.container_pid(&id).await?;
    let memory = (("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(read(pid, memory.0, memory.1)?, (64 << 20).to_string());
    let quota = read(pid, ("cpu", "cpu.cfs_quota_us"), "cpu.max")?;
    assert!(
        ["50000", "50000 100000"].contains(&quota.as_str()),
        "{quota}"
    );
    assert_eq!(read(pid, ("cpuset", "cpuset.cpus"), "cpuset.cpus")?, "0");

    let linux = LinuxContainerResources {
        memory_limit_in_bytes: 96 << 20,
        ..LinuxContainerResources::default()
    };
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(linux),
        ..UpdateContainerResourcesRequest::default()
    };
    node.cri
        .client()
        .runtime
        .update_container_resources(request)
        .await?;
    assert_eq!(read(pid, memory.0, memory.1)?, (96 << 20).to_string());
    let quota = read(pid, ("cpu", "cpu.cfs_quota_us"), "cpu.max")?;
    assert!(
        quota.starts_with("50000"),
        "an update changed what it does not name: {quota}"
    );

    let reported = node
        .cri
        .status(&id)
        .await?
        .resources
        .and_then(|resources| resources.linux);
    let reported = reported.context("the status names no limits")?;
    assert_eq!(reported.memory_limit_in_bytes, 96 << 20);
    assert_eq!((reported.cpu_quota, reported.cpu_period), (50_000, 100_000));
    node.finish().await
}

#[tokio::test]
async fn memory_beyond_the_limit_is_oom_killed() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let script = "x=a; while :; do x=$x$x; done";
    let spec = ContainerSpec::new("c")
        .shell(script)
        .with_resources(|resources| {
            resources.memory_limit_in_bytes = 16 << 20;
            resources.memory_swap_limit_in_bytes = 16 << 20;
        });
    let id = node.cri.run(&pod, spec).await?;
    let ended = node.cri.wait_exit(&id).await?;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    node.finish().await
}

#[tokio::test]
async fn everything_of_a_pod_is_below_its_cgroup_parent() -> Result<()> {
    let mut node = Node::start().await?;
    let parent = format!("{}/kubepods/pod1", node.daemon.slot().cgroup());
    // The parent is the kubelet's, which removes it; here a first pod leaves it behind.
    node.cri
        .run_pod(PodSpec::new("first").cgroup_parent(&parent))
        .await?;
    node.cri.remove_all_pods().await?;
    node.settle()?;
    let pod = node
        .cri
        .run_pod(PodSpec::new("pod").cgroup_parent(&parent))
        .await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let pid = node.cri.container_pid(&id).await?;
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    assert!(table.contains(&parent), "{table}");
    node.finish().await
}

#[tokio::test]
async fn oom_score_is_the_requests() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let spec = ContainerSpec::new("c").with_resources(|resources| resources.oom_score_adj = 500);
    let id = node.cri.run(&pod, spec).await?;
    assert_eq!(
        node.cri
            .shell(&id, "cat /proc/1/oom_score_adj")
            .await?
            .trim(),
        "500"
    );
    node.finish().await
}

#[tokio::test]
async fn a_node_that_is_made_cannot_be_opened_unless_privileged() -> Result<()> {
    let node = Node::start().await?;
    let mut spec = PodSpec::new("pod");
    spec.linux()
        .security_context
        .get_or_insert_default()
        .privileged = true;
    let pod = node.cri.run_pod(spec).await?;
    // A driver number for experiments: without the rules of the cgroup, the open gets as far as to find no driver.
    let script = "mknod /device b 240 0 && cat /device; head -c 1 /dev/zero | wc -c";
    for (privileged, refusal) in [
        (false, "Operation not permitted"),
        (true, "No such device or address"),
    ] {
        let name = if privileged { "privileged" } else { "confined" };
        let spec = ContainerSpec::new(name).with_security(|security| {
            security.privileged = privileged;
        });
        let id = node.cri.run(&pod, spec).await?;
        let said = node
            .cri
            .shell(&id, &format!("{{ {script}; }} 2>&1"))
            .await?;
        assert!(said.contains(refusal), "{name}: {said}");
        assert!(said.ends_with("1\n"), "{name}: {said}");
    }
    node.finish().await
}
