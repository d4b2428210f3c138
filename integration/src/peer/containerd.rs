//! A private containerd.

use std::{
    fs::{self, OpenOptions},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use podwright_cri_api::{
    client::{self, Client},
    v1::StatusRequest,
};

use super::{Programs, configuration};
use crate::{
    node::{Slot, until},
    registry::Registry,
};

/// Where containerd, its shims and the CNI library write whatever their configuration says.
const FIXED: &[&str] = &["/run", "/var/lib"];

/// A daemon with directories, socket, network and cgroups of its own. When it is dropped, it and its pods are killed, and everything
/// of them is removed.
#[derive(Debug)]
pub struct Containerd {
    slot: Slot,
    programs: Programs,
    child: Option<Child>,
    client: Client,
}

impl Containerd {
    /// Starts a daemon that pulls from `registry`, and waits until it and its network are ready. The network is that of the
    /// calling thread.
    ///
    /// # Errors
    /// When it ends or hangs before it is ready; with its log.
    pub async fn start(programs: Programs, registry: &Registry) -> Result<Self> {
        let slot = Slot::take()?;
        registry.write_hosts(&slot.path("hosts"))?;
        fs::create_dir(slot.path("cni"))?;
        fs::write(
            slot.path("cni/10-bench.conflist"),
            configuration::network(&slot),
        )?;
        let file = slot.path("containerd.toml");
        fs::write(&file, configuration::containerd(&slot, &programs.built()))
            .with_context(|| format!("writing {}", file.display()))?;
        let mut child = launch(&slot, &programs)?;
        let ready = ready(&slot, &mut child).await;
        if ready.is_err() {
            let _ = child.kill();
            let _ = child.wait();
            let _ = slot.clear();
        }
        Ok(Self {
            client: ready?,
            slot,
            programs,
            child: Some(child),
        })
    }

    /// SIGKILL, and waits for its end. Pods run on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("containerd does not run")?;
        child.kill().context("killing containerd")?;
        child.wait().context("waiting for containerd's end")?;
        Ok(())
    }

    /// Starts it again after it was killed, and waits until it is ready.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "containerd still runs");
        let child = self.child.insert(launch(&self.slot, &self.programs)?);
        self.client = ready(&self.slot, child).await?;
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

    /// The daemon's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it and all its pods, and removes what they left.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.kill9()?;
        }
        self.slot.clear().context("clearing up after containerd")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Starts the daemon from a thread whose mount namespace is a new one.
fn launch(slot: &Slot, programs: &Programs) -> Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(slot.path("daemon.log"))?;
    let mut command = Command::new(programs.built().join("containerd"));
    command
        .arg("--config")
        .arg(slot.path("containerd.toml"))
        .envs(programs.environment()?)
        // A terminal's Ctrl-C is for the program in the foreground, which then ends this one.
        .process_group(0)
        // With this and without systemd's socket it would warn at each start.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let covers = FIXED.iter().map(|path| cover(slot, path));
    let covers = covers.collect::<Result<Vec<_>>>()?;
    let starting = thread::spawn(move || -> Result<Child> {
        unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let none = None::<&str>;
        mount(none, "/", none, private, none).context("making all mounts private")?;
        for (path, options) in &covers {
            let overlay = Some("overlay");
            mount(
                overlay,
                *path,
                overlay,
                MsFlags::empty(),
                Some(options.as_str()),
            )
            .with_context(|| format!("mounting an overlay on {path}"))?;
        }
        command.spawn().context("starting containerd")
    });
    starting
        .join()
        .map_err(|_| anyhow!("the thread panicked"))?
}

/// The options of an overlay that shows what is below `path`, and keeps what is written there in the slot.
fn cover(slot: &Slot, path: &'static str) -> Result<(&'static str, String)> {
    ensure!(
        !slot.directory().starts_with(path),
        "the temporary directory {} is below {path}, which containerd is to write to without changing it; set TMPDIR",
        std::env::temp_dir().display()
    );
    let name = Path::new(path)
        .file_name()
        .context("a path without a name")?;
    let directory = slot.path("covers").join(name);
    let part = |part: &str| -> Result<PathBuf> {
        let path = directory.join(part);
        fs::create_dir_all(&path)?;
        Ok(path)
    };
    let options = format!(
        "lowerdir={path},upperdir={},workdir={}",
        part("upper")?.display(),
        part("work")?.display()
    );
    Ok((path, options))
}

/// Waits until the runtime and its network say that they are ready.
async fn ready(slot: &Slot, child: &mut Child) -> Result<Client> {
    let socket = slot.path("containerd.sock");
    let connected = until("containerd to be ready", || {
        let ended = child.try_wait();
        let socket = socket.clone();
        async move {
            if let Ok(Some(status)) = ended {
                return Ok(Err(anyhow!("it ended with {status}")));
            }
            let client = client::connect(&socket)
                .await
                .map_err(|error| error.to_string())?;
            let mut runtime = client.runtime.clone();
            let status = runtime.status(StatusRequest::default()).await;
            let status = status.map_err(|error| error.to_string())?.into_inner();
            let conditions = status.status.unwrap_or_default().conditions;
            // There are others, such as that of deprecated settings.
            let mut needed = conditions
                .iter()
                .filter(|condition| ["RuntimeReady", "NetworkReady"].contains(&&*condition.r#type));
            match needed.find(|condition| !condition.status) {
                Some(not) => Err(format!("{}: {} {}", not.r#type, not.reason, not.message)),
                None => Ok(Ok(client)),
            }
        }
    });
    connected.await.flatten().with_context(|| {
        let log = fs::read_to_string(slot.path("daemon.log")).unwrap_or_default();
        format!("containerd does not get ready\n{log}")
    })
}
