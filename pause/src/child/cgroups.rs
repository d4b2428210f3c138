//! The cgroups that a child is in: it is born into its group of cgroup v2, and moves itself into those of v1.
//!
//! Writing to `cgroup.procs` takes a lock that every fork of the machine reads, and waits an RCU grace period for it:
//! milliseconds (`cgroup_attach_lock` in the kernel's kernel/cgroup/cgroup.c). Neither a birth into a group does (CLONE_INTO_CGROUP,
//! Linux 5.7), nor one thread that moves itself by `tasks` of v1 (Linux 5.5).

use crate::fault::{Fault, OrFault};
use crate::procfs;
use crate::sys::{Errno, file};
use podwright_pause::plan::LaunchPlan;
use podwright_pause::wire::Bytes;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The file of a cgroup that names its processes.
const PROCS: &[u8] = b"cgroup.procs";

/// The groups that children are to be in, open.
#[derive(Default)]
pub(crate) struct Groups(Vec<Group>);

struct Group {
    /// As in the plan.
    file: Bytes,
    way: Way,
}

/// How a child comes into a group.
enum Way {
    /// Born into this directory of cgroup v2.
    Birth(OwnedFd),
    /// By writing to this file.
    Move(OwnedFd),
}

impl Groups {
    /// By the files of a plan.
    pub(crate) fn open(files: &[Bytes]) -> Result<Self, Fault> {
        let mut groups = Self::default();
        groups.change_to(files)?;
        Ok(groups)
    }

    /// By those of another plan. What both have stays open: a path of seven components for each mount of v1 is dear.
    pub(crate) fn change_to(&mut self, files: &[Bytes]) -> Result<(), Fault> {
        self.0.retain(|group| files.contains(&group.file));
        for file in files {
            if !self.0.iter().any(|group| group.file == *file) {
                let way = Way::into(&file.0)?;
                let file = file.clone();
                self.0.push(Group { file, way });
            }
        }
        Ok(())
    }

    /// The one to be born into, if there is one, and its path for messages.
    pub(crate) fn birthplace(&self) -> Option<(BorrowedFd<'_>, &[u8])> {
        self.0.iter().find_map(|group| match &group.way {
            Way::Birth(directory) => Some((directory.as_fd(), &group.file.0[..])),
            Way::Move(_) => None,
        })
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.0.iter().map(|group| match &group.way {
            Way::Birth(fd) | Way::Move(fd) => fd.as_raw_fd(),
        })
    }

    /// Moves this process into all but the one that it was `born` into.
    pub(crate) fn join(&self, born: Born) -> Result<(), Fault> {
        for Group { file, way } in &self.0 {
            match (way, born) {
                (Way::Birth(_), Born::InGroup) => {}
                (Way::Birth(_), Born::Elsewhere) => move_by_path(&file.0)?,
                (Way::Move(opened), _) => match file::write_value(opened.as_fd(), b"0") {
                    // Another group has its name by now.
                    Err(Errno(libc::ENODEV)) => move_by_path(&file.0)?,
                    moved => moved.or_fault("write", &file.0)?,
                },
            }
        }
        Ok(())
    }
}

impl Way {
    fn into(path: &[u8]) -> Result<Self, Fault> {
        if let Some(directory) = path.strip_suffix(PROCS) {
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let directory = file::open_host(directory, flags).or_fault("openat2", path)?;
            if is_v2(directory.as_fd()) {
                return Ok(Self::Birth(directory));
            }
        }
        open_to_move(path).map(Self::Move)
    }
}

/// Whether a process has been in its group of cgroup v2 from the first moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Born {
    InGroup,
    Elsewhere,
}

/// Whether a directory is a group of cgroup v2.
fn is_v2(directory: BorrowedFd<'_>) -> bool {
    file::filesystem(directory) == Ok(file::CGROUP2_SUPER_MAGIC)
}

fn open_to_move(path: &[u8]) -> Result<OwnedFd, Fault> {
    file::open_host(path, libc::O_WRONLY).or_fault("openat2", path)
}

fn move_by_path(path: &[u8]) -> Result<(), Fault> {
    let file = open_to_move(path)?;
    file::write_value(file.as_fd(), b"0").or_fault("write", path)
}

/// Joins what the child was not born into, and takes its OOM score.
pub(super) fn settle(plan: &LaunchPlan, groups: &Groups, born: Born) -> Result<(), Fault> {
    groups.join(born)?;
    match plan.oom_score_adj {
        Some(score) => procfs::set_own_oom_score(score),
        None => Ok(()),
    }
}
