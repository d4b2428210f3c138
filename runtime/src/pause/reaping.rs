//! Reaping pauses, which are this process's children until it ends.

use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::sync::oneshot;

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

/// An error means that it is no child, and then it is not ours to reap.
async fn reap(pause: u32) {
    blocking(move || {
        let _ = waitpid(as_pid(pause), None);
    })
    .await;
}

/// wait(2) blocks, shortly: the process has closed its connection or was killed.
async fn blocking(wait: impl FnOnce() + Send + 'static) {
    let _ = tokio::task::spawn_blocking(wait).await;
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}
