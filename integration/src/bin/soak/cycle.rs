//! Lives of pods, several at once.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use podwright_integration::{
    cri::Cri,
    node::Daemon,
    percentile::percentile,
    pod::{ContainerSpec, PodSpec},
};

const WORKERS: usize = 8;
/// How often it is said how far it has come.
const PROGRESS: usize = 10_000;

/// How long the two calls that matter took in some cycles.
#[derive(Debug, Default)]
pub(crate) struct Times {
    up: Vec<Duration>,
    exec: Vec<Duration>,
}

impl Times {
    fn add(&mut self, took: Took) {
        self.up.push(took.up);
        self.exec.push(took.exec);
    }

    fn extend(&mut self, other: Self) {
        self.up.extend(other.up);
        self.exec.extend(other.exec);
    }

    /// The 99th percentiles of pod up and of exec.
    pub(crate) fn slowest(&mut self) -> [Duration; 2] {
        [&mut self.up, &mut self.exec].map(|times| percentile(times, 99))
    }
}

/// The times of the first cycles and of the last.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) first: Times,
    pub(crate) last: Times,
}

/// Who makes pods, and what makes each of them another.
#[derive(Debug)]
pub(crate) struct Cycles<'a> {
    pub(crate) daemon: &'a Daemon,
    pub(crate) cri: &'a Cri,
}

impl Cycles<'_> {
    /// `count` lives; the times are those of `sample` cycles at each end.
    pub(crate) async fn run(&self, count: usize, sample: usize) -> Result<Ends> {
        let (next, done, start) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
        let workers = (0..WORKERS).map(|_| async {
            let mut ends = Ends::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(ends);
                }
                let took = self
                    .life(number)
                    .await
                    .with_context(|| format!("cycle {number}"))?;
                if number < sample {
                    ends.first.add(took);
                } else if number >= count - sample {
                    ends.last.add(took);
                }
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                if done % PROGRESS == 0 {
                    let rate = done as f64 / start.elapsed().as_secs_f64();
                    println!("{done} of {count} cycles, {rate:.1} a second");
                }
            }
        });
        let mut all = Ends::default();
        for ends in try_join_all(workers).await? {
            all.first.extend(ends.first);
            all.last.extend(ends.last);
        }
        Ok(all)
    }

    /// A pod with a container comes, runs a command, and goes, as the kubelet asks for it.
    async fn life(&self, number: usize) -> Result<Took> {
        let cri = self.cri;
        let port = 30_000 + i32::try_from(number % 30_000)?;
        let spec = PodSpec::new("soak")
            .cgroup_parent(&self.daemon.slot().cgroup())
            .port(80, port);
        let start = Instant::now();
        let pod = cri.run_pod(spec).await?;
        let id = cri.run(&pod, ContainerSpec::new("c").limited()).await?;
        let up = start.elapsed();
        let start = Instant::now();
        let done = cri.exec(&id, &["true"], 10).await?;
        let exec = start.elapsed();
        ensure!(done.exit_code == 0, "true ended with {}", done.exit_code);
        cri.stop(&id, 0).await?;
        cri.remove(&id).await?;
        cri.stop_pod(&pod.id).await?;
        cri.remove_pod(&pod.id).await?;
        // A pod's logs are the kubelet's to delete.
        let logs = &pod.spec.config.log_directory;
        fs::remove_dir_all(logs).with_context(|| format!("deleting {logs}"))?;
        Ok(Took { up, exec })
    }
}

/// What a cycle's calls took.
struct Took {
    /// RunPodSandbox, CreateContainer and StartContainer.
    up: Duration,
    exec: Duration,
}
