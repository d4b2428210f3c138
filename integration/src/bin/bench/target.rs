//! A runtime to measure.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use podwright_cri_api::{client, v1::VersionRequest};
use podwright_integration::{
    cri::{Cri, Pod},
    images::BUSYBOX,
    node::Daemon,
    pod::{ContainerSpec, PodSpec},
    registry::Registry,
};
use tempfile::TempDir;

/// A CRI server with everything that the rows need.
#[derive(Debug)]
pub(crate) struct Target {
    name: String,
    pub(crate) cri: Cri,
    server: u32,
    /// Only for our own: it can be killed and started again.
    pub(crate) daemon: Option<Daemon>,
    cgroup: String,
    next: AtomicU32,
    _logs: TempDir,
}

impl Target {
    /// A private Podwright.
    pub(crate) async fn private(registry: &Registry) -> Result<Self> {
        let daemon = Daemon::start(registry).await?;
        let server = daemon.pid().context("the daemon has ended")?;
        let cgroup = daemon.slot().cgroup();
        Self::new(daemon.client(), server, cgroup, Some(daemon)).await
    }

    /// The server at `unix://SOCKET`.
    pub(crate) async fn other(socket: &str) -> Result<Self> {
        let path = socket.strip_prefix("unix://").unwrap_or(socket);
        let peer = tokio::net::UnixStream::connect(path).await?.peer_cred()?;
        let server = peer
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .context("it has no pid")?;
        Self::new(
            client::connect(path).await?,
            server,
            "/podwright-bench".to_owned(),
            None,
        )
        .await
    }

    async fn new(
        client: client::Client,
        server: u32,
        cgroup: String,
        daemon: Option<Daemon>,
    ) -> Result<Self> {
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
            server,
            daemon,
            cgroup,
            next: AtomicU32::new(0),
            _logs: logs,
        })
    }

    /// Name and version.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The daemon's process.
    pub(crate) fn server(&self) -> u32 {
        self.daemon
            .as_ref()
            .and_then(Daemon::pid)
            .unwrap_or(self.server)
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
        ContainerSpec::new(name).with_resources(|limits| {
            limits.cpu_period = 100_000;
            limits.cpu_quota = 100_000;
            limits.cpu_shares = 512;
            limits.memory_limit_in_bytes = 256 << 20;
        })
    }

    /// Makes `count` pods with one container each, four at a time.
    pub(crate) async fn crowd(&self, count: usize) -> Result<Vec<Pod>> {
        let mut pods = Vec::new();
        while pods.len() < count {
            let batch = (0..4.min(count - pods.len())).map(|_| async {
                let pod = self.cri.run_pod(self.pod()).await?;
                self.cri.run(&pod, self.container("sleeper")).await?;
                anyhow::Ok(pod)
            });
            pods.extend(futures_util::future::try_join_all(batch).await?);
        }
        Ok(pods)
    }

    /// Stops and removes these pods.
    pub(crate) async fn remove(&self, pods: Vec<Pod>) -> Result<()> {
        for pod in pods {
            self.cri.stop_pod(&pod.id).await?;
            self.cri.remove_pod(&pod.id).await?;
        }
        Ok(())
    }

    /// Lets what runs after a call (reclaiming, page writes) come to rest before a measurement.
    pub(crate) async fn rest(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Ends a private daemon.
    pub(crate) async fn close(self) -> Result<()> {
        match self.daemon {
            Some(mut daemon) => daemon.terminate().await,
            None => Ok(()),
        }
    }
}
