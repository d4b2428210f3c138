//! Groups for commands, below their container's: what a command starts can be ended as a whole, however it detaches itself.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::uio::pread;
use podwright_pause::protocol::EXEC_GROUP;

use super::{Cgroup, CgroupError, Leaf, format};

/// Counts the groups of this process; with its id, a name is never met again while a process is in the old one.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// So many stay for the next commands: probes of a container seldom overlap, and a session more does no harm.
const MOST_IDLE: usize = 4;

/// The groups for the commands in one container. Making and removing one takes a lock of the whole machine (`cgroup_mutex`), for which
/// many commands at once would queue, so those that are empty are kept for the next ones.
#[derive(Debug)]
pub struct ExecGroups {
    container: Cgroup,
    idle: Mutex<Vec<ExecGroup>>,
}

/// The group of one command at a time. Dropping it removes it, if nothing is left in it; what is left goes with the container's group.
#[derive(Debug)]
pub struct ExecGroup {
    leaf: Leaf,
    /// Its `cgroup.events`, where there is cgroup v2: it says whether the group is empty. v1 has no file for that which would not
    /// have to be opened anew each time.
    events: Option<OwnedFd>,
}

impl ExecGroups {
    /// For the commands in a container, by its group.
    pub fn new(container: Cgroup) -> Self {
        Self {
            container,
            idle: Mutex::default(),
        }
    }

    /// An empty group that no other command has.
    ///
    /// # Errors
    /// [`CgroupError::Io`]: the container's group is gone, say.
    pub fn take(&self) -> Result<ExecGroup, CgroupError> {
        loop {
            let idle = self.idle().pop();
            match idle {
                // Who may write to the container's groups may have used it, frozen or removed it meanwhile.
                Some(group) if !group.is_free() => drop(group),
                Some(group) => return Ok(group),
                None => return ExecGroup::make(&self.container),
            }
        }
    }

    /// Takes the group back of a command that has ended. One in which the command has left processes behind, which is its right, is not
    /// given to another.
    pub fn give_back(&self, group: ExecGroup) {
        if group.is_free() {
            let mut idle = self.idle();
            if idle.len() < MOST_IDLE {
                idle.push(group);
            }
        }
    }

    /// Removes the empty groups that an earlier daemon has kept.
    ///
    /// # Errors
    /// [`CgroupError::Io`]: the container's group cannot be listed.
    pub fn remove_forgotten(&self) -> Result<(), CgroupError> {
        let mount = Leaf::mount(&self.container.hierarchy);
        let dir = match mount.dir.open(self.container.path.relative()) {
            Ok(dir) => dir,
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in dir.children()? {
            if name.starts_with(EXEC_GROUP) {
                // Processes may be in it: it goes with the container's.
                let _ = dir.rmdir(&name);
            }
        }
        Ok(())
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<ExecGroup>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExecGroup {
    fn make(container: &Cgroup) -> Result<Self, CgroupError> {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let path = container
            .path
            .join(&format!("{EXEC_GROUP}{}-{number}", std::process::id()))?;
        let root = &Leaf::mount(&container.hierarchy).dir;
        root.mkdir(path.relative())
            .map_err(|errno| root.error("make cgroup", path.relative(), errno))?;
        let group = container.hierarchy.cgroup(&path);
        let events = format!("{}/cgroup.events", path.relative());
        Ok(Self {
            events: root.open_file(&events, OFlag::O_RDONLY).ok(),
            leaf: Leaf::new(group, container.clone()),
        })
    }

    /// The files into which the command writes `0`, as [`Cgroup::join_files`].
    pub fn join_files(&self) -> Vec<PathBuf> {
        self.leaf.join_files()
    }

    /// Kills everything in it; blocks until all is gone.
    ///
    /// # Errors
    /// As [`Cgroup::kill_all`].
    pub fn kill(&self, timeout: Duration) -> Result<(), CgroupError> {
        self.leaf.kill(timeout)
    }

    /// Whether it is there, has no processes and is not frozen, as far as that is told.
    fn is_free(&self) -> bool {
        let Some(events) = &self.events else {
            return false;
        };
        let mut text = [0; 256];
        match pread(events, &mut text, 0) {
            Ok(count) => str::from_utf8(&text[..count]).is_ok_and(|text| {
                format::value(text, "populated") == Some(0)
                    && format::value(text, "frozen") != Some(1)
            }),
            // ENODEV: it is gone.
            Err(_) => false,
        }
    }
}

impl Drop for ExecGroup {
    fn drop(&mut self) {
        self.leaf.remove();
    }
}
