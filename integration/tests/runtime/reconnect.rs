//! The connection between the daemon and a pod's pause closes, and both live: the pod goes on.

use std::{
    collections::HashSet,
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
        socket::{
            AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, accept, bind, connect,
            getpeername, listen, shutdown, socket,
        },
        stat::fstat,
    },
    unistd::{Pid, close},
};
use podwright_cri_api::v1::PodSandboxState;
use podwright_integration::{
    cri::Pod,
    node::{Node, deadline, until},
    patience::patience,
    pod::{ContainerSpec, PodSpec},
    proc,
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::time::timeout;
use tonic::Code;

fn pause_socket(node: &Node, pod: &Pod) -> PathBuf {
    let name = format!("pods/{}.sock", pod.id);
    node.daemon.slot().run_directory().join(name)
}

/// The daemon's connections to a pod's pause: copies, by the daemon's own numbers.
fn connections(node: &Node, pod: &Pod) -> Result<Vec<OwnedFd>> {
    let pid = node.daemon.pid().context("the daemon has ended")?;
    let daemon = rustix::process::Pid::from_raw(pid.cast_signed()).context("no pid")?;
    let daemon = pidfd_open(daemon, PidfdFlags::empty())?;
    let socket = format!("{}.sock", pod.id);
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let number = entry?.file_name().to_string_lossy().parse()?;
        // Some close meanwhile.
        let Ok(copy) = pidfd_getfd(&daemon, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let peer = getpeername::<UnixAddr>(copy.as_raw_fd()).ok();
        if peer.is_some_and(|peer| peer.path().is_some_and(|path| path.ends_with(&socket))) {
            found.push(copy);
        }
    }
    Ok(found)
}

/// Closes the daemon's connection to a pod's pause, as either of them does with one that it cannot go on with.
fn cut_off(node: &Node, pod: &Pod) -> Result<()> {
    let copies = connections(node, pod)?;
    // One that was cut off before may still be held.
    let cut = copies
        .iter()
        .filter(|copy| shutdown(copy.as_raw_fd(), Shutdown::Both).is_ok());
    ensure!(
        cut.count() > 0,
        "the daemon has no connection to the pause of {}",
        pod.id
    );
    Ok(())
}

/// Sockets by their numbers in the kernel.
fn inodes(sockets: &[OwnedFd]) -> Result<HashSet<u64>> {
    let inode = |socket: &OwnedFd| -> Result<u64> { Ok(fstat(socket)?.st_ino) };
    sockets.iter().map(inode).collect()
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
    // In this order: the process is known before it may end.
    let (ended, told) = tokio::join!(proc::ended(pid), async {
        fs::write(flags.path().join("go"), "")
    });
    kill(daemon, Signal::SIGCONT)?;
    told?;
    ended?;

    ensure!(node.cri.wait_exit(&id).await?.exit_code == 7);
    until_commands_run(&node, &other).await?;
    node.finish().await
}

/// A connection that is younger than a second is made again no sooner than that: what ends meanwhile is noticed all the same.
#[tokio::test]
async fn a_pause_that_ends_while_it_is_connected_to_again_is_noticed() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let process = node.cri.container_pid(&id).await?;
    let pause = Pid::from_raw(node.cri.pause_pid(&pod.id).await?.cast_signed());
    // Until the next one has been made, of which the pod has nothing yet.
    let before = inodes(&connections(&node, &pod)?)?;
    cut_off(&node, &pod)?;
    until("another connection", || async {
        let now = connections(&node, &pod).and_then(|now| inodes(&now));
        let now = now.map_err(|error| format!("{error:#}"))?;
        let new = now.difference(&before).next().is_some();
        new.then_some(()).ok_or_else(|| format!("{now:?}"))
    })
    .await?;
    let (ended, killed) =
        tokio::join!(proc::ended(process), async { kill(pause, Signal::SIGKILL) });
    killed?;
    ended?;
    until("the pod not to be ready", || async {
        let status = node.cri.pod_status(&pod.id).await;
        let state = status.map_err(|error| error.to_string())?.state();
        let gone = state == PodSandboxState::SandboxNotready;
        gone.then_some(()).ok_or_else(|| format!("{state:?}"))
    })
    .await?;
    ensure!(node.cri.wait_exit(&id).await?.exit_code != 0);
    node.finish().await
}

/// It is sent by the connection after the one that has closed.
#[tokio::test]
async fn a_stop_signal_arrives_though_the_connection_has_closed() -> Result<()> {
    let node = Node::start().await?;
    let flags = tempfile::tempdir()?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let spec = ContainerSpec::new("graceful")
        .shell("trap 'exit 9' TERM; touch /flag/ready; while :; do sleep 0.02; done")
        .mount(&flags.path().display().to_string(), "/flag");
    let id = node.cri.run(&pod, spec).await?;
    let ready = flags.path().join("ready");
    until("the trap", || async {
        ready.exists().then_some(()).ok_or_else(String::new)
    })
    .await?;
    // Twice: the second one is young, and made again after a while.
    cut_off(&node, &pod)?;
    until_commands_run(&node, &id).await?;
    cut_off(&node, &pod)?;
    let grace = i64::try_from(patience(Duration::from_secs(10)).as_secs())?;
    node.cri.stop(&id, grace).await?;
    ensure!(node.cri.wait_exit(&id).await?.exit_code == 9);
    node.finish().await
}

/// How many attempts are watched, and what passes between the first and the last of them at least: 50 ms, and twice as long each time.
const ATTEMPTS: usize = 6;
const ATTEMPTS_TAKE: Duration = Duration::from_millis(1500);

/// A pause that drops each connection is tried by one at a time, and ever more rarely.
#[tokio::test]
async fn attempts_that_fail_do_not_multiply() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let path = pause_socket(&node, &pod);
    let away = path.with_extension("away");
    fs::rename(&path, &away)?;
    let other = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(other.as_raw_fd(), &UnixAddr::new(&path)?)?;
    listen(&other, Backlog::new(8)?)?;
    // Kept until the other name is back: who is refused takes the pause for gone.
    let watch = tokio::task::spawn_blocking(move || -> Result<(Duration, OwnedFd)> {
        let mut first = None;
        for _ in 0..ATTEMPTS {
            close(accept(other.as_raw_fd())?)?;
            first.get_or_insert_with(Instant::now);
        }
        Ok((first.context("no attempt")?.elapsed(), other))
    });
    cut_off(&node, &pod)?;
    let (took, other) = timeout(deadline(), watch).await???;
    ensure!(took >= ATTEMPTS_TAKE, "{ATTEMPTS} attempts in {took:?}");

    fs::rename(&away, &path)?;
    drop(other);
    until_commands_run(&node, &id).await?;
    node.finish().await
}

/// How long the daemon waits for one answer: the same on a slow machine.
const ONE_ANSWER: Duration = Duration::from_secs(10);
/// More of them than fit into what else a slow machine may need.
const CONTAINERS: u32 = 12;

#[tokio::test]
async fn a_frozen_pod_is_stopped_without_an_answer_for_each_container() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for number in 0..CONTAINERS {
        let container = ContainerSpec::new(&format!("c{number}"));
        node.cri.run(&pod, container).await?;
    }
    let pause = node.cri.pause_pid(&pod.id).await?;
    kill(Pid::from_raw(pause.cast_signed()), Signal::SIGSTOP)?;
    let begun = Instant::now();
    node.cri.stop_pod(&pod.id).await?;
    let took = begun.elapsed();
    // One answer, and the time to kill the pod.
    let limit = ONE_ANSWER + patience(Duration::from_secs(9));
    ensure!(
        limit < CONTAINERS * ONE_ANSWER && took < limit,
        "{took:?} of {limit:?}"
    );
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
    let address = UnixAddr::new(&pause_socket(node, pod))?;
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
    let next = node.cri.create(&pod, ContainerSpec::new("next")).await?;
    let stopped = node.cri.run(&other, ContainerSpec::new("c")).await?;
    let process = node.cri.container_pid(&stopped).await?;
    let mut pauses = Vec::new();
    for pod in [&pod, &other] {
        let pause = node.cri.pause_pid(&pod.id).await?;
        // Children have the standard streams for a while, and what holds the pod's socket makes it seem to live.
        let input = fs::read_link(format!("/proc/{pause}/fd/0"))?;
        ensure!(input == Path::new("/dev/null"), "{}", input.display());
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
    // A start that cannot be tried now can be tried again.
    let refused = node.cri.start_container(&next).await;
    let refused = refused.err().context("a container starts")?;
    ensure!(refused.code() == Code::Unavailable, "{refused}");
    // It can be stopped all the same.
    let (stop, ended) = tokio::join!(node.cri.stop_pod(&other.id), proc::ended(process));
    stop?;
    ended?;

    drop(crowds);
    kill(pauses[0], Signal::SIGCONT)?;
    ensure!(node.cri.wait_exit(&id).await?.exit_code == 7);
    node.cri.start_container(&next).await?;
    until_commands_run(&node, &next).await?;
    node.finish().await
}
