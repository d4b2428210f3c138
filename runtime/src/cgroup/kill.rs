//! Signalling and killing everything in a group.
//!
//! With a cgroup2 mount, `cgroup.kill` (Linux 5.14) ends the whole subtree at once, forks in flight included, and
//! `cgroup.events` tells when it is empty; that holds beside v1 controllers too. What is left then, because it moved
//! itself elsewhere in that mount, and everything on plain v1, is killed by pidfd round by round, frozen when it forks
//! faster than we kill.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::dir::Dir;
use super::pidfd::PidFd;
use super::{Cgroup, CgroupError, Controller, format};

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

    /// Kills the subtree and returns when it is empty. Blocks; an absent group is empty.
    ///
    /// # Errors
    /// [`CgroupError::StillAlive`] after `timeout`.
    pub fn kill_all(&self, timeout: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + timeout;
        self.kill_unified(deadline)?;
        if signal_living(&self.pids()?).is_empty() {
            return Ok(());
        }
        let freezer = Freezer::of(self)?;
        let mut round = 0;
        loop {
            let living = signal_living(&self.pids()?);
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
                let left = signal_living(&self.pids()?).len();
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

    /// `cgroup.kill` and waiting for `populated 0`; nothing where there is no such file.
    fn kill_unified(&self, deadline: Instant) -> Result<(), CgroupError> {
        let Some(mount) = self.hierarchy.unified() else {
            return Ok(());
        };
        let dir = match mount.dir.open(self.path.relative()) {
            Ok(dir) => dir,
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(error),
        };
        match dir.try_write("cgroup.kill", "1") {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
            Err(source) => return Err(dir.write_error("cgroup.kill", "1", String::new(), source)),
        }
        wait_empty(&dir, deadline)
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
        Err(error) if error.is_missing() => return Ok(()),
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

/// Waits on `cgroup.events`, which polls with POLLPRI when a value changes (cgroup-v2.rst). Returns at the deadline too.
fn wait_empty(dir: &Dir, deadline: Instant) -> Result<(), CgroupError> {
    const FILE: &str = "cgroup.events";
    let events = match dir.open_file(FILE, OFlag::O_RDONLY) {
        Ok(events) => events,
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        Err(source) => return Err(dir.error("open", FILE, source)),
    };
    let mut buffer = [0; 256];
    loop {
        // The read arms the next notification.
        let length = match nix::sys::uio::pread(&events, &mut buffer, 0) {
            Ok(length) => length,
            Err(Errno::ENODEV) => return Ok(()),
            Err(source) => return Err(dir.error("read", FILE, source)),
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        let populated = format::pairs(&text).any(|(name, value)| name == "populated" && value != 0);
        if !populated || Instant::now() >= deadline {
            return Ok(());
        }
        let mut polled = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut polled, remaining(deadline)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(source) => return Err(dir.error("poll", FILE, source)),
        }
    }
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
