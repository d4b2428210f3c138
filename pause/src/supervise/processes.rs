//! The processes that run, and containers that have ended.

use crate::child::Groups;
use crate::launch::Input;
use crate::log::{LogFile, Stream};
use crate::sys::{file, process};
use podwright_pause::plan::LaunchPlan;
use podwright_pause::protocol::{ContainerEntry, EXEC_GROUP, Exit};
use podwright_pause::wire::Bytes;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// A container, from its launch until it is forgotten.
pub(super) struct Container {
    /// Its log sources' number.
    pub(super) serial: u32,
    pub(super) id: Bytes,
    pub(super) pid: u32,
    pub(super) started_at: i64,
    pub(super) life: Life,
    pub(super) log: Option<LogFile>,
    /// Those that have not ended; other processes may keep them open past the container's exit.
    pub(super) streams: Vec<Stream>,
    /// Held so that reading does not end.
    pub(super) stdin: Option<Input>,
    pub(super) terminal: Option<OwnedFd>,
}

/// A container runs until its first process has ended.
pub(super) enum Life {
    Running {
        pidfd: OwnedFd,
        /// Those of its latest command.
        groups: Groups,
    },
    Exited(Exit),
}

impl Container {
    /// Its first process, while that runs.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.life {
            Life::Running { pidfd, .. } => Some(pidfd.as_fd()),
            Life::Exited(_) => None,
        }
    }

    /// What a client writes its input to, if there is something that reads it.
    pub(super) fn writer_of_stdin(&self) -> io::Result<Option<OwnedFd>> {
        let pipe = self.stdin.as_ref().map(|stdin| &stdin.writer);
        self.terminal
            .as_ref()
            .or(pipe)
            .map(OwnedFd::try_clone)
            .transpose()
    }

    pub(super) fn entry(&self) -> ContainerEntry {
        let exit = match &self.life {
            Life::Running { .. } => None,
            Life::Exited(exit) => Some(exit.clone()),
        };
        ContainerEntry {
            id: self.id.clone(),
            pid: self.pid,
            started_at: self.started_at,
            exit,
            log: self.log.as_ref().and_then(LogFile::state),
            #[cfg(feature = "next-protocol")]
            rehearsal: podwright_pause::protocol::REHEARSAL.into(),
        }
    }
}

/// A running exec, until it is reaped.
pub(super) struct Execution {
    /// The daemon's number for it.
    pub(super) number: u64,
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    /// The connection that asked for it.
    pub(super) owner: u32,
    /// The file by which it joined a group of its own.
    pub(super) group: Option<Bytes>,
    pub(super) terminal: Option<OwnedFd>,
}

impl Execution {
    /// Kills it with its process group and, where it has a cgroup of its own, with all that it started, however that has
    /// detached itself.
    pub(super) fn kill(&self) {
        process::kill_group(self.pid);
        let Some(procs) = &self.group else { return };
        let end = procs.0.iter().rposition(|&byte| byte == b'/');
        let directory = &procs.0[..end.map_or(0, |slash| slash + 1)];
        let kill = [directory, b"cgroup.kill"].concat();
        let killed = file::open_host(&kill, libc::O_WRONLY)
            .and_then(|kill| file::write_value(kill.as_fd(), b"1"));
        if killed.is_err() {
            kill_members(directory);
        }
    }
}

/// How often new members of a group are looked for: more than any command's children need, and an end to a fork bomb's, for
/// which no other container waits.
const PASSES: usize = 64;

/// Kills a group's processes one by one, where no write does it (cgroup v1 alone, and Linux before 5.14). They are frozen meanwhile,
/// if the group is one of v1's freezer: a process that does not run starts no other. One that has been killed does not either, so when
/// a pass finds nobody new, all are killed. Where there is no group any more, nobody is.
fn kill_members(directory: &[u8]) {
    let state = [directory, b"freezer.state"].concat();
    let freezer = file::open_host(&state, libc::O_WRONLY).ok();
    let tell = |state: &[u8]| {
        if let Some(freezer) = &freezer {
            // The group may be gone.
            let _ = file::write_value(freezer.as_fd(), state);
        }
    };
    let procs = [directory, b"cgroup.procs"].concat();
    let mut killed = Vec::new();
    tell(b"FROZEN");
    for _ in 0..PASSES {
        if !kill_new(&procs, &mut killed) {
            break;
        }
    }
    // A frozen process dies when it is thawed (freezer-subsystem.rst).
    tell(b"THAWED");
}

/// Kills those that the file lists and that have not been killed yet. Whether there were any.
fn kill_new(procs: &[u8], killed: &mut Vec<u32>) -> bool {
    let members = std::fs::read_to_string(OsStr::from_bytes(procs)).unwrap_or_default();
    let known = killed.len();
    for pid in members.lines().filter_map(|line| line.parse().ok()) {
        if !killed.contains(&pid) {
            process::kill(pid);
            killed.push(pid);
        }
    }
    killed.len() > known
}

/// The file by which an exec joins the group that it has for itself.
pub(super) fn own_group(plan: &LaunchPlan) -> Option<Bytes> {
    let is_own = |procs: &&Bytes| {
        let mut parts = procs.0.rsplit(|&byte| byte == b'/');
        parts
            .nth(1)
            .is_some_and(|group| group.starts_with(EXEC_GROUP.as_bytes()))
    };
    plan.cgroup_procs.iter().find(is_own).cloned()
}
