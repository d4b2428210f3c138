//! Another pod of the same node, which must not notice; and what the daemon holds, which must come back.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use podwright_integration::{
    node::{Node, Usage, until},
    patience::patience,
    pod::{ContainerSpec, PodSpec},
};
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

/// How often the neighbour is asked something.
const PERIOD: Duration = Duration::from_millis(20);
/// How many answers make a judgement.
const ANSWERS: usize = 50;
/// The longest that one answer of many may take, on a machine that is busy with other tests.
const SLOWEST: Duration = Duration::from_secs(3);
/// What half of the answers stay below.
const MEDIAN: Duration = Duration::from_millis(250);
/// What an allocator may keep of memory that was freed, in KiB.
const KEPT: u64 = 16 * 1024;

/// A pod whose container is asked something all the time.
pub(super) struct Neighbour {
    stop: oneshot::Sender<()>,
    asking: JoinHandle<Result<Vec<Duration>>>,
}

impl Neighbour {
    pub(super) async fn start(node: &Node) -> Result<Self> {
        let pod = node.cri.run_pod(PodSpec::new("neighbour")).await?;
        let id = node.cri.run(&pod, ContainerSpec::new("neighbour")).await?;
        let (stop, mut stopped) = oneshot::channel();
        let cri = node.cri.clone();
        let asking = tokio::spawn(async move {
            let mut times = Vec::new();
            let mut ticks = interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while times.len() < ANSWERS || stopped.try_recv() == Err(TryRecvError::Empty) {
                ticks.tick().await;
                let start = Instant::now();
                let answer = cri.exec(&id, &["echo", "here"], 30).await?;
                ensure!(answer.stdout == b"here\n", "the answer is {answer:?}");
                times.push(start.elapsed());
            }
            Ok(times)
        });
        Ok(Self { stop, asking })
    }

    /// Checks how long the answers took until now.
    pub(super) async fn finish(self) -> Result<()> {
        let _ = self.stop.send(());
        let mut times = self.asking.await??;
        times.sort_unstable();
        let slowest = times.last().copied().context("nothing was asked")?;
        let median = times[times.len() / 2];
        println!(
            "{} answers of a neighbour: median {median:?}, slowest {slowest:?}",
            times.len()
        );
        ensure!(slowest <= patience(SLOWEST), "an answer took {slowest:?}");
        ensure!(
            median <= patience(MEDIAN),
            "half of the answers took {median:?}"
        );
        Ok(())
    }
}

/// What a daemon held at some time.
pub(super) struct Holdings {
    pid: u32,
    usage: Usage,
    memory: u64,
}

impl Holdings {
    pub(super) fn of(node: &Node) -> Result<Self> {
        let pid = node.daemon.pid().context("the daemon runs")?;
        Ok(Self {
            pid,
            usage: Usage::of(pid)?,
            memory: memory(pid)?,
        })
    }

    /// How much more memory it has now, in KiB.
    pub(super) fn grown(&self) -> Result<u64> {
        Ok(memory(self.pid)?.saturating_sub(self.memory))
    }

    /// Waits until it holds no more than it did, but for what its allocator keeps.
    pub(super) async fn wait_back(&self) -> Result<()> {
        until("the daemon to hold what it held", || async {
            let now = Usage::of(self.pid).map_err(|error| format!("{error:#}"))?;
            let more = now.more_than(&self.usage);
            let grown = self.grown().map_err(|error| format!("{error:#}"))?;
            let back = more.is_empty() && now.threads <= self.usage.threads && grown <= KEPT;
            back.then_some(()).ok_or_else(|| {
                let (now, before) = (now.threads, self.usage.threads);
                format!("more of {more:?}, {now} threads after {before}, {grown} KiB more")
            })
        })
        .await
    }
}

/// A process's own memory in KiB; see proc_pid_status(5).
fn memory(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let figure = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    figure.with_context(|| format!("no RssAnon in {path}"))
}
