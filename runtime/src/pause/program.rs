//! The pause program: carried inside the daemon, laid out by hash, executed from a read-only view.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sha2::{Digest, Sha256};

use super::zygote::Zygote;
use crate::ids::{SandboxId, hex};
use crate::sys;

static BINARY: &[u8] = include_bytes!(env!("PAUSE_BINARY"));

/// Why pause could not be laid out or started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct ProgramError {
    /// What was tried.
    action: &'static str,
    /// On what.
    path: PathBuf,
    /// What the system said.
    #[source]
    source: io::Error,
}

/// The laid-out program and the directory of the pods' sockets.
#[derive(Debug)]
pub(crate) struct Program {
    /// The file on a detached read-only mount. A container that gets hold of /proc/PID/exe of a process that is about to
    /// enter it finds a file that cannot be opened for writing, ever (CVE-2019-5736).
    file: OwnedFd,
    sockets: OwnedFd,
    path: PathBuf,
    zygote: Zygote,
}

impl Program {
    /// Lays the program out below `run_dir`, unless this very one is there.
    pub(crate) fn lay_out(run_dir: &Path) -> Result<Self, ProgramError> {
        let directory = run_dir.join("bin");
        let path = directory.join(format!("pause-{}", &hex(&Sha256::digest(BINARY))[..16]));
        let sockets_path = run_dir.join("pods");
        let error = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ProgramError {
                action,
                path,
                source,
            }
        };
        for directory in [&directory, &sockets_path] {
            private_directory(directory).map_err(error("make the directory", directory))?;
        }
        if std::fs::read(&path).ok().as_deref() != Some(BINARY) {
            write_program(&path).map_err(error("write the program", &path))?;
        }
        remove_others(&directory, &path);
        let file =
            sys::open_read_only_view(&path).map_err(error("take a read-only view of", &path))?;
        let sockets = sys::open_directory(&sockets_path)
            .map_err(error("open the directory", &sockets_path))?;
        Ok(Self {
            file,
            sockets,
            path,
            zygote: Zygote::default(),
        })
    }

    /// Where pauses of this program are ordered.
    pub(crate) fn zygote(&self) -> &Zygote {
        &self.zygote
    }

    /// The directory of the pods' sockets.
    pub(super) fn sockets(&self) -> BorrowedFd<'_> {
        self.sockets.as_fd()
    }

    /// The name of a pod's socket in it.
    pub(super) fn socket_name(id: &SandboxId) -> String {
        format!("{id}.sock")
    }

    /// Starts a zygote, which takes orders from the other end of `orders`.
    pub(super) fn start(&self, orders: OwnedFd) -> Result<Child, ProgramError> {
        // No pre_exec, no directory, no ids: std then uses posix_spawn, which does not copy the daemon's page tables.
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        // With room for what a pod's pause writes over it: its name and the pod's id, which `ps -f` shows.
        command
            .arg0(format!("{:80}", "podwright-pause"))
            .env_clear();
        #[cfg(feature = "next-protocol")]
        command.envs(
            std::env::vars().filter(|(name, _)| name == podwright_pause::version::TEST_VARIABLE),
        );
        command
            .stdin(Stdio::from(orders))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| ProgramError {
                action: "execute",
                path: self.path.clone(),
                source,
            })
    }

    /// Removes the socket of a pod that is gone.
    pub(crate) fn remove_socket(&self, id: &SandboxId) {
        if let Err(error) = sys::unlink_at(self.sockets(), &Self::socket_name(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(sandbox = %id, %error, "cannot remove the pod's socket");
        }
    }

    /// The pods that have a socket, whatever became of their pauses.
    pub(crate) fn sockets_of(run_dir: &Path) -> io::Result<Vec<SandboxId>> {
        let names = std::fs::read_dir(run_dir.join("pods"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names
            .filter_map(|name| SandboxId::parse(name.strip_suffix(".sock")?).ok())
            .collect())
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// Removes the programs of other versions. A pause that runs keeps its file, and needs no name of it.
fn remove_others(directory: &Path, own: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path != own
            && name.starts_with("pause-")
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove the pause program of another version");
        }
    }
}

fn write_program(path: &Path) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // A program that is running cannot be opened for writing (ETXTBSY), a renamed-over one can.
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o500)
        .open(&temporary)?;
    io::Write::write_all(&mut file, BINARY)?;
    drop(file);
    std::fs::rename(&temporary, path)
}
