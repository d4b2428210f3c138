//! Reaping pauses, which are this process's children until it ends.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::socket;

/// Reaps pause when its connection has closed, whose reader then drops its end of `ended`.
pub(super) async fn reap_at_end(pause: u32, ended: oneshot::Receiver<()>) {
    let _ = ended.await;
    reap(pause).await;
}

/// The same for one that is of no use. It is a child that nobody else reaps, so its number is its own until then.
pub(super) async fn kill_and_reap(pause: u32) {
    // An error means that it has ended by itself.
    let _ = kill(as_pid(pause), Signal::SIGKILL);
    reap(pause).await;
}

/// Ends a zygote.
pub(super) async fn end(mut zygote: Child) {
    // An error means that it has ended by itself.
    let _ = zygote.kill();
    blocking(move || drop(zygote.wait())).await;
}

/// Waits for its end, which may be far away: a pause may close a connection and live. An error means that it is no child, and then it is
/// not ours to reap.
async fn reap(pause: u32) {
    let reaped = || waitpid(as_pid(pause), Some(WaitPidFlag::WNOHANG));
    if !matches!(reaped(), Ok(WaitStatus::StillAlive)) {
        return;
    }
    match watch(pause) {
        Ok(process) => {
            // Readable once it has ended (pidfd_open(2)).
            let _ = process.readable().await;
            let _ = reaped();
        }
        // No descriptor to spare.
        Err(_) => {
            blocking(move || {
                let _ = waitpid(as_pid(pause), None);
            })
            .await;
        }
    }
}

fn watch(process: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(process.cast_signed());
    let pid = pid.ok_or(io::ErrorKind::NotFound)?;
    socket::watch(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// wait(2) blocks.
async fn blocking(wait: impl FnOnce() + Send + 'static) {
    let _ = tokio::task::spawn_blocking(wait).await;
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}
