//! The first acts: cgroups, oom score, namespaces.

use super::Entrance;
use crate::fault::{Fault, OrFault};
use crate::procfs;
use crate::sys::{file, process};
use podwright_pause::plan::{LaunchPlan, Process};
use std::os::fd::{AsFd, OwnedFd};

/// Joins cgroups and namespaces. Gives the host's `/proc/thread-self/attr` when the process asks for labels: it must be
/// opened before the container's mounts can come between.
pub(super) fn settle(plan: &LaunchPlan, entrance: &Entrance<'_>) -> Result<Option<OwnedFd>, Fault> {
    for procs in &plan.cgroup_procs {
        join_cgroup(&procs.0)?;
    }
    if let Some(score) = plan.oom_score_adj {
        procfs::set_own_oom_score(score)?;
    }
    let labels = open_labels(&plan.process)?;
    if plan.new_namespaces & libc::CLONE_NEWCGROUP as u64 != 0 {
        process::unshare(libc::CLONE_NEWCGROUP).or_fault("unshare", b"cgroup")?;
    }
    if let Entrance::Joined { container } = entrance {
        let kinds = libc::CLONE_NEWNS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWCGROUP;
        process::enter_namespaces(container.as_fd(), kinds).or_fault("setns", b"")?;
    }
    Ok(labels)
}

/// Writes this process into a `cgroup.procs` file.
pub(crate) fn join_cgroup(procs: &[u8]) -> Result<(), Fault> {
    let file = file::open_host(procs, libc::O_WRONLY).or_fault("openat2", procs)?;
    file::write_value(file.as_fd(), b"0").or_fault("write", procs)
}

fn open_labels(process: &Process) -> Result<Option<OwnedFd>, Fault> {
    if process.apparmor.is_none() && process.selinux.is_none() {
        return Ok(None);
    }
    procfs::open(b"/proc/thread-self/attr", libc::O_PATH | libc::O_DIRECTORY).map(Some)
}
