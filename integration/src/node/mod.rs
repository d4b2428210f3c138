//! A private node for one test: a registry, a daemon of its own, and the check that nothing stays.
//!
//! Every name on the machine that could collide (directories, bridge, addresses, nftables table,
//! cgroup) comes from a numbered [`Slot`] that no other test process holds, so tests run side by side,
//! and what a crashed run left in its slot is cleared by the next one that takes it.

mod build;
mod cgroup_driver;
mod daemon;
mod disk;
pub mod launch;
mod leak;
mod netfilter;
mod network;
mod private_disk;
mod processes;
mod reclaim;
mod slot;
mod wait;

use anyhow::{Context as _, Result};

pub use build::Build;
pub use cgroup_driver::CgroupDriver;
pub use daemon::{Daemon, RunDirectory};
pub use disk::{Disk, DiskSize, Shortage};
pub use leak::{Snapshot, Usage};
pub use network::enter_private_network;
pub use private_disk::enter_private_disk;
pub use slot::Slot;
pub use wait::{deadline, until};

use crate::{cri::Cri, images::BUSYBOX, registry::Registry};

/// A daemon with a registry that holds the test images.
#[derive(Debug)]
pub struct Node {
    /// The daemon.
    pub daemon: Daemon,
    /// Calls to it.
    pub cri: Cri,
    /// Where its pulls go.
    pub registry: Registry,
    before: Snapshot,
}

impl Node {
    /// Starts a registry and a daemon, and pulls [`BUSYBOX`]. What is there then is what has to be
    /// there at the end.
    ///
    /// # Errors
    /// When the daemon does not get ready; its log is in the message.
    pub async fn start() -> Result<Self> {
        let registry = Registry::with_test_images().await?;
        let daemon = Daemon::start(&registry).await?;
        Self::with(registry, daemon).await
    }

    /// The same with more sections in the daemon's configuration file.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn start_configured(sections: &str) -> Result<Self> {
        let registry = Registry::with_test_images().await?;
        let daemon = Daemon::start_configured(&registry, sections).await?;
        Self::with(registry, daemon).await
    }

    /// The same with the daemon's state on a [`Disk`] of its own.
    ///
    /// # Errors
    /// As for [`start`](Self::start), and when the disk cannot be mounted.
    pub async fn start_on_disk(size: DiskSize) -> Result<Self> {
        let registry = Registry::with_test_images().await?;
        let daemon = Daemon::start_on_disk(&registry, size).await?;
        Self::with(registry, daemon).await
    }

    /// The same after `prepare` has put files into the daemon's slot; see [`Daemon::start_prepared`].
    ///
    /// # Errors
    /// As for [`start`](Self::start), and those of `prepare`.
    pub async fn start_prepared(prepare: impl FnOnce(&Slot) -> Result<String>) -> Result<Self> {
        let registry = Registry::with_test_images().await?;
        let daemon = Daemon::start_prepared(&registry, prepare).await?;
        Self::with(registry, daemon).await
    }

    async fn with(registry: Registry, daemon: Daemon) -> Result<Self> {
        let cri = Cri::new(daemon.client(), &daemon.slot().path("logs"));
        cri.pull(BUSYBOX)
            .await
            .context("pulling the image that all tests use")?;
        let before = Snapshot::of(daemon.slot())?;
        Ok(Self {
            daemon,
            cri,
            registry,
            before,
        })
    }

    /// Takes what is on the machine now as the state to end in; for tests that pull images.
    ///
    /// # Errors
    /// When the machine's state cannot be read.
    pub fn settle(&mut self) -> Result<()> {
        self.before = Snapshot::of(self.daemon.slot())?;
        Ok(())
    }

    /// Waits until the machine is as it was after [`start`](Self::start) or [`settle`](Self::settle).
    ///
    /// # Errors
    /// With all differences, when some are left at the deadline.
    pub async fn check_leaks(&self) -> Result<()> {
        self.before.wait_equal(self.daemon.slot()).await
    }

    /// Removes all pods, checks that nothing of them is left, and stops the daemon. Every test ends
    /// with this.
    ///
    /// # Errors
    /// When a call fails, something is left, or the daemon does not stop in good order.
    pub async fn finish(mut self) -> Result<()> {
        self.cri.remove_all_pods().await?;
        self.check_leaks().await?;
        self.daemon.terminate().await
    }
}
