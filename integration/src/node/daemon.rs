//! A private `podwright runtime`.

use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podwright_cri_api::client::{self, Client};
use tokio::{process::Child, time::timeout};

use super::{
    Build, CgroupDriver, Disk, DiskSize, Slot, deadline,
    launch::{Files, launch_under},
    reclaim,
};
use crate::registry::Registry;

/// What a reboot does with the run directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunDirectory {
    /// It is in a tmpfs, as /run is, and goes.
    InMemory,
    /// Somebody has put it on a disk, so that it stays.
    OnDisk,
}

/// A daemon with directories, socket, network and cgroups of its own. When it is dropped,
/// everything of it is killed and removed.
#[derive(Debug)]
pub struct Daemon {
    slot: Slot,
    disk: Option<Disk>,
    build: Build,
    child: Option<Child>,
    client: Client,
}

impl Daemon {
    /// Starts a daemon that pulls from `registry`, and waits until it says that it is ready.
    ///
    /// # Errors
    /// When the program is not built, or ends or hangs before it is ready; with its log.
    pub async fn start(registry: &Registry) -> Result<Self> {
        Self::start_in(Slot::take()?, None, registry, "").await
    }

    /// The same with more in its configuration file: sections that the harness does not write.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn start_configured(registry: &Registry, sections: &str) -> Result<Self> {
        Self::start_in(Slot::take()?, None, registry, sections).await
    }

    /// Gives it other sections than it was started with; for the next start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, sections: &str) -> Result<()> {
        write_configuration(&self.slot, sections)
    }

    /// The same after `prepare` has put files into the slot; what it returns is added to the configuration, in the table
    /// `[nri]` at first.
    ///
    /// # Errors
    /// As for [`start`](Self::start), and those of `prepare`.
    pub async fn start_prepared(
        registry: &Registry,
        prepare: impl FnOnce(&Slot) -> Result<String>,
    ) -> Result<Self> {
        let slot = Slot::take()?;
        let more = prepare(&slot)?;
        Self::start_in(slot, None, registry, &more).await
    }

    /// The same with its state on a [`Disk`] of its own.
    ///
    /// # Errors
    /// As for [`start`](Self::start), and when the disk cannot be mounted.
    pub async fn start_on_disk(registry: &Registry, size: DiskSize) -> Result<Self> {
        let slot = Slot::take()?;
        let disk = Disk::mount(slot.path("state"), size)?;
        Self::start_in(slot, Some(disk), registry, "").await
    }

    async fn start_in(
        slot: Slot,
        disk: Option<Disk>,
        registry: &Registry,
        sections: &str,
    ) -> Result<Self> {
        registry.write_hosts(&slot.path("hosts"))?;
        write_configuration(&slot, sections)?;
        let child = launch(&slot, Build::Tested, &[]).await?;
        let client = client::connect(slot.socket())
            .await
            .with_context(|| format!("connecting to the daemon that said READY\n{}", log(&slot)))?;
        Ok(Self {
            slot,
            disk,
            build: Build::Tested,
            child: Some(child),
            client,
        })
    }

    /// Of which build it is from its next start on.
    pub fn set_build(&mut self, build: Build) {
        self.build = build;
    }

    /// Starts the daemon again after it was killed or terminated, and waits until it is ready.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the daemon still runs");
        self.child = Some(launch(&self.slot, self.build, &[]).await?);
        Ok(())
    }

    /// The same by a program that becomes what its further arguments name, such as `aa-exec -p PROFILE --`.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn restart_under(&mut self, wrapper: &[&str]) -> Result<()> {
        ensure!(self.child.is_none(), "the daemon still runs");
        self.child = Some(launch(&self.slot, self.build, wrapper).await?);
        Ok(())
    }

    /// SIGKILL, and waits for its end. Pods run on.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the daemon does not run")?;
        child.kill().await.context("killing the daemon")
    }

    /// Ends the daemon and all its pods' processes, as the end of their machine does. What is on the disk stays; of
    /// what was in memory the caller says.
    ///
    /// # Errors
    /// When something cannot be killed, or the run directory not be emptied.
    pub async fn lose_machine(&mut self, run: RunDirectory) -> Result<()> {
        if self.child.is_some() {
            self.kill9().await?;
        }
        reclaim::kill_processes(&self.slot)?;
        match run {
            RunDirectory::OnDisk => Ok(()),
            RunDirectory::InMemory => fs::remove_dir_all(self.slot.run_directory())
                .context("emptying the run directory as a reboot does"),
        }
    }

    /// SIGTERM, and waits for its orderly end. Pods run on.
    ///
    /// # Errors
    /// When it does not run, does not end, or ends with a failure.
    pub async fn terminate(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the daemon does not run")?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .context("it has ended")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let status = timeout(deadline(), child.wait()).await.with_context(|| {
            format!("the daemon does not end at SIGTERM\n{}", log(&self.slot))
        })??;
        ensure!(
            status.success(),
            "the daemon ended with {status}\n{}",
            log(&self.slot)
        );
        Ok(())
    }

    /// A connection; calls after a restart connect anew.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Names and directories.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// What its state is on.
    ///
    /// # Errors
    /// When it has no disk of its own.
    pub fn disk(&self) -> Result<&Disk> {
        self.disk
            .as_ref()
            .context("the daemon's state is on the machine's disk")
    }

    /// The CRI socket.
    pub fn socket(&self) -> PathBuf {
        self.slot.socket()
    }

    /// The daemon's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// What it has logged since its first start.
    pub fn log(&self) -> String {
        log(&self.slot)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.start_kill();
            // A child of ours is only gone when it is reaped, and a drop cannot await that.
            let end = Instant::now() + deadline();
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        if let Err(error) = reclaim::reclaim(&self.slot) {
            eprintln!("clearing up after a test: {error:#}");
        }
    }
}

fn write_configuration(slot: &Slot, sections: &str) -> Result<()> {
    let path = slot.path("podwright.toml");
    fs::write(&path, configuration(slot) + sections)
        .with_context(|| format!("writing {}", path.display()))
}

/// The configuration file: everything that could collide with another daemon's.
fn configuration(slot: &Slot) -> String {
    let path = |below: &str| slot.path(below).display().to_string();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "[paths]\nstate = {:?}\nrun = {:?}",
        path("state"),
        slot.run_directory()
    );
    let _ = writeln!(text, "[server]\nsocket = {:?}", slot.socket());
    let _ = writeln!(
        text,
        "[network]\nbridge = {:?}\nsubnets = {:?}",
        slot.bridge(),
        slot.subnets()
    );
    let _ = writeln!(text, "table = {:?}", slot.table());
    let _ = writeln!(
        text,
        "[cgroup]\ndriver = {:?}\nroot = {:?}",
        CgroupDriver::of_this_run().name(),
        slot.cgroup()
    );
    let _ = writeln!(text, "[registry]\nconfig_dirs = [{:?}]", path("hosts"));
    let _ = writeln!(text, "[log]\nlevel = \"info\"");
    // Last, so that a test can add keys to it.
    let _ = writeln!(
        text,
        "[nri]\nsocket = {:?}\nplugin_dir = {:?}\nplugin_config_dir = {:?}",
        path("nri/nri.sock"),
        path("nri/plugins"),
        path("nri/conf.d")
    );
    text
}

/// Starts the slot's daemon behind the words of `wrapper`, if there are any, and waits until it is ready.
async fn launch(slot: &Slot, build: Build, wrapper: &[&str]) -> Result<Child> {
    let files = Files {
        configuration: slot.path("podwright.toml"),
        log: slot.path("daemon.log"),
        notify: slot.path("notify.sock"),
    };
    launch_under(wrapper, &files, build).await
}

fn log(slot: &Slot) -> String {
    fs::read_to_string(slot.path("daemon.log")).unwrap_or_else(|error| format!("no log: {error}"))
}
