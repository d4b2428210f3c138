//! The cgroups that a child is in: it is born into its group of cgroup v2, and moves itself into those of v1.
//!
//! Writing to `cgroup.procs` takes a lock that every fork of the machine reads, and waits an RCU grace period for it:
//! milliseconds (`cgroup_attach_lock` in the kernel's kernel/cgroup/cgroup.c). Neither a birth into a group does (CLONE_INTO_CGROUP,
//! Linux 5.7), nor one thread that moves itself by `tasks` of v1 (Linux 5.5).

use crate::fault::{Fault, OrFault};
use crate::procfs;
use crate::sys::file;
use podwright_pause::plan::LaunchPlan;
use podwright_pause::wire::Bytes;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The file of a cgroup that names its processes.
const PROCS: &[u8] = b"cgroup.procs";

/// A group of cgroup v2 to be born into.
pub(crate) struct Birthplace<'a> {
    directory: OwnedFd,
    procs: &'a Bytes,
}

impl<'a> Birthplace<'a> {
    /// The group of cgroup v2 among those of a plan, if it has one.
    pub(crate) fn among(groups: &'a [Bytes]) -> Result<Option<Self>, Fault> {
        for procs in groups {
            let Some(path) = procs.0.strip_suffix(PROCS) else {
                continue;
            };
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let directory = file::open_host(path, flags).or_fault("openat2", &procs.0)?;
            if is_v2(directory.as_fd()) {
                return Ok(Some(Self { directory, procs }));
            }
        }
        Ok(None)
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// For messages.
    pub(crate) fn path(&self) -> &[u8] {
        &self.procs.0
    }
}

/// Whether a directory is a group of cgroup v2.
fn is_v2(directory: BorrowedFd<'_>) -> bool {
    file::filesystem(directory) == Ok(file::CGROUP2_SUPER_MAGIC)
}

/// Joins what the child was not born into, and takes its OOM score.
pub(super) fn settle(plan: &LaunchPlan, born: Option<&Birthplace<'_>>) -> Result<(), Fault> {
    join(&plan.cgroup_procs, born)?;
    match plan.oom_score_adj {
        Some(score) => procfs::set_own_oom_score(score),
        None => Ok(()),
    }
}

/// Writes this process into the files of its groups, but for the one that it was born into.
pub(crate) fn join(groups: &[Bytes], born: Option<&Birthplace<'_>>) -> Result<(), Fault> {
    let elsewhere = |group: &&Bytes| born.is_none_or(|born| born.procs != *group);
    for Bytes(path) in groups.iter().filter(elsewhere) {
        let file = file::open_host(path, libc::O_WRONLY).or_fault("openat2", path)?;
        file::write_value(file.as_fd(), b"0").or_fault("write", path)?;
    }
    Ok(())
}

/// Where pause is when its sandbox is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the pod's group of cgroup v2.
    Group,
    /// Where the zygote is, with the daemon.
    Daemon,
}
