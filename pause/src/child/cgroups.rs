//! The cgroups that a child is in.
//!
//! Joining by a write to `cgroup.procs` makes the kernel wait until no CPU forks any more, and leaves a moment before the limits
//! hold. cgroup v2 has a child born where it belongs (CLONE_INTO_CGROUP, Linux 5.7), v1 knows the write only.

use crate::fault::{Fault, OrFault};
use crate::procfs;
use crate::sys::file;
use podwright_pause::plan::LaunchPlan;
use podwright_pause::wire::Bytes;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The group of cgroup v2 that a child is born into.
pub(crate) struct Birthplace<'a> {
    directory: OwnedFd,
    procs: &'a Bytes,
}

impl<'a> Birthplace<'a> {
    /// The plan's group of cgroup v2, which is the last of its groups, if it has one.
    pub(crate) fn of(plan: &'a LaunchPlan) -> Result<Option<Self>, Fault> {
        let Some(procs) = plan.cgroup_procs.last() else {
            return Ok(None);
        };
        let Some(path) = procs.0.strip_suffix(b"cgroup.procs") else {
            return Ok(None);
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let directory = file::open_host(path, flags).or_fault("openat2", &procs.0)?;
        let kind = file::filesystem(directory.as_fd()).or_fault("fstatfs", &procs.0)?;
        Ok((kind == file::CGROUP2_SUPER_MAGIC).then_some(Self { directory, procs }))
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// For messages.
    pub(crate) fn path(&self) -> &[u8] {
        &self.procs.0
    }
}

/// Joins what the child was not born into, and takes its OOM score.
pub(super) fn settle(plan: &LaunchPlan, born: Option<&Birthplace<'_>>) -> Result<(), Fault> {
    let elsewhere = |procs: &&Bytes| born.is_none_or(|born| born.procs != *procs);
    for procs in plan.cgroup_procs.iter().filter(elsewhere) {
        join_cgroup(&procs.0)?;
    }
    match plan.oom_score_adj {
        Some(score) => procfs::set_own_oom_score(score),
        None => Ok(()),
    }
}

/// Writes this process into a `cgroup.procs` file.
pub(crate) fn join_cgroup(procs: &[u8]) -> Result<(), Fault> {
    let file = file::open_host(procs, libc::O_WRONLY).or_fault("openat2", procs)?;
    file::write_value(file.as_fd(), b"0").or_fault("write", procs)
}
