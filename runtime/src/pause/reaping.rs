//! Reaping pauses, which are this process's children until it ends.

use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::cgroup::Cgroup;

/// Reaps pause when its connection has closed, whose reader then drops its end of `ended`. The process that was started has
/// ended before, if another one has gone on in the pod's group in its place.
pub(super) async fn reap_at_end(
    mut child: Child,
    pause: Option<u32>,
    ended: oneshot::Receiver<()>,
) {
    let successor = pause.filter(|&pid| pid != child.id());
    if successor.is_some() {
        reap(move || drop(child.wait())).await;
        let _ = ended.await;
        reap(move || successor.into_iter().for_each(wait_for)).await;
    } else {
        let _ = ended.await;
        reap(move || drop(child.wait())).await;
    }
}

/// The same for one that has not answered.
pub(super) async fn kill_and_reap(mut child: Child, group: Option<&Cgroup>) {
    // An error means that it has ended by itself.
    let _ = child.kill();
    reap(move || drop(child.wait())).await;
    // What is there is its successor, if anything.
    let members = group.map_or_else(Vec::new, |group| group.pids().unwrap_or_default());
    for pid in members {
        let _ = kill(pid, Signal::SIGKILL);
        reap(move || wait_for(pid.as_raw().unsigned_abs())).await;
    }
}

/// wait(2) blocks, shortly: the process has closed its connection or was killed.
async fn reap(wait: impl FnOnce() + Send + 'static) {
    let _ = tokio::task::spawn_blocking(wait).await;
}

/// An error means that it is no child, and then it is not ours to reap.
fn wait_for(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = waitpid(Pid::from_raw(pid), None);
    }
}
