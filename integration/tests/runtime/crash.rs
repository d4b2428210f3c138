//! The daemon's death: pods run on, and the next start knows all of it.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podwright_cri_api::v1::{ContainerState, PodSandboxState};
use podwright_integration::{
    cri::Pod,
    node::{Node, Snapshot, until},
    patience::amount,
    pod::{ContainerSpec, PodSpec},
};

fn pods_at_once() -> usize {
    amount(20).max(6)
}

/// Of each writer.
fn lines() -> usize {
    amount(6000).max(1800)
}

/// Numbered lines, written for at least three seconds, so that they go on while the daemon is away.
fn writer(number: usize) -> ContainerSpec {
    let (code, lines) = (exit_code(number), lines());
    ContainerSpec::new("writer").shell(&format!(
        "i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); \
         [ $((i % 40)) = 0 ] && sleep 0.02; done; exit {code}"
    ))
}

fn exit_code(number: usize) -> usize {
    number % 3
}

/// Ends while the daemon is away: it waits for a file that the test makes then.
fn waiter(number: usize, directory: &str) -> ContainerSpec {
    let script = format!(
        "while [ ! -e /flag/go ]; do sleep 0.02; done; exit {}",
        100 + number
    );
    ContainerSpec::new("waiter")
        .shell(&script)
        .mount(directory, "/flag")
}

/// Daemons have kept a pod's hosts, hostname and resolv.conf with its records, and pods of theirs live on.
#[tokio::test]
async fn a_pod_whose_files_are_with_its_records_gets_containers() -> Result<()> {
    let mut node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("older")).await?;
    node.daemon.kill9().await?;
    let slot = node.daemon.slot();
    let files = slot.run_directory().join("files").join(&pod.id);
    let records = slot.path("state/pods").join(&pod.id);
    for name in ["hosts", "hostname", "resolv.conf"] {
        fs::copy(files.join(name), records.join(name))?;
    }
    fs::remove_dir_all(&files)?;
    node.daemon.restart().await?;
    let spec = ContainerSpec::new("c").shell("grep -c localhost /etc/hosts");
    let id = node.cri.run(&pod, spec).await?;
    assert_eq!(node.cri.wait_exit(&id).await?.exit_code, 0);
    node.finish().await
}

#[tokio::test]
async fn pods_outlive_a_killed_daemon() -> Result<()> {
    let mut node = Node::start().await?;
    let flags = tempfile::tempdir()?;
    let directory = flags.path().display().to_string();
    let pods =
        (0..pods_at_once()).map(|number| node.cri.run_pod(PodSpec::new(&format!("pod-{number}"))));
    let pods: Vec<Pod> = try_join_all(pods).await?;
    let mut writers = Vec::new();
    let mut waiters = Vec::new();
    for (number, pod) in pods.iter().enumerate() {
        waiters.push(node.cri.run(pod, waiter(number, &directory)).await?);
        writers.push(node.cri.run(pod, writer(number)).await?);
    }
    let mut pids = BTreeMap::new();
    for id in &waiters {
        pids.insert(id.clone(), node.cri.container_pid(id).await?);
    }
    // The last writer has only begun.
    let last_log = node.cri.log_path(&writers[pods.len() - 1]).await?;
    let size = || std::fs::metadata(&last_log).map_or(0, |meta| meta.len());

    node.daemon.kill9().await?;
    let at_death = size();
    std::fs::write(flags.path().join("go"), "")?;
    until(
        "logs to flow without a daemon, and the waiters to end",
        || async {
            let alive = pids.values().filter(|pid| is_running(**pid)).count();
            if size() > at_death && alive == 0 {
                Ok(())
            } else {
                Err(format!("{alive} waiters run"))
            }
        },
    )
    .await?;
    node.daemon.restart().await?;

    for pod in &pods {
        assert_eq!(
            node.cri.pod_status(&pod.id).await?.state(),
            PodSandboxState::SandboxReady
        );
    }
    for (number, id) in waiters.iter().enumerate() {
        let status = node.cri.status(id).await?;
        assert_eq!(
            status.state(),
            ContainerState::ContainerExited,
            "waiter {number}"
        );
        assert_eq!(
            status.exit_code,
            i32::try_from(100 + number)?,
            "waiter {number}"
        );
    }
    for (number, id) in writers.iter().enumerate() {
        let ended = node.cri.wait_exit(id).await?;
        assert_eq!(
            ended.exit_code,
            i32::try_from(exit_code(number))?,
            "writer {number}"
        );
        let lines: Vec<_> = node
            .cri
            .logs(id)
            .await?
            .into_iter()
            .map(|line| line.text)
            .collect();
        let expected: Vec<_> = (0..self::lines())
            .map(|line| format!("line {line}"))
            .collect();
        assert!(
            lines == expected,
            "writer {number}: lines are missing, doubled or torn"
        );
    }
    node.finish().await
}

/// A zombie has ended; its parent has not reaped it yet.
fn is_running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains('Z'))
}

#[tokio::test]
async fn running_containers_keep_their_processes() -> Result<()> {
    let mut node = Node::start().await?;
    let mut pids = BTreeMap::new();
    for number in 0..pods_at_once() {
        let pod = node
            .cri
            .run_pod(PodSpec::new(&format!("pod-{number}")))
            .await?;
        let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
        pids.insert(id.clone(), node.cri.container_pid(&id).await?);
    }
    node.daemon.kill9().await?;
    node.daemon.restart().await?;
    for (id, pid) in &pids {
        assert_eq!(
            node.cri.status(id).await?.state(),
            ContainerState::ContainerRunning
        );
        assert_eq!(node.cri.container_pid(id).await?, *pid);
        assert_eq!(node.cri.shell(id, "echo alive").await?, "alive\n");
    }
    node.finish().await
}

/// The process that a container's first process is a child of.
pub(crate) fn parent(pid: u32) -> Result<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(Pid::from_raw(parent.context("no PPid")?.trim().parse()?))
}

/// A frozen process of one pod neither delays the others nor costs its own pod anything.
#[tokio::test]
async fn a_start_does_not_wait_for_a_frozen_pod() -> Result<()> {
    let mut node = Node::start().await?;
    let flags = tempfile::tempdir()?;
    let directory = flags.path().display().to_string();
    let frozen_pod = node.cri.run_pod(PodSpec::new("frozen")).await?;
    let frozen = node.cri.run(&frozen_pod, waiter(7, &directory)).await?;
    let pod = node.cri.run_pod(PodSpec::new("other")).await?;
    let other = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let pause = parent(node.cri.container_pid(&frozen).await?)?;
    kill(pause, Signal::SIGSTOP)?;
    node.daemon.kill9().await?;
    std::fs::write(flags.path().join("go"), "")?;
    node.daemon.restart().await?;

    assert_eq!(node.cri.shell(&other, "echo alive").await?, "alive\n");
    let status = node.cri.pod_status(&frozen_pod.id).await?;
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    let status = node.cri.status(&frozen).await?;
    assert_eq!(
        status.state(),
        ContainerState::ContainerRunning,
        "as far as can be known"
    );
    kill(pause, Signal::SIGCONT)?;
    assert_eq!(node.cri.wait_exit(&frozen).await?.exit_code, 107);
    node.finish().await
}

#[tokio::test]
async fn a_terminated_daemon_leaves_pods_running() -> Result<()> {
    let mut node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let pid = node.cri.container_pid(&id).await?;
    node.daemon.terminate().await?;
    assert!(is_running(pid));
    node.daemon.restart().await?;
    assert_eq!(node.cri.container_pid(&id).await?, pid);
    node.finish().await
}

/// Nobody may ever start another one.
#[tokio::test]
async fn a_terminated_daemon_leaves_nothing_of_removed_pods() -> Result<()> {
    let mut node = Node::start().await?;
    let ready = node.cri.run_pod(PodSpec::new("first")).await?;
    node.cri.run(&ready, ContainerSpec::new("c")).await?;
    let before = Snapshot::of(node.daemon.slot())?;
    let mut pods = Vec::new();
    for number in 0..amount(16) {
        let pod = node
            .cri
            .run_pod(PodSpec::new(&format!("pod-{number}")))
            .await?;
        node.cri.run(&pod, ContainerSpec::new("c")).await?;
        pods.push(pod);
    }
    // What is given up right after a daemon's start does not wait; with nothing for a second, the start is over.
    tokio::time::sleep(Duration::from_millis(1500)).await; // the daemon tells nobody of that
    for pod in &pods {
        node.cri.stop_pod(&pod.id).await?;
        node.cri.remove_pod(&pod.id).await?;
    }
    node.daemon.terminate().await?;
    before.wait_equal(node.daemon.slot()).await?;
    node.daemon.restart().await?;
    node.finish().await
}

/// Killed in the middle of whatever it does, many times over: what was acknowledged is there, and
/// what was not has left nothing.
#[tokio::test]
async fn a_kill_at_any_moment_leaves_nothing_half_done() -> Result<()> {
    let mut node = Node::start().await?;
    for round in 0..12_u64 {
        let (node_ref, spec) = (&node, PodSpec::new("pod"));
        let work = async {
            let pod = node_ref.cri.run_pod(spec).await?;
            let id = node_ref.cri.run(&pod, ContainerSpec::new("c")).await?;
            node_ref.cri.remove(&id).await?;
            node_ref.cri.stop_pod(&pod.id).await
        };
        // The moments are spread over the time that one such round takes.
        let moment = std::time::Duration::from_millis(3 * round);
        let _ = tokio::time::timeout(moment, work).await;
        node.daemon.kill9().await?;
        node.daemon.restart().await?;
        node.cri.remove_all_pods().await?;
    }
    node.finish().await
}

/// The zygote of a node's daemon: the child that has pause's name, and no pod's id.
fn zygote(node: &Node) -> Result<Pid> {
    let daemon = node.daemon.pid().context("no daemon")?.cast_signed();
    for process in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        let is_zygote = arguments.trim_end_matches([' ', '\0']) == "podwright-pause";
        if is_zygote && parent(pid).is_ok_and(|parent| parent == Pid::from_raw(daemon)) {
            return Ok(Pid::from_raw(pid.cast_signed()));
        }
    }
    bail!("the daemon has no zygote")
}

/// The process that pauses are born from is of no pod: what lives goes on without it, and what is new gets another.
#[tokio::test]
async fn a_zygote_that_is_killed_or_frozen_is_replaced() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("before")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let first = zygote(&node)?;
    kill(first, Signal::SIGKILL)?;
    node.cri.run_pod(PodSpec::new("killed")).await?;
    let second = zygote(&node)?;
    ensure!(second != first);

    kill(second, Signal::SIGSTOP)?;
    let late = node.cri.run_pod(PodSpec::new("frozen")).await;
    let late = late.err().context("a frozen zygote bears")?;
    let why = format!("process {second} was stopped by a signal");
    ensure!(format!("{late:#}").contains(&why), "{late:#}");
    node.cri.run_pod(PodSpec::new("thawed")).await?;
    ensure!(zygote(&node)? != second);
    until("the frozen one to be gone", || async {
        match is_running(second.as_raw().unsigned_abs()) {
            false => Ok(()),
            true => Err("it is there".to_owned()),
        }
    })
    .await?;
    node.cri.shell(&id, "true").await?;
    node.finish().await
}

/// An overlay that is volatile leaves a mark in its work directory, with which no other may have that (Linux 6.7 and later, where the
/// daemon makes the root).
#[tokio::test]
async fn a_container_whose_root_a_dead_daemon_made_is_started() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.create(&pod, ContainerSpec::new("c")).await?;
    if takes_layers_one_by_one()? {
        let containers = node.daemon.slot().path("state/containers");
        let mark = containers.join(&id).join("work/work/incompat/volatile");
        fs::create_dir_all(mark)?;
    }
    node.cri.start_container(&id).await?;
    node.finish().await
}

fn takes_layers_one_by_one() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("{release:?} is not a version of Linux");
    };
    Ok((major, minor) >= (6, 7))
}
