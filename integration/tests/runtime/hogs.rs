//! Containers that take all they can get stay within their limits, and the node answers meanwhile.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::{major, minor};
use podwright_cri_api::v1::{
    ContainerState, LinuxContainerResources, ListContainersRequest, StatusRequest,
};
use podwright_integration::{
    node::{DiskSize, Node, until},
    patience::patience,
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

use super::cgroup::{is_v2, read, update};

/// What a CRI call may take while hogs are at work.
const ANSWER: Duration = Duration::from_millis(100);
/// How often each call is made, and where times are not judged.
const ROUNDS: (usize, usize) = (20, 3);
/// Bytes per second of the I/O hog.
const WRITING: u64 = 4 << 20;
/// The most tasks of each container here.
const TASKS: u64 = 64;

/// Forks as fast as it can, for ever: who cannot fork ends, and makes room for another. The shell itself forks no more, and
/// reaps, as a container's init should.
const FORK_BOMB: &str = "sleep 1000 & init=$!; (bomb() { while :; do bomb & done; }; bomb) >/dev/null 2>&1 & wait $init";
/// Each child takes memory until it is killed; then comes the next.
const MEMORY_HOG: &str = "while :; do sh -c 'x=a; while :; do x=$x$x; done'; done >/dev/null 2>&1";
/// Past the page cache, so that each write is the container's own.
const IO_HOG: &str =
    "while :; do dd if=/dev/zero of=/big bs=64k count=256 oflag=direct; done >/dev/null 2>&1";
const CPU_HOG: &str = "for n in 1 2 3 4; do (while :; do :; done) & done; wait";

async fn hogs(sections: &str) -> Result<(Node, podwright_integration::cri::Pod)> {
    let node = Node::start_configured(sections).await?;
    let pod = node.cri.run_pod(PodSpec::new("hogs")).await?;
    Ok((node, pod))
}

/// A hog gets a quarter of one CPU, so that all of them together leave some.
fn limited(name: &str, script: &str) -> ContainerSpec {
    let spec = ContainerSpec::new(name).shell(script);
    spec.with_resources(|resources| {
        resources.cpu_period = 20_000;
        resources.cpu_quota = 5_000;
        resources.memory_limit_in_bytes = 48 << 20;
        resources.memory_swap_limit_in_bytes = 48 << 20;
    })
}

/// The value of the line `name value`.
fn line(text: &str, name: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let mut values = lines.filter(|(key, _)| *key == name);
    values
        .next()
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or_default()
}

fn number(text: &str) -> Result<u64> {
    text.parse()
        .with_context(|| format!("{text:?} is no number"))
}

/// How often a fork was refused.
fn refused_forks(pid: u32) -> Result<u64> {
    let events = read(pid, ("pids", "pids.events"), "pids.events")?;
    Ok(line(&events, "max"))
}

fn tasks(pid: u32) -> Result<u64> {
    number(&read(pid, ("pids", "pids.current"), "pids.current")?)
}

fn oom_kills(pid: u32) -> Result<u64> {
    let text = read(pid, ("memory", "memory.oom_control"), "memory.events")?;
    Ok(line(&text, "oom_kill"))
}

fn memory_peak(pid: u32) -> Result<u64> {
    // Before Linux 5.19 v2 does not tell.
    let peak = read(pid, ("memory", "memory.max_usage_in_bytes"), "memory.peak");
    peak.map_or(Ok(0), |text| number(&text))
}

fn cpu_time(pid: u32) -> Result<Duration> {
    match read(pid, ("cpuacct", "cpuacct.usage"), "cpu.stat")? {
        text if text.contains(' ') => Ok(Duration::from_micros(line(&text, "usage_usec"))),
        text => Ok(Duration::from_nanos(number(&text)?)),
    }
}

/// The disk that a directory is on, as `major:minor`; none where no block device is behind it.
fn disk_of(directory: &std::path::Path) -> Result<Option<String>> {
    let device = fs::metadata(directory)?.dev();
    let mut sys = PathBuf::from(format!(
        "/sys/dev/block/{}:{}",
        major(device),
        minor(device)
    ));
    if sys.join("partition").exists() {
        sys = fs::canonicalize(&sys)?;
        sys.pop();
    }
    match fs::read_to_string(sys.join("dev")) {
        Ok(number) => Ok(Some(number.trim().to_owned())),
        Err(_) => Ok(None),
    }
}

/// Limits a container's writing, as a kubelet can on v2, and an operator on v1, where CRI has no word for it.
async fn limit_writing(node: &Node, id: &str, pid: u32, disk: &str) -> Result<()> {
    if is_v2() {
        let limit = format!("{disk} wbps={WRITING}");
        let linux = LinuxContainerResources {
            unified: [("io.max".to_owned(), limit)].into(),
            ..LinuxContainerResources::default()
        };
        return Ok(update(node, id, linux).await?);
    }
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mut lines = table.lines().filter_map(|line| line.split_once(":blkio:"));
    let (_, path) = lines.next().context("no blkio")?;
    let file = format!("/sys/fs/cgroup/blkio{path}/blkio.throttle.write_bps_device");
    fs::write(&file, format!("{disk} {WRITING}")).with_context(|| file.clone())
}

fn written(pid: u32, disk: &str) -> Result<u64> {
    let v1 = ("blkio", "blkio.throttle.io_service_bytes");
    let text = read(pid, v1, "io.stat")?;
    let lines = text.lines().filter_map(|line| line.strip_prefix(disk));
    let bytes = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let v2 = words.clone().find_map(|word| word.strip_prefix("wbytes="));
        v2.or_else(|| words.find(|word| *word == "Write").and(words.next()))
            .and_then(|bytes| bytes.parse::<u64>().ok())
    });
    Ok(bytes.sum())
}

/// How long each of a kind of call took.
struct Answers(Vec<(&'static str, Vec<Duration>)>);

impl Answers {
    /// Makes calls about a pod of its own, and others that come and go.
    async fn measure(node: &Node, container: &str, tag: &str) -> Result<Self> {
        let kinds = [
            "Status",
            "ListContainers",
            "ContainerStatus",
            "ExecSync",
            "RunPodSandbox",
        ];
        let mut answers = kinds.map(|kind| (kind, Vec::new()));
        let (judged, other) = ROUNDS;
        let is_judged = patience(ANSWER) == ANSWER;
        for round in 0..if is_judged { judged } else { other } {
            let mut runtime = node.cri.client().runtime;
            for (kind, times) in &mut answers {
                let began = Instant::now();
                let mut pod = None;
                match *kind {
                    "Status" => drop(runtime.status(StatusRequest::default()).await?),
                    "ListContainers" => {
                        drop(
                            runtime
                                .list_containers(ListContainersRequest::default())
                                .await?,
                        );
                    }
                    "ContainerStatus" => drop(node.cri.status(container).await?),
                    "ExecSync" => {
                        let done = node.cri.exec(container, &["true"], 20).await?;
                        ensure!(done.exit_code == 0, "{done:?}");
                    }
                    _ => {
                        let spec = PodSpec::new(&format!("{tag}-{round}"));
                        pod = Some(node.cri.run_pod(spec).await?);
                    }
                }
                times.push(began.elapsed());
                if let Some(pod) = pod {
                    node.cri.stop_pod(&pod.id).await?;
                    node.cri.remove_pod(&pod.id).await?;
                }
            }
        }
        let mut answers = Self(answers.into());
        answers.0.iter_mut().for_each(|(_, times)| times.sort());
        Ok(answers)
    }

    /// Of the slowest kind.
    fn median(&self) -> Duration {
        let medians = self.0.iter().map(|(_, times)| times[times.len() / 2]);
        medians.max().unwrap_or_default()
    }

    /// Prints them, and judges: half of each kind within the bound, and nine tenths of all. On a machine that is busy with others'
    /// work, where a bound on time says nothing, not much slower than without the hogs.
    fn judge(&self, quiet: &Self) -> Result<()> {
        for ((kind, times), (_, quiet)) in self.0.iter().zip(&quiet.0) {
            let (middle, last) = (times.len() / 2, times.len() - 1);
            println!(
                "{kind}: median {:?}, longest {:?}; without hogs {:?}, {:?}",
                times[middle], times[last], quiet[middle], quiet[last]
            );
        }
        let bound = patience(ANSWER).max(3 * quiet.median());
        ensure!(
            self.median() < bound,
            "median {:?}, not below {bound:?}",
            self.median()
        );
        let all: Vec<_> = self.0.iter().flat_map(|(_, times)| times).collect();
        let late = all.iter().filter(|time| ***time >= bound).count();
        ensure!(
            late * 10 <= all.len(),
            "{late} of {} calls took {bound:?} or longer",
            all.len()
        );
        Ok(())
    }
}

#[tokio::test]
async fn all_hogs_at_once_leave_the_node_to_others() -> Result<()> {
    let (node, pod) = hogs(&format!("[pods]\npids_limit = {TASKS}\n")).await?;
    let neighbour = node.cri.run_pod(PodSpec::new("neighbour")).await?;
    let neighbour = node.cri.run(&neighbour, ContainerSpec::new("c")).await?;
    let quiet = Answers::measure(&node, &neighbour, "quiet").await?;

    let mut ids = Vec::new();
    let mut pids = Vec::new();
    for (name, script) in [
        ("forks", FORK_BOMB),
        ("memory", MEMORY_HOG),
        ("cpu", CPU_HOG),
        ("io", IO_HOG),
    ] {
        let id = node.cri.run(&pod, limited(name, script)).await?;
        pids.push(node.cri.container_pid(&id).await?);
        ids.push(id);
    }
    let [forks, memory, cpu, io] = pids[..] else {
        anyhow::bail!("four hogs")
    };
    let disk = disk_of(node.daemon.slot().directory())?;
    if let Some(disk) = &disk {
        limit_writing(&node, &ids[3], io, disk).await?;
    }
    until("all hogs to be at work", || async {
        let done = || -> Result<_> {
            let wrote = disk.as_ref().map_or(Ok(1), |disk| written(io, disk))?;
            Ok([refused_forks(forks)?, oom_kills(memory)?, wrote])
        };
        let done = done().map_err(|error| format!("{error:#}"))?;
        if done.iter().all(|count| *count > 0) {
            return Ok(());
        }
        Err(format!("forks refused, OOM kills, bytes written: {done:?}"))
    })
    .await?;

    let wrote = || disk.as_ref().map_or(Ok(0), |disk| written(io, disk));
    let had_refused = refused_forks(forks)?;
    let (began, used, had_written) = (Instant::now(), cpu_time(cpu)?, wrote()?);
    let answers = Answers::measure(&node, &neighbour, "loud").await?;
    let (passed, used, wrote) = (
        began.elapsed(),
        cpu_time(cpu)? - used,
        wrote()? - had_written,
    );
    assert!(refused_forks(forks)? > had_refused, "the bomb went out");
    assert!(tasks(forks)? <= TASKS, "{} tasks", tasks(forks)?);
    let peak = memory_peak(memory)?;
    assert!(peak <= 48 << 20, "{peak} bytes");
    // One period's quota more at each end, and what CPUs have taken in advance.
    let most = passed / 4 + Duration::from_millis(100);
    assert!(used <= most, "{used:?} of {passed:?}");
    // A throttled group may use up what it was given before, and one request more.
    let most = passed.as_secs_f64() * WRITING as f64 * 1.2 + (2 * WRITING) as f64;
    assert!((wrote as f64) < most, "{wrote} bytes in {passed:?}");
    println!("within limits for {passed:?}: {used:?} of CPU time, {wrote} bytes on {disk:?}");
    answers.judge(&quiet)?;

    for (id, reason) in ids.iter().zip(["Error", "OOMKilled", "Error", "Error"]) {
        assert_eq!(
            node.cri.status(id).await?.state(),
            ContainerState::ContainerRunning
        );
        node.cri.stop(id, 0).await?;
        let ended = node.cri.wait_exit(id).await?;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (137, reason));
    }
    node.finish().await
}

/// The host's devices by their numbers; nothing is written to them even if they open.
#[tokio::test]
async fn the_hosts_devices_stay_closed() -> Result<()> {
    let (node, pod) = hogs("").await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let disk = disk_of(node.daemon.slot().directory())?;
    let mut devices = vec![("c", "1:1"), ("c", "1:11"), ("c", "10:200"), ("b", "7:0")];
    devices.extend(disk.as_ref().map(|disk| ("b", disk.as_str())));
    for (kind, numbers) in devices {
        let numbers = numbers.replace(':', " ");
        for mode in ["<", ">>", "<>"] {
            let script = format!(
                "rm -f /device; mknod /device {kind} {numbers} || exit 9; : {mode} /device"
            );
            let done = node.cri.exec(&id, &["sh", "-c", &script], 20).await?;
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(
                said.contains("Operation not permitted") && ![0, 9].contains(&done.exit_code),
                "{kind} {numbers} {mode}: {} {said}",
                done.exit_code
            );
        }
    }
    node.finish().await
}

/// The command itself still fits, as processes may move into a full group.
#[tokio::test]
async fn a_full_container_takes_no_further_process() -> Result<()> {
    let (node, pod) = hogs("[pods]\npids_limit = 4\n").await?;
    let script = "sleep 1000 & sleep 1000 & sleep 1000 & wait";
    let id = node
        .cri
        .run(&pod, ContainerSpec::new("c").shell(script))
        .await?;
    let pid = node.cri.container_pid(&id).await?;
    until("all four to run", || async {
        match tasks(pid).map_err(|error| error.to_string())? {
            4 => Ok(()),
            other => Err(format!("{other} do")),
        }
    })
    .await?;
    let done = node.cri.exec(&id, &["sh", "-c", "true & wait"], 20).await?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.exit_code != 0 && said.contains("fork"), "{said}");
    assert_eq!(tasks(pid)?, 4);
    node.finish().await
}

/// A probe that forks without end, at its deadline and when the daemon is killed.
#[tokio::test]
async fn a_fork_bomb_in_an_exec_ends_with_it() -> Result<()> {
    let (mut node, pod) = hogs(&format!("[pods]\npids_limit = {TASKS}\n")).await?;
    let id = node
        .cri
        .run(&pod, limited("c", "sleep 1000 & wait"))
        .await?;
    let pid = node.cri.container_pid(&id).await?;
    let alone = || async {
        match tasks(pid).map_err(|error| error.to_string())? {
            2 => Ok(()),
            other => Err(format!("there are {other} tasks")),
        }
    };
    let bomb = ["sh", "-c", FORK_BOMB];
    for _ in 0..2 {
        let refused = node.cri.exec_for(&id, &bomb, 1).await.unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
        until("the bomb to be gone", alone).await?;
    }
    let before = refused_forks(pid)?;
    let cri = node.cri.clone();
    let exec = {
        let id = id.clone();
        tokio::spawn(async move { cri.exec(&id, &["sh", "-c", FORK_BOMB], 0).await })
    };
    until("the bomb to be at work", || async {
        let now = refused_forks(pid).map_err(|error| error.to_string())?;
        (now > before)
            .then_some(())
            .ok_or("no fork was refused".to_owned())
    })
    .await?;
    node.daemon.kill9().await?;
    exec.await?.unwrap_err();
    until("the bomb to be gone with the daemon", alone).await?;
    node.daemon.restart().await?;
    assert_eq!(
        node.cri.status(&id).await?.state(),
        ContainerState::ContainerRunning
    );
    node.finish().await
}

/// Anonymous and dirty memory of a process, in KiB.
fn private_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let sizes = text
        .lines()
        .filter(|line| line.starts_with("Private_Dirty:"));
    let sizes = sizes.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(sizes.sum())
}

#[tokio::test]
async fn a_log_without_end_takes_no_memory_of_pause_or_the_daemon() -> Result<()> {
    let (node, pod) = hogs("").await?;
    let pause = node.cri.pause_pid(&pod.id).await?;
    let daemon = node.daemon.pid().context("no daemon")?;
    let before = (private_kib(pause)?, private_kib(daemon)?);
    // Lines, and one that never ends.
    let script = "yes | head -c 16777216; tr '\\0' x < /dev/zero | head -c 16777216; sleep 1000";
    let id = node
        .cri
        .run(&pod, ContainerSpec::new("c").shell(script))
        .await?;
    let log = node.cri.log_path(&id).await?;
    let mut most = (0, 0);
    until("all to be logged", || {
        let sizes = || anyhow::Ok((private_kib(pause)?, private_kib(daemon)?));
        if let Ok((of_pause, of_daemon)) = sizes() {
            most = (most.0.max(of_pause), most.1.max(of_daemon));
        }
        let log = log.clone();
        async move {
            let size = fs::metadata(log).map_err(|error| error.to_string())?.len();
            (size > 32 << 20)
                .then_some(())
                .ok_or(format!("{size} bytes"))
        }
    })
    .await?;
    println!("private KiB of pause and the daemon: {before:?}, at most {most:?}");
    assert!(most.0 < before.0 + 512, "pause: {before:?}, {most:?}");
    assert!(most.1 < before.1 + 4096, "daemon: {before:?}, {most:?}");
    node.finish().await
}

#[tokio::test]
async fn a_full_writable_layer_is_its_containers_affair() -> Result<()> {
    let size = DiskSize {
        bytes: 96 << 20,
        inodes: 4096,
    };
    let node = Node::start_on_disk(size).await?;
    let pod = node.cri.run_pod(PodSpec::new("hogs")).await?;
    let script = "dd if=/dev/zero of=/big bs=64k; sleep 1000";
    let hog = node
        .cri
        .run(&pod, ContainerSpec::new("c").shell(script))
        .await?;
    let neighbour = node.cri.run_pod(PodSpec::new("neighbour")).await;
    until("the disk to be full", || async {
        let logs = node
            .cri
            .logs(&hog)
            .await
            .map_err(|error| error.to_string())?;
        let said = logs
            .iter()
            .map(|line| line.text.clone())
            .collect::<Vec<_>>();
        let full = said.iter().any(|text| text.contains("No space left"));
        full.then_some(()).ok_or(format!("{said:?}"))
    })
    .await?;
    // It may have come too late to be made.
    if let Ok(pod) = neighbour {
        node.cri.pod_status(&pod.id).await?;
    }
    let done = node.cri.exec(&hog, &["true"], 20).await?;
    assert_eq!(done.exit_code, 0);
    node.cri.stop(&hog, 0).await?;
    node.cri.remove(&hog).await?;
    let disk = node.daemon.disk()?;
    until("the room to be back", || async {
        let used = disk.used().map_err(|error| error.to_string())?;
        (used < 48 << 20)
            .then_some(())
            .ok_or(format!("{used} bytes in use"))
    })
    .await?;
    node.cri.run(&pod, ContainerSpec::new("next")).await?;
    node.finish().await
}
