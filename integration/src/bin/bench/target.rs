//! A runtime to measure.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use podwright_cri_api::{
    client,
    v1::{ListPodSandboxRequest, VersionRequest},
};
use podwright_integration::{
    cri::{Cri, Pod},
    images::BUSYBOX,
    node::Daemon,
    peer::{Containerd, Programs},
    pod::{ContainerSpec, PodSpec},
    proc::Processors,
    registry::Registry,
};
use tempfile::TempDir;

/// How long to wait for a quiet machine.
const QUIET: Duration = Duration::from_secs(30);

/// A pod whose one container sleeps.
#[derive(Debug)]
pub(crate) struct Sleeper {
    pub(crate) pod: Pod,
    /// The container's id.
    pub(crate) container: String,
}

/// A CRI server with everything that the rows need.
#[derive(Debug)]
pub(crate) struct Target {
    name: String,
    pub(crate) cri: Cri,
    runtime: Runtime,
    cgroup: String,
    next: AtomicU32,
    logs: TempDir,
}

/// Whose process it is.
#[derive(Debug)]
enum Runtime {
    Podwright(Daemon),
    Containerd(Containerd),
    /// Somebody else's, by its process id.
    Running(u32),
}

impl Runtime {
    fn pid(&self) -> Option<u32> {
        match self {
            Self::Podwright(daemon) => daemon.pid(),
            Self::Containerd(containerd) => containerd.pid(),
            Self::Running(pid) => Some(*pid),
        }
    }
}

impl Target {
    /// A private Podwright.
    pub(crate) async fn private(registry: &Registry) -> Result<Self> {
        let daemon = Daemon::start(registry).await?;
        let cgroup = daemon.slot().cgroup();
        Self::new(daemon.client(), cgroup, Runtime::Podwright(daemon)).await
    }

    /// A private containerd.
    pub(crate) async fn containerd(programs: Programs, registry: &Registry) -> Result<Self> {
        let containerd = Containerd::start(programs, registry).await?;
        let cgroup = containerd.slot().cgroup();
        let client = containerd.client();
        Self::new(client, cgroup, Runtime::Containerd(containerd)).await
    }

    /// The server at `socket`.
    pub(crate) async fn running(socket: &Path) -> Result<Self> {
        let peer = tokio::net::UnixStream::connect(socket).await?.peer_cred()?;
        let server = peer
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .context("it has no pid")?;
        let client = client::connect(socket).await?;
        let cgroup = "/podwright-bench".to_owned();
        Self::new(client, cgroup, Runtime::Running(server)).await
    }

    async fn new(client: client::Client, cgroup: String, runtime: Runtime) -> Result<Self> {
        let version = client
            .clone()
            .runtime
            .version(VersionRequest::default())
            .await?
            .into_inner();
        let logs = tempfile::tempdir()?;
        let cri = Cri::new(client, logs.path());
        cri.pull(BUSYBOX)
            .await
            .with_context(|| format!("pulling {BUSYBOX}"))?;
        let name = format!("{} {}", version.runtime_name, version.runtime_version);
        Ok(Self {
            name,
            cri,
            runtime,
            cgroup,
            next: AtomicU32::new(0),
            logs,
        })
    }

    /// Name and version.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is what is measured, and no peer.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.runtime, Runtime::Podwright(_))
    }

    /// The directory of the containers' logs.
    pub(crate) fn logs(&self) -> &Path {
        self.logs.path()
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn server(&self) -> Result<u32> {
        self.runtime.pid().context("the daemon has ended")
    }

    /// Kills the daemon and starts it again. The answer is the time from its start to its first answer; there is none of a daemon
    /// that is not ours to kill.
    pub(crate) async fn restart(&mut self) -> Result<Option<Duration>> {
        let (start, client) = match &mut self.runtime {
            Runtime::Podwright(daemon) => {
                daemon.kill9().await?;
                let start = Instant::now();
                daemon.restart().await?;
                (start, daemon.client())
            }
            Runtime::Containerd(containerd) => {
                containerd.kill9()?;
                let start = Instant::now();
                containerd.restart().await?;
                (start, containerd.client())
            }
            Runtime::Running(_) => return Ok(None),
        };
        let mut runtime = client.runtime;
        runtime
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await?;
        Ok(Some(start.elapsed()))
    }

    /// A pod below a cgroup parent, with a host port; each call gives another.
    pub(crate) fn pod(&self) -> PodSpec {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let port = 30_000 + i32::try_from(number % 30_000).unwrap_or_default();
        PodSpec::new("bench")
            .cgroup_parent(&format!("{}/bench/{number}", self.cgroup))
            .port(80, port)
    }

    /// A container with limits that sleeps.
    pub(crate) fn container(&self, name: &str) -> ContainerSpec {
        ContainerSpec::new(name).limited()
    }

    /// A pod with a container that sleeps.
    pub(crate) async fn sleeper(&self) -> Result<Sleeper> {
        let pod = self.cri.run_pod(self.pod()).await?;
        let container = self.cri.run(&pod, self.container("sleeper")).await?;
        Ok(Sleeper { pod, container })
    }

    /// Makes `count` of them, four at a time.
    pub(crate) async fn crowd(&self, count: usize) -> Result<Vec<Sleeper>> {
        let mut sleepers = Vec::new();
        while sleepers.len() < count {
            let batch = (0..4.min(count - sleepers.len())).map(|_| self.sleeper());
            sleepers.extend(futures_util::future::try_join_all(batch).await?);
        }
        Ok(sleepers)
    }

    /// Stops and removes a pod.
    pub(crate) async fn remove(&self, pod: &Pod) -> Result<()> {
        self.cri.stop_pod(&pod.id).await?;
        self.cri.remove_pod(&pod.id).await?;
        Ok(())
    }

    /// The same with many, one after the other.
    pub(crate) async fn dismiss(&self, sleepers: Vec<Sleeper>) -> Result<()> {
        for sleeper in sleepers {
            self.remove(&sleeper.pod).await?;
        }
        Ok(())
    }

    /// Has addresses for thousands of pods. Another runtime's operator has seen to that.
    pub(crate) async fn make_room(&self) -> Result<()> {
        if let Runtime::Podwright(daemon) = &self.runtime {
            let subnets = daemon.slot().wide_subnets().join(",");
            self.cri.give_pod_cidr(&subnets).await?;
        }
        Ok(())
    }

    /// Lets what runs after a call (reclaiming, page writes) come to rest before a measurement.
    pub(crate) async fn rest(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// The same after the work of hundreds of pods: until the machine uses less than a tenth of a processor for half a
    /// second, which it need not do within [`QUIET`] when others use it too.
    pub(crate) async fn long_rest(&self) -> Result<()> {
        self.rest().await;
        let end = Instant::now() + QUIET;
        loop {
            let processors = Processors::now()?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            if processors.busy()? < 0.1 || Instant::now() > end {
                return Ok(());
            }
        }
    }

    /// The same once what the rows before have left is on the disk: the kernel would write it under the rows that follow.
    pub(crate) async fn settle(&self) -> Result<()> {
        tokio::task::spawn_blocking(nix::unistd::sync).await?;
        self.long_rest().await
    }

    /// Ends a private daemon.
    pub(crate) async fn close(self) -> Result<()> {
        match self.runtime {
            Runtime::Podwright(mut daemon) => daemon.terminate().await,
            Runtime::Containerd(containerd) => containerd.close(),
            Runtime::Running(_) => Ok(()),
        }
    }
}
