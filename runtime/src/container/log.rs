//! A container's log file: always below its pod's log directory, whatever the request or a link says.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};
use std::sync::Arc;

use podwright_cri_api::v1::ContainerConfig;

use super::Container;
use crate::error::{CallError, Context};
use crate::index::shown;
use crate::node::Node;
use crate::sandbox::Sandbox;
use crate::sys;

/// Checks a request's log path.
pub(super) fn check_path(sandbox: &Sandbox, config: &ContainerConfig) -> Result<(), CallError> {
    if config.log_path.is_empty() || sandbox.config.log_directory.is_empty() {
        return Ok(());
    }
    let escapes = Path::new(&config.log_path)
        .components()
        .any(|part| part == Component::ParentDir);
    if escapes
        || config.log_path.contains('\0')
        || !Path::new(&sandbox.config.log_directory).is_absolute()
    {
        let (directory, path) = (
            shown(&sandbox.config.log_directory),
            shown(&config.log_path),
        );
        return Err(CallError::invalid(format!(
            "the log path '{path}' does not stay below the pod's log directory '{directory}'"
        )));
    }
    Ok(())
}

/// Where the log is, for people; empty for none.
pub(super) fn path(sandbox: &Sandbox, config: &ContainerConfig) -> String {
    if config.log_path.is_empty() || sandbox.config.log_directory.is_empty() {
        return String::new();
    }
    let relative = config.log_path.trim_start_matches('/');
    Path::new(&sandbox.config.log_directory)
        .join(relative)
        .to_string_lossy()
        .into_owned()
}

/// Opens the log for appending, and makes it and its directories when they are missing. No part of the path below the pod's
/// log directory may be a link (CVE-2025-0750).
pub(super) fn open(container: &Container) -> Result<OwnedFd, CallError> {
    if container.record.log_path.is_empty() {
        // Its output is read all the same: a pipe that nobody empties would stop the container.
        let null = std::fs::File::options().write(true).open("/dev/null");
        return null
            .map(OwnedFd::from)
            .internal(|| "cannot open /dev/null".into());
    }
    let root = Path::new(&container.sandbox.config.log_directory);
    let relative = Path::new(container.config.log_path.trim_start_matches('/'));
    let failed = || {
        format!(
            "cannot open the log '{}'",
            shown(&container.record.log_path)
        )
    };
    std::fs::create_dir_all(root).internal(failed)?;
    let root = sys::open_directory(root).internal(failed)?;
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    let parent = make_directories(&root, relative.parent(), resolve).internal(failed)?;
    let name = relative
        .file_name()
        .ok_or_else(|| CallError::invalid(failed()))?;
    // O_NONBLOCK: a FIFO that somebody put there must not hang the daemon; regular files ignore it.
    let flags =
        libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let directory = parent.as_ref().unwrap_or(&root);
    sys::open_beneath(directory.as_fd(), Path::new(name), flags, 0o640, resolve).internal(failed)
}

fn make_directories(
    root: &OwnedFd,
    path: Option<&Path>,
    resolve: u64,
) -> std::io::Result<Option<OwnedFd>> {
    let mut current: Option<OwnedFd> = None;
    for part in path.into_iter().flat_map(Path::components) {
        let Component::Normal(name) = part else {
            continue;
        };
        let parent = current.as_ref().unwrap_or(root).as_fd();
        let made = nix::sys::stat::mkdirat(
            parent,
            name,
            nix::sys::stat::Mode::from_bits_truncate(0o755),
        );
        made.or_else(|errno| {
            if errno == nix::errno::Errno::EEXIST {
                Ok(())
            } else {
                Err(errno)
            }
        })?;
        current = Some(sys::open_beneath(
            parent,
            Path::new(name),
            libc::O_PATH | libc::O_DIRECTORY,
            0,
            resolve,
        )?);
    }
    Ok(current)
}

/// ReopenContainerLog: goes on in a new file at the log's path, after the old one was moved away.
pub(crate) async fn reopen_log(node: &Arc<Node>, id: &str) -> Result<(), CallError> {
    let container = node.containers.require(id)?;
    if !container.is_running() {
        return Err(CallError::state(format!(
            "cannot reopen the log of the container {}: it is not running",
            container.id
        )));
    }
    let pause = container.sandbox.require_pause("reopen the log")?;
    let log = open(&container)?;
    pause
        .reopen_log(&container.id, log.as_fd())
        .await
        .internal(|| format!("cannot reopen the log of the container {}", container.id))
}
