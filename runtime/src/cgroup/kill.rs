//! Signalling and killing everything in a group.
//!
//! With a cgroup2 mount, `cgroup.kill` (Linux 5.14) ends the whole subtree at once, forks in flight included; that holds
//! beside v1 controllers too. What is left then, because it moved itself elsewhere in that mount, and everything on plain
//! v1, is killed by pidfd round by round, frozen when it forks faster than we kill.
//!
//! The processes themselves are waited for, not `cgroup.events`: the kernel tells of a change there 10 ms after the one before
//! at the earliest (`CGROUP_FILE_NOTIFY_MIN_INTV` in kernel/cgroup/cgroup.c), so the end of a young group would come late, and a
//! group that v1's freezer has stopped is never empty before it is thawed.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::dir::Dir;
use super::pidfd::PidFd;
use super::{Cgroup, CgroupError, Controller};

/// After so many rounds the group is frozen, so that it cannot fork any more.
const FREE_ROUNDS: u32 = 2;

/// How often a group is looked at that is being frozen.
const FREEZING: Duration = Duration::from_millis(1);

impl Cgroup {
    /// The processes of the subtree, as seen from this PID namespace. An absent group has none.
    ///
    /// # Errors
    /// [`CgroupError::Io`] or [`CgroupError::Parse`].
    pub fn pids(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut pids = Vec::new();
        match self.hierarchy.anchor().dir.open(self.path.relative()) {
            Ok(dir) => collect(&dir, &mut pids)?,
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
        Ok(pids)
    }

    /// Sends `signal` once to every process of the subtree; says to how many. Does not wait.
    ///
    /// # Errors
    /// As [`Cgroup::pids`].
    pub fn signal_all(&self, signal: Signal) -> Result<usize, CgroupError> {
        let pids = self.pids()?;
        Ok(pids
            .into_iter()
            .filter(|pid| {
                PidFd::open(*pid)
                    .and_then(|process| process.send(signal))
                    .is_ok()
            })
            .count())
    }

    /// Kills the subtree and returns when nothing in it lives. Blocks; an absent group is empty.
    ///
    /// # Errors
    /// [`CgroupError::StillAlive`] after `timeout`.
    pub fn kill_all(&self, timeout: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + timeout;
        let unified = self.kill_unified()?;
        if self.kill_living(unified.as_ref())?.is_empty() {
            return Ok(());
        }
        let freezer = Freezer::of(self)?;
        let mut round = 0;
        loop {
            let living = self.kill_living(unified.as_ref())?;
            if living.is_empty() {
                return Ok(());
            }
            if round == FREE_ROUNDS {
                freezer.freeze(deadline)?;
            } else {
                // A frozen task dies only when thawed (freezer-subsystem.rst); somebody else may have frozen it.
                freezer.thaw();
                wait_ended(&living, deadline).map_err(|source| self.io("poll", source))?;
            }
            if Instant::now() >= deadline {
                let left = self.kill_living(unified.as_ref())?.len();
                if left == 0 {
                    return Ok(());
                }
                return Err(CgroupError::StillAlive {
                    path: self.path.to_string(),
                    left,
                    waited_ms: timeout.as_millis(),
                });
            }
            round = if round == FREE_ROUNDS { 0 } else { round + 1 };
        }
    }

    /// `cgroup.kill`, and the group it was written to where that is another than [`Cgroup::pids`] looks into; nothing where there
    /// is no such file.
    fn kill_unified(&self) -> Result<Option<Dir>, CgroupError> {
        let Some(mount) = self.hierarchy.unified() else {
            return Ok(None);
        };
        let dir = match mount.dir.open(self.path.relative()) {
            Ok(dir) => dir,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        match dir.try_write("cgroup.kill", "1") {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(None),
            Err(source) => return Err(dir.write_error("cgroup.kill", "1", String::new(), source)),
        }
        let beside = self.hierarchy.unified_index() != Some(self.hierarchy.anchor_index());
        Ok(beside.then_some(dir))
    }

    /// Sends SIGKILL to each process of the subtree, and of `unified`, and gives those that have not ended yet.
    fn kill_living(&self, unified: Option<&Dir>) -> Result<Vec<PidFd>, CgroupError> {
        let mut pids = self.pids()?;
        if let Some(dir) = unified {
            // A process is born into this one and joins the others then.
            collect(dir, &mut pids)?;
            pids.sort_unstable();
            pids.dedup();
        }
        Ok(signal_living(&pids))
    }

    fn io(&self, action: &'static str, source: Errno) -> CgroupError {
        CgroupError::Io {
            action,
            path: self.path.as_str().into(),
            source,
        }
    }
}

/// Reads `cgroup.procs` of `dir` and of all groups below.
fn collect(dir: &Dir, pids: &mut Vec<Pid>) -> Result<(), CgroupError> {
    let text = match dir.read("cgroup.procs") {
        Ok(text) => text,
        // Those of a threaded group stand in its domain's file (cgroup-v2.rst, "Threads").
        Err(error) if error.is_missing() || error.is_not_supported() => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in text.lines() {
        match line.parse() {
            // 0 stands for a process that this PID namespace cannot see.
            Ok(0) => {}
            Ok(pid) => pids.push(Pid::from_raw(pid)),
            Err(_) => return Err(dir.parse_error("cgroup.procs", line, "process numbers")),
        }
    }
    let children = match dir.children() {
        Ok(children) => children,
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => return Err(error),
    };
    for child in children {
        match dir.open(&child) {
            Ok(child) => collect(&child, pids)?,
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends SIGKILL to each and gives those that have not ended yet; a zombie has.
fn signal_living(pids: &[Pid]) -> Vec<PidFd> {
    let opened = pids.iter().filter_map(|pid| PidFd::open(*pid).ok());
    opened
        .filter(|process| process.send(Signal::SIGKILL).is_ok() && !has_ended(process))
        .collect()
}

fn has_ended(process: &PidFd) -> bool {
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Returns when all have ended or at the deadline.
fn wait_ended(processes: &[PidFd], deadline: Instant) -> Result<(), Errno> {
    for process in processes {
        let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, remaining(deadline)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn remaining(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up: a poll that returns early would spin.
    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}

/// The v1 freezer of a group, where there is one. The group is thawed on drop, whatever happens in between.
struct Freezer(Option<Dir>);

impl Freezer {
    const FILE: &'static str = "freezer.state";

    fn of(group: &Cgroup) -> Result<Self, CgroupError> {
        match group.controller(Controller::Freezer) {
            Ok(found) => Ok(Self(found.map(|(dir, _)| dir))),
            Err(error) if error.is_missing() => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }

    /// Returns when nothing in the group runs, or at the deadline: until then there are some that go on forking, and those that
    /// have used up their CPU time are late to stop.
    fn freeze(&self, deadline: Instant) -> Result<(), CgroupError> {
        let Some(dir) = &self.0 else { return Ok(()) };
        dir.write(Self::FILE, "FROZEN")?;
        while dir.read(Self::FILE)?.trim() != "FROZEN" && Instant::now() < deadline {
            // v1 tells nobody when the state changes.
            std::thread::sleep(FREEZING);
        }
        Ok(())
    }

    fn thaw(&self) {
        if let Some(dir) = &self.0 {
            // An error means that the group is gone, and with it the frozen state.
            let _ = dir.try_write(Self::FILE, "THAWED");
        }
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
    }
}
