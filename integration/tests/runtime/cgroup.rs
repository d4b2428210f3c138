//! Limits, as the kernel has them.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{
    LinuxContainerResources, UpdateContainerResourcesRequest, UpdatePodSandboxResourcesRequest,
};
use podwright_integration::{
    node::{Node, until},
    pod::{ContainerSpec, PodSpec},
};
use tonic::{Code, Status};

/// A file of the cgroup that process `pid` is in: `v1` is the controller and the file's name there,
/// `v2` the file's name on version 2.
pub(crate) fn read(pid: u32, v1: (&str, &str), v2: &str) -> Result<String> {
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

/// The group is made with the container, but what was asked for last counts.
#[tokio::test]
async fn limits_that_are_updated_before_the_start_hold_from_it() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let limit = |bytes| LinuxContainerResources {
        memory_limit_in_bytes: bytes,
        ..LinuxContainerResources::default()
    };
    let spec = ContainerSpec::new("c").with_resources(|resources| *resources = limit(64 << 20));
    let id = node.cri.create(&pod, spec).await?;
    update(&node, &id, limit(96 << 20)).await?;
    node.cri.start_container(&id).await?;
    let pid = node.cri.container_pid(&id).await?;
    let held = read(pid, ("memory", "memory.limit_in_bytes"), "memory.max")?;
    assert_eq!(held, (96 << 20).to_string());
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

pub(crate) async fn update(
    node: &Node,
    id: &str,
    linux: LinuxContainerResources,
) -> Result<(), Status> {
    let request = UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(linux),
        ..UpdateContainerResourcesRequest::default()
    };
    let mut runtime = node.cri.client().runtime;
    runtime.update_container_resources(request).await.map(drop)
}

#[tokio::test]
async fn an_updated_oom_score_is_every_processs() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let spec = ContainerSpec::new("c").shell("sleep 1000 & sleep 1000 & wait");
    let id = node.cri.run(&pod, spec).await?;
    let score = |oom_score_adj| LinuxContainerResources {
        oom_score_adj,
        ..LinuxContainerResources::default()
    };
    // A process that is being forked has its parent's score long before its group lists it.
    until("both to be there", || async {
        let said = node.cri.shell(&id, "cat /proc/[0-9]*/comm").await;
        let said = said.map_err(|error| format!("{error:#}"))?;
        match said.matches("sleep").count() {
            2 => Ok(()),
            _ => Err(said),
        }
    })
    .await?;
    let every = "for p in /proc/[0-9]*; do cat $p/oom_score_adj; done | sort -u";
    for wanted in [700, 300] {
        update(&node, &id, score(wanted)).await?;
        assert_eq!(node.cri.shell(&id, every).await?.trim(), wanted.to_string());
        let status = node
            .cri
            .status(&id)
            .await?
            .resources
            .and_then(|all| all.linux);
        assert_eq!(status.context("no limits")?.oom_score_adj, wanted);
    }
    let refused = update(&node, &id, score(1001)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // What the daemon may not give is raised to what it may, and told as it is.
    update(&node, &id, score(-999)).await?;
    let pid = node.cri.container_pid(&id).await?;
    let held: i64 = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?
        .trim()
        .parse()?;
    let status = node
        .cri
        .status(&id)
        .await?
        .resources
        .and_then(|all| all.linux);
    assert_eq!(status.context("no limits")?.oom_score_adj, held);
    node.finish().await
}

/// On version 1 there is nothing that the keys could mean.
#[tokio::test]
async fn unified_keys_are_set_or_refused() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let unified = |key: &str| LinuxContainerResources {
        unified: [(key.to_owned(), "104857600".to_owned())].into(),
        ..LinuxContainerResources::default()
    };
    let updated = update(&node, &id, unified("memory.high")).await;
    if is_v2() {
        updated?;
        let pid = node.cri.container_pid(&id).await?;
        assert_eq!(read(pid, ("none", ""), "memory.high")?, "104857600");
        // Whole pages are held, and told.
        let mut odd = unified("memory.high");
        odd.unified
            .insert("memory.high".to_owned(), "104857601".to_owned());
        update(&node, &id, odd).await?;
        let told = node.cri.status(&id).await?.resources;
        let told = told.and_then(|all| all.linux).context("no limits")?;
        assert_eq!(told.unified["memory.high"], "104857600");
    } else {
        let refused = updated.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("cgroup v2"), "{refused}");
    }
    for bad in ["cgroup.kill", "../memory.max", "memory"] {
        let refused = update(&node, &id, unified(bad)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad}: {refused}");
    }
    node.finish().await
}

/// The memory limit of the pod's own cgroup, which is above its containers'.
fn pod_memory(pid: u32) -> Result<String> {
    let (v1, v2) = ("../memory.limit_in_bytes", "../memory.max");
    read(pid, ("memory", v1), v2)
}

#[tokio::test]
async fn a_pods_resources_are_its_cgroups_unless_it_has_a_parent() -> Result<()> {
    let mut node = Node::start().await?;
    let parent = format!("{}/kubepods/pod2", node.daemon.slot().cgroup());
    let resources = |bytes: i64| LinuxContainerResources {
        memory_limit_in_bytes: bytes,
        ..LinuxContainerResources::default()
    };
    node.cri
        .run_pod(PodSpec::new("first").cgroup_parent(&parent))
        .await?;
    node.cri.remove_all_pods().await?;
    node.settle()?;
    let mut own = PodSpec::new("own");
    own.linux().overhead = Some(resources(16 << 20));
    own.linux().resources = Some(resources(64 << 20));
    let mut of_kubelet = PodSpec::new("of-kubelet").cgroup_parent(&parent);
    of_kubelet.linux().resources = Some(resources(64 << 20));
    let (own, of_kubelet) = (
        node.cri.run_pod(own).await?,
        node.cri.run_pod(of_kubelet).await?,
    );
    let free = node.cri.run(&of_kubelet, ContainerSpec::new("c")).await?;
    let bound = node.cri.run(&own, ContainerSpec::new("c")).await?;
    let (free, bound) = (
        node.cri.container_pid(&free).await?,
        node.cri.container_pid(&bound).await?,
    );
    assert_eq!(pod_memory(bound)?, (80 << 20).to_string());
    let unlimited = pod_memory(free)?;
    assert!(!unlimited.starts_with("67108864"), "{unlimited}");

    for (pod, bytes) in [(&own, 128 << 20), (&of_kubelet, 128 << 20)] {
        let request = UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: pod.id.clone(),
            resources: Some(resources(bytes)),
            ..UpdatePodSandboxResourcesRequest::default()
        };
        node.cri
            .client()
            .runtime
            .update_pod_sandbox_resources(request)
            .await?;
    }
    // The overhead, which the request leaves out, stays.
    assert_eq!(pod_memory(bound)?, (144 << 20).to_string());
    assert_eq!(pod_memory(free)?, unlimited);
    node.daemon.kill9().await?;
    node.daemon.restart().await?;
    let request = podwright_cri_api::v1::PodSandboxStatusRequest {
        pod_sandbox_id: own.id.clone(),
        verbose: true,
    };
    let status = node
        .cri
        .client()
        .runtime
        .pod_sandbox_status(request)
        .await?
        .into_inner();
    let info = &status.info["info"];
    assert!(info.contains(&(128 << 20).to_string()), "{info}");
    node.finish().await
}

#[tokio::test]
async fn a_child_that_is_out_of_memory_is_told_of() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let script = "sh -c 'x=a; while :; do x=$x$x; done'; echo \"child: $?\"; exit 3";
    let spec = |name: &str| {
        let spec = ContainerSpec::new(name).shell(script);
        spec.with_resources(|resources| {
            resources.memory_limit_in_bytes = 16 << 20;
            resources.memory_swap_limit_in_bytes = 16 << 20;
        })
    };
    let id = node.cri.run(&pod, spec("alone")).await?;
    let ended = node.cri.wait_exit(&id).await?;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (3, "OOMKilled"));
    if is_v2() {
        // As a kubelet asks, unless it is configured with singleProcessOOMKill.
        let group = spec("together").with_resources(|resources| {
            let key = ("memory.oom.group".to_owned(), "1".to_owned());
            resources.unified = [key].into();
        });
        let id = node.cri.run(&pod, group).await?;
        let ended = node.cri.wait_exit(&id).await?;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    }
    node.finish().await
}

/// Whether the machine has cgroup v2 alone.
pub(crate) fn is_v2() -> bool {
    PathBuf::from("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// In-place resizes (KEP-1287) ask for less memory than is in use: the kernel of v2 would kill.
#[tokio::test]
async fn memory_in_use_is_not_taken_away() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let script =
        "x=$(head -c 25165824 /dev/zero | tr '\\0' x); echo kept; sleep 1000 & wait; echo $x";
    let spec = ContainerSpec::new("c").shell(script);
    let spec = spec.with_resources(|resources| {
        resources.memory_limit_in_bytes = 256 << 20;
        resources.memory_swap_limit_in_bytes = 256 << 20;
        resources.cpu_quota = 50_000;
        resources.cpu_period = 100_000;
    });
    let id = node.cri.run(&pod, spec).await?;
    node.cri.wait_line(&id, "kept").await?;
    let limits = |bytes: i64| LinuxContainerResources {
        memory_limit_in_bytes: bytes,
        memory_swap_limit_in_bytes: bytes,
        cpu_quota: 20_000,
        ..LinuxContainerResources::default()
    };
    let refused = update(&node, &id, limits(8 << 20)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("the group uses"), "{refused}");
    let held = async || {
        let status = node.cri.status(&id).await?;
        let limits = status.resources.and_then(|resources| resources.linux);
        let limits = limits.context("the status names no limits")?;
        anyhow::Ok((
            status.exit_code,
            limits.memory_limit_in_bytes,
            limits.cpu_quota,
        ))
    };
    assert_eq!(held().await?, (0, 256 << 20, 50_000));
    update(&node, &id, limits(96 << 20)).await?;
    assert_eq!(held().await?, (0, 96 << 20, 20_000));
    assert!(node.cri.container_pid(&id).await? > 0);
    node.finish().await
}

/// What is in the tree of a container is its own affair, and commands still find a place beside it.
#[tokio::test]
async fn a_container_sees_its_own_cgroup_and_writes_it_only_when_privileged() -> Result<()> {
    let node = Node::start().await?;
    let mut spec = PodSpec::new("pod");
    let security = spec.linux().security_context.get_or_insert_default();
    security.privileged = true;
    let pod = node.cri.run_pod(spec).await?;
    let confined = node.cri.run(&pod, ContainerSpec::new("confined")).await?;
    // v1's hierarchies are directories of their own.
    let make = "cd /sys/fs/cgroup; test -e cgroup.procs || cd pids; mkdir below 2>&1 || true";
    let said = node.cri.shell(&confined, make).await?;
    assert!(said.contains("Read-only file system"), "{said}");
    let privileged = |name: &str| {
        let spec = ContainerSpec::new(name);
        spec.with_security(|security| security.privileged = true)
    };
    let id = node.cri.run(&pod, privileged("systemd")).await?;
    assert_eq!(node.cri.shell(&id, make).await?, "");
    if is_v2() {
        let own = "cat /proc/1/cgroup";
        assert_eq!(node.cri.shell(&confined, own).await?, "0::/\n");
        // As systemd does in a container: processes to a leaf, then controllers for all children.
        let delegate = "cd /sys/fs/cgroup; echo 1 > below/cgroup.procs; cat /proc/1/cgroup
            until echo '+memory +pids' > cgroup.subtree_control; do echo $$ > below/cgroup.procs; done";
        assert_eq!(node.cri.shell(&id, delegate).await?, "0::/below\n");
        let place = node.cri.shell(&id, "cat /proc/self/cgroup").await?;
        assert!(place.starts_with("0::/exec-"), "{place}");

        // By its first process: a command is in a group of its own, a domain, beside which there can be no threaded one.
        let threads = "cd /sys/fs/cgroup && mkdir threads && echo threaded > threads/cgroup.type; cat cgroup.type; sleep 1000";
        let id = node
            .cri
            .run(&pod, privileged("threaded").shell(threads))
            .await?;
        node.cri.wait_line(&id, "domain threaded").await?;
        // No domain can be made beside threaded groups: the command is with the container's first process.
        let place = node.cri.shell(&id, "cat /proc/self/cgroup").await?;
        assert_eq!(place, "0::/\n");
    }
    node.finish().await
}
