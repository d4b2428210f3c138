//! The connection between the daemon and a pod's pause closes, and both live: the pod goes on.

use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
        socket::{
            AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, getpeername, shutdown,
            socket,
        },
    },
    unistd::Pid,
};
use podwright_cri_api::v1::PodSandboxState;
use podwright_integration::{
    cri::Pod,
    node::{Node, until},
    pod::{ContainerSpec, PodSpec},
    proc,
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Closes the daemon's connection to a pod's pause, as either of them does with one that it cannot go on with.
fn cut_off(node: &Node, pod: &Pod) -> Result<()> {
    let pid = node.daemon.pid().context("the daemon has ended")?;
    let daemon = rustix::process::Pid::from_raw(pid.cast_signed()).context("no pid")?;
    let daemon = pidfd_open(daemon, PidfdFlags::empty())?;
    let socket = format!("{}.sock", pod.id);
    let mut found = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let number = entry?.file_name().to_string_lossy().parse()?;
        // Some close meanwhile.
        let Ok(copy) = pidfd_getfd(&daemon, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let peer = getpeername::<UnixAddr>(copy.as_raw_fd()).ok();
        if peer.is_some_and(|peer| peer.path().is_some_and(|path| path.ends_with(&socket))) {
            // One that was cut off before may still be held.
            found += usize::from(shutdown(copy.as_raw_fd(), Shutdown::Both).is_ok());
        }
    }
    ensure!(found > 0, "the daemon has no connection to {socket}");
    Ok(())
}

/// Ends with 7 once `go` is in its volume.
fn waiter(directory: &Path) -> ContainerSpec {
    ContainerSpec::new("waiter")
        .shell("while [ ! -e /flag/go ]; do sleep 0.02; done; exit 7")
        .mount(&directory.display().to_string(), "/flag")
}

async fn until_commands_run(node: &Node, id: &str) -> Result<()> {
    until("commands to run again", || async {
        let tried = node.cri.shell(id, "true").await;
        tried.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await
}

#[tokio::test]
async fn a_pod_outlives_the_connection_to_its_pause() -> Result<()> {
    let node = Node::start().await?;
    let flags = tempfile::tempdir()?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, waiter(flags.path())).await?;
    let pid = node.cri.container_pid(&id).await?;
    let begun = flags.path().join("begun");
    // At once, too, after it was made again.
    for _ in 0..2 {
        let command = node.cri.shell(&id, "touch /flag/begun; sleep 1000");
        let cut = async {
            until("the command to begin", || async {
                begun.exists().then_some(()).ok_or_else(String::new)
            })
            .await?;
            cut_off(&node, &pod)
        };
        let (ended, cut) = tokio::join!(command, cut);
        cut?;
        let why = format!("{:#}", ended.err().context("a command goes on")?);
        ensure!(why.contains("connection"), "{why}");
        fs::remove_file(&begun)?;
        until_commands_run(&node, &id).await?;
    }
    ensure!(node.cri.container_pid(&id).await? == pid);
    let status = node.cri.pod_status(&pod.id).await?;
    ensure!(status.state() == PodSandboxState::SandboxReady);

    // What pause tells comes by the new connection, and it does what it is asked to.
    let other = node.cri.run(&pod, ContainerSpec::new("other")).await?;
    fs::write(flags.path().join("go"), "")?;
    ensure!(node.cri.wait_exit(&id).await?.exit_code == 7);
    node.cri.stop(&other, 0).await?;
    node.cri.stop_pod(&pod.id).await?;
    node.finish().await
}

#[tokio::test]
async fn what_ends_while_there_is_no_connection_is_learnt() -> Result<()> {
    let node = Node::start().await?;
    let flags = tempfile::tempdir()?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, waiter(flags.path())).await?;
    let other = node.cri.run(&pod, ContainerSpec::new("other")).await?;
    let pid = node.cri.container_pid(&id).await?;

    let daemon = node.daemon.pid().context("the daemon has ended")?;
    let daemon = Pid::from_raw(daemon.cast_signed());
    kill(daemon, Signal::SIGSTOP)?;
    cut_off(&node, &pod)?;
    fs::write(flags.path().join("go"), "")?;
    let ended = proc::ended(pid).await;
    kill(daemon, Signal::SIGCONT)?;
    ended?;

    ensure!(node.cri.wait_exit(&id).await?.exit_code == 7);
    until_commands_run(&node, &other).await?;
    node.finish().await
}

/// More than the connections that can wait for two pauses, where net.core.somaxconn is 4,096 as by default.
const CROWDS: u64 = 10_000;

/// Lets this process open that many files, beyond its hard limit where it must.
fn may_open(files: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < files {
        setrlimit(Resource::RLIMIT_NOFILE, files, hard.max(files))
            .with_context(|| format!("this test opens {files} files; {hard} may be open"))?;
    }
    Ok(())
}

/// Connects to a pod's pause, which stands still, until nobody more can.
fn crowd(node: &Node, pod: &Pod) -> Result<Vec<OwnedFd>> {
    let name = format!("pods/{}.sock", pod.id);
    let address = UnixAddr::new(&node.daemon.slot().run_directory().join(name))?;
    let mut crowd = Vec::new();
    loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let client = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        match connect(client.as_raw_fd(), &address) {
            Ok(()) => crowd.push(client),
            Err(Errno::EAGAIN) => return Ok(crowd),
            Err(error) => return Err(error).context("connecting to the pod's pause"),
        }
    }
}

/// As after thousands of starts of the daemon beside a frozen pod.
#[tokio::test]
async fn a_pause_that_cannot_be_reached_at_start_keeps_its_pod() -> Result<()> {
    may_open(CROWDS)?;
    let mut node = Node::start().await?;
    let flags = tempfile::tempdir()?;
    let (pod, other) = tokio::try_join!(
        node.cri.run_pod(PodSpec::new("pod")),
        node.cri.run_pod(PodSpec::new("other"))
    )?;
    let id = node.cri.run(&pod, waiter(flags.path())).await?;
    let stopped = node.cri.run(&other, ContainerSpec::new("c")).await?;
    let process = node.cri.container_pid(&stopped).await?;
    let mut pauses = Vec::new();
    for pod in [&pod, &other] {
        let pause = node.cri.pause_pid(&pod.id).await?;
        pauses.push(Pid::from_raw(pause.cast_signed()));
    }
    for pause in &pauses {
        kill(*pause, Signal::SIGSTOP)?;
    }
    let crowds = [crowd(&node, &pod)?, crowd(&node, &other)?];
    ensure!(crowds[0].len() > 1000, "{} wait", crowds[0].len());
    node.daemon.kill9().await?;
    fs::write(flags.path().join("go"), "")?;
    node.daemon.restart().await?;

    let status = node.cri.pod_status(&pod.id).await?;
    ensure!(status.state() == PodSandboxState::SandboxReady);
    let error = node.cri.shell(&id, "true").await;
    let why = format!("{:#}", error.err().context("a command runs")?);
    ensure!(why.contains("made again"), "{why}");
    // It can be stopped all the same.
    let (stop, ended) = tokio::join!(node.cri.stop_pod(&other.id), proc::ended(process));
    stop?;
    ended?;

    drop(crowds);
    kill(pauses[0], Signal::SIGCONT)?;
    ensure!(node.cri.wait_exit(&id).await?.exit_code == 7);
    let next = node.cri.run(&pod, ContainerSpec::new("next")).await?;
    until_commands_run(&node, &next).await?;
    node.finish().await
}
