//! The systemd cgroup driver, under systemd: `cargo xtask vm -- --systemd runtime systemd:: --include-ignored`.
//!
//! systemd is asked by systemctl(1), as an operator would.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podwright_cri_api::v1::{
    CgroupDriver as Driver, ContainerState, LinuxContainerResources, PodSandboxState,
    RuntimeConfigRequest,
};
use podwright_integration::{
    cri::Pod,
    node::{CgroupDriver, Node, until},
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

const UNIT: &str = include_str!("../../../contrib/podwright.service");
/// So many pods are made at once.
const PODS: usize = 8;

fn systemctl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("systemctl").args(arguments).output()?;
    ensure!(
        output.status.success(),
        "systemctl {arguments:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn property(unit: &str, name: &str) -> Result<String> {
    systemctl(&["show", "--value", "--property", name, unit])
}

/// Waits until systemd has forgotten the unit.
async fn wait_forgotten(unit: &str) -> Result<()> {
    until("systemd to forget the unit", || async {
        match property(unit, "LoadState") {
            Ok(state) if state == "not-found" => Ok(()),
            other => Err(format!("{unit}: {other:?}")),
        }
    })
    .await
}

fn scope(pod: &Pod) -> String {
    format!("podwright-{}.scope", pod.id)
}

/// The slices of a pod as kubelets name them, top first: `…-burstable.slice`, `…-burstable-podUID.slice`.
fn kubelet_slices(node: &Node, uid: &str) -> [String; 3] {
    let top = node.daemon.slot().cgroup();
    let top = top.trim_matches('/').trim_end_matches(".slice");
    [
        format!("{top}.slice"),
        format!("{top}-burstable.slice"),
        format!("{top}-burstable-pod{uid}.slice"),
    ]
}

/// Where a process is in the cgroup2 hierarchy.
fn cgroup_of(pid: u32) -> Result<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let line = table.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(line.context("no cgroup2")?.to_owned())
}

fn read(cgroup: &str, file: &str) -> Result<String> {
    let path = PathBuf::from(format!("/sys/fs/cgroup{cgroup}/{file}"));
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn limited() -> ContainerSpec {
    ContainerSpec::new("c").with_resources(|resources| {
        *resources = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 64 << 20,
            cpuset_cpus: "0".to_owned(),
            ..LinuxContainerResources::default()
        };
    })
}

#[tokio::test]
#[ignore = "needs systemd as the machine's first process"]
async fn a_pod_is_a_scope_in_its_slice() -> Result<()> {
    let node = Node::start().await?;
    let mut client = node.cri.client();
    let answer = client.runtime.runtime_config(RuntimeConfigRequest {});
    let linux = answer.await?.into_inner().linux.context("no answer")?;
    assert_eq!(linux.cgroup_driver(), Driver::Systemd);

    let slices = kubelet_slices(&node, "2fc932ce_fdcc");
    let path = format!("/{}", slices.join("/"));
    // As kubelets send it, and as crictl's users write it.
    for parent in [&path, &slices[2]] {
        let pod = node
            .cri
            .run_pod(PodSpec::new("pod").cgroup_parent(parent))
            .await?;
        let id = node.cri.run(&pod, limited()).await?;
        let unit = scope(&pod);
        let pid = node.cri.container_pid(&id).await?;
        assert_eq!(cgroup_of(pid)?, format!("{path}/{unit}/{id}"));
        assert_eq!(property(&unit, "ActiveState")?, "active");
        assert_eq!(property(&unit, "Slice")?, slices[2]);
        assert_eq!(property(&unit, "Delegate")?, "yes");
        assert_eq!(property(&unit, "TasksMax")?, "infinity");
        assert!(property(&unit, "Description")?.starts_with("pod test/pod ("));
        // The delegation is kept to: nothing is beside the groups of pause and the containers.
        assert_eq!(read(&format!("{path}/{unit}"), "cgroup.procs")?, "");
        assert_ne!(read(&format!("{path}/{unit}/pause"), "cgroup.procs")?, "");
        assert_eq!(
            read(&cgroup_of(pid)?, "memory.max")?,
            (64 << 20).to_string()
        );
        assert_eq!(node.cri.shell(&id, "echo in").await?, "in\n");
        node.cri.stop_pod(&pod.id).await?;
        node.cri.remove_pod(&pod.id).await?;
        wait_forgotten(&unit).await?;
    }
    systemctl(&["stop", &slices[1]])?;
    node.finish().await
}

#[tokio::test]
#[ignore = "needs systemd as the machine's first process"]
async fn reload_and_reexec_change_nothing() -> Result<()> {
    let node = Node::start().await?;
    let mut spec = PodSpec::new("pod");
    spec.linux().resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 128 << 20,
        ..LinuxContainerResources::default()
    });
    let pod = node.cri.run_pod(spec).await?;
    let id = node.cri.run(&pod, limited()).await?;
    let pid = node.cri.container_pid(&id).await?;
    let own = cgroup_of(pid)?;
    let (of_pod, _) = own.rsplit_once('/').context("no pod")?;
    let held = || -> Result<Vec<String>> {
        let mut values = vec![read(of_pod, "memory.max")?, cgroup_of(pid)?];
        for file in [
            "memory.max",
            "cpu.max",
            "cpu.weight",
            "cpuset.cpus",
            "pids.max",
            "cgroup.controllers",
        ] {
            values.push(read(&own, file)?);
        }
        Ok(values)
    };
    let before = held()?;
    assert_eq!(before[0], (128 << 20).to_string());
    assert_eq!(before[2], (64 << 20).to_string());
    let devices = "mknod /tmp/mem c 1 1 2>/dev/null; head -c1 /tmp/mem >/dev/null 2>&1 && echo mem; \
                   head -c1 /dev/zero >/dev/null && echo zero";
    assert_eq!(node.cri.shell(&id, devices).await?, "zero\n");

    for (number, command) in ["daemon-reload", "daemon-reexec", "daemon-reload"]
        .iter()
        .enumerate()
    {
        systemctl(&[command])?;
        assert_eq!(held()?, before, "{command}");
        assert_eq!(
            node.cri.shell(&id, devices).await?,
            "zero\n",
            "{command}: the devices"
        );
        // Also over a connection that has lost its other end.
        let pods = (0..PODS).map(|pod| {
            let name = format!("pod-{number}-{pod}");
            let node = &node;
            async move { node.cri.run_pod(PodSpec::new(&name)).await }
        });
        for pod in try_join_all(pods).await? {
            assert_eq!(property(&scope(&pod), "ActiveState")?, "active");
            node.cri.stop_pod(&pod.id).await?;
            node.cri.remove_pod(&pod.id).await?;
        }
    }
    node.finish().await
}

/// The daemon as contrib's unit; stopped and forgotten when this is dropped, so that a failure leaves the slot to others.
struct Service(String);

impl Service {
    fn install(node: &Node) -> Result<Self> {
        let name = node.daemon.slot().cgroup().replace(".slice", ".service");
        let service = Self(name.trim_start_matches('/').to_owned());
        let start = "ExecStart=/usr/local/bin/podwright runtime";
        assert!(UNIT.contains(start), "{UNIT}");
        let binary = std::env::var("PODWRIGHT_BINARY")?;
        let config = node.daemon.slot().path("podwright.toml");
        let ours = format!("ExecStart={binary} runtime --config {}", config.display());
        fs::write(service.file(), UNIT.replace(start, &ours))?;
        systemctl(&["daemon-reload"])?;
        Ok(service)
    }

    fn file(&self) -> PathBuf {
        PathBuf::from("/run/systemd/system").join(&self.0)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = systemctl(&["stop", &self.0]);
        let _ = fs::remove_file(self.file());
        let _ = systemctl(&["daemon-reload"]);
    }
}

#[tokio::test]
#[ignore = "needs systemd as the machine's first process"]
async fn pods_outlive_the_daemons_unit() -> Result<()> {
    let mut node = Node::start().await?;
    node.daemon.terminate().await?;
    let service = Service::install(&node)?;
    // Returns when the daemon says that it is ready.
    systemctl(&["start", &service.0])?;

    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, limited()).await?;
    let pid = node.cri.container_pid(&id).await?;
    let place = cgroup_of(pid)?;
    for command in ["restart", "stop", "start"] {
        systemctl(&[command, &service.0])?;
        assert_eq!(cgroup_of(pid)?, place, "{command}");
        assert_eq!(property(&scope(&pod), "ActiveState")?, "active");
    }
    // The connection notices only now that its other end has gone.
    until("the daemon to answer", || async {
        match node.cri.status(&id).await {
            Ok(status) if status.state() == ContainerState::ContainerRunning => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    assert_eq!(node.cri.shell(&id, "echo in").await?, "in\n");
    drop(service);
    node.daemon.restart().await?;
    assert_eq!(cgroup_of(pid)?, place);
    node.finish().await
}

/// As at a shutdown: containers end at SIGTERM, and nothing waits for a pause that does not.
#[tokio::test]
#[ignore = "needs systemd as the machine's first process"]
async fn stopping_the_scope_ends_the_pod() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod").shared_pid()).await?;
    let empty = node.cri.run_pod(PodSpec::new("empty")).await?;
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done";
    let id = node
        .cri
        .run(&pod, ContainerSpec::new("c").shell(script))
        .await?;
    until("the container to be up", || async {
        match node.cri.logs(&id).await {
            Ok(lines) if !lines.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let begun = Instant::now();
    systemctl(&["stop", &scope(&pod), &scope(&empty)])?;
    // systemd kills what is left after 90 seconds.
    assert!(begun.elapsed() < Duration::from_secs(60), "{begun:?}");
    assert_eq!(node.cri.wait_exit(&id).await?.exit_code, 7);
    for pod in [&pod, &empty] {
        until("the pod to be not ready", || async {
            match node.cri.pod_status(&pod.id).await {
                Ok(status) if status.state() == PodSandboxState::SandboxNotready => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        wait_forgotten(&scope(pod)).await?;
    }
    node.finish().await
}

#[tokio::test]
#[ignore = "needs systemd as the machine's first process"]
async fn what_a_lost_pod_left_in_its_scope_is_killed() -> Result<()> {
    let mut node = Node::start().await?;
    let slices = kubelet_slices(&node, "lost");
    let spec = PodSpec::new("pod").cgroup_parent(&slices[2]);
    let pod = node.cri.run_pod(spec).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let container = node.cri.container_pid(&id).await?;
    let kept = node.cri.run_pod(PodSpec::new("kept")).await?;
    node.daemon.kill9().await?;
    // Its record is torn and its pause is gone: nothing but the scope tells of it.
    let state = node.daemon.slot().path("state");
    fs::remove_dir_all(state.join("pods").join(&pod.id))?;
    fs::remove_dir_all(state.join("containers").join(&id))?;
    let stopped = Pid::from_raw(container.cast_signed());
    let pause = read(&cgroup_of(container)?.replace(&id, "pause"), "cgroup.procs")?;
    kill(stopped, Signal::SIGSTOP)?;
    kill(Pid::from_raw(pause.parse()?), Signal::SIGKILL)?;
    node.daemon.restart().await?;
    wait_forgotten(&scope(&pod)).await?;
    assert_eq!(property(&scope(&kept), "ActiveState")?, "active");
    systemctl(&["stop", &slices[1]])?;
    node.finish().await
}

#[tokio::test]
async fn the_other_drivers_parents_are_refused() -> Result<()> {
    let node = Node::start().await?;
    let parents = match CgroupDriver::of_this_run() {
        CgroupDriver::Cgroupfs => {
            &["/kubepods.slice/kubepods-pod1.slice", "kubepods-pod1.slice"][..]
        }
        CgroupDriver::Systemd => &["/kubepods/pod1", "pod1", "a--b.slice", "/x/a-b.slice"],
    };
    for parent in parents {
        let refused = node
            .cri
            .run_pod(PodSpec::new("pod").cgroup_parent(parent))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        for said in [parent, "cgroupfs", "systemd", "cgroup.driver"] {
            assert!(refused.message().contains(said), "{said}: {refused}");
        }
    }
    node.finish().await
}

#[test]
fn a_daemon_without_systemd_says_so_at_its_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |below: &str| directory.path().join(below).display().to_string();
    // No bus and no systemd in sight, wherever this runs.
    let hidden = "mount -t tmpfs tmpfs /run && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", hidden, "sh"])
        .arg(std::env::var("PODWRIGHT_BINARY")?)
        .args(["runtime", "--cgroup-driver", "systemd"])
        .args(["--state-dir", &path("state"), "--run-dir", &path("run")])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "cannot reach systemd at unix:path=/run/systemd/private",
        "No such file or directory",
        "cgroup.driver = \"cgroupfs\"",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    Ok(())
}
