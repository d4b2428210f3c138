//! The OOM score of a container's processes (`/proc/PID/oom_score_adj`, proc(5)).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};

use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::error::{CallError, Context};

/// How often processes are looked for that were forked meanwhile by some that had the old score.
const ROUNDS: usize = 8;

/// Gives every process of the cgroup this score. One whose fork takes longer than all looks keeps its parent's: the kernel copies that first,
/// and lists the process in its group last (copy_process in kernel/fork.c).
pub(super) fn set(cgroup: &Cgroup, score: i32) -> Result<(), CallError> {
    let failed = || {
        format!(
            "cannot set oom_score_adj of the processes in {}",
            cgroup.path()
        )
    };
    let mut done: Vec<Pid> = Vec::new();
    for _ in 0..ROUNDS {
        let found = cgroup.pids().internal(failed)?;
        let new: Vec<Pid> = found
            .into_iter()
            .filter(|pid| !done.contains(pid))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        // The file is that of the process it was opened for; that this is still the container's, the second look says.
        let opened: Vec<(Pid, File)> = new
            .iter()
            .filter_map(|pid| Some((*pid, OpenOptions::new().write(true).open(path(*pid)).ok()?)))
            .collect();
        let still = cgroup.pids().internal(failed)?;
        for (_, file) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
            match (&*file).write_all(score.to_string().as_bytes()) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(error).internal(failed);
                }
                _ => {}
            }
        }
        done.extend(new);
    }
    Ok(())
}

/// The score that a process has.
pub(super) fn of(pid: u32) -> io::Result<i64> {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
    text.trim().parse().map_err(io::Error::other)
}

fn path(pid: Pid) -> String {
    format!("/proc/{pid}/oom_score_adj")
}
