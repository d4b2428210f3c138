//! A plugin's process, with its end of a socket pair as descriptor 3.
#![allow(
    unsafe_code,
    reason = "the descriptor gets its number between fork and exec"
)]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, fcntl};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::identity::PluginName;

/// The descriptor that the reference passes; plugins are told of it in their environment.
const SOCKET: i32 = 3;

/// Starts a plugin; the socket is the runtime's end.
pub(super) fn start(program: &Path, name: &PluginName) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    // Above the number that it gets, so that dup2 makes a descriptor that stays open over exec.
    let theirs = above(&OwnedFd::from(theirs))?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("NRI_PLUGIN_NAME", name.name())
        .env("NRI_PLUGIN_IDX", name.index())
        .env("NRI_PLUGIN_SOCKET", SOCKET.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Its log lines stand beside the runtime's.
        .stderr(Stdio::inherit())
        // A terminal's Ctrl-C is for the runtime, which ends its plugins in order.
        .process_group(0)
        .kill_on_drop(true);
    let number = theirs.as_raw_fd();
    // SAFETY: between fork and exec only dup2 and prctl are called, which are async-signal-safe system calls; `number` is
    // open in the child because `theirs` lives until after the spawn.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(number, SOCKET) < 0 {
                return Err(io::Error::last_os_error());
            }
            // A killed runtime leaves no plugin behind. The signal comes when the thread ends that has started it, which is
            // one of the async runtime's workers: they last as long as the process.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    drop(theirs);
    Ok((child, UnixStream::from_std(ours)?))
}

fn above(descriptor: &OwnedFd) -> io::Result<OwnedFd> {
    let number = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(SOCKET + 1))?;
    // SAFETY: fcntl has just made this descriptor, so nobody else owns it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) })
}
