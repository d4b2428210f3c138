//! Making a group in every mount.

use nix::errno::Errno;
use nix::unistd::Pid;

use super::dir::Dir;
use super::hierarchy::{Controller, Interface, Mount};
use super::{Cgroup, CgroupError, CgroupPath, Hierarchy, Leaf, Version};

impl Hierarchy {
    /// Makes `path` and its missing parents in every mount; what exists already is kept.
    ///
    /// v1: an empty cpuset gets its parent's CPUs and memory nodes, without which no process could join.
    /// v2: the controllers are enabled in every ancestor.
    ///
    /// # Errors
    /// [`CgroupError::Io`] or [`CgroupError::Write`]; what was made until then stays, [`Cgroup::remove`] takes it away.
    pub fn create(&self, path: &CgroupPath) -> Result<Cgroup, CgroupError> {
        self.make_everywhere(path)?;
        self.enable_all(path)?;
        Ok(self.cgroup(path))
    }

    /// Makes `trunk` and, on cgroup v2, a leaf in it for its own processes. On a hybrid machine too: a controller that is in the
    /// unified mount may be enabled there for a container.
    ///
    /// # Errors
    /// As [`Hierarchy::create`].
    pub fn create_leaf(&self, trunk: &CgroupPath, name: &str) -> Result<Leaf, CgroupError> {
        let leaf = self.begin_leaf(trunk, name)?;
        self.complete_leaf(&leaf)?;
        Ok(leaf)
    }

    /// The first half of [`Hierarchy::create_leaf`]: the leaf in its own mount, where a process can be born while the rest is made.
    /// cgroup v2's controllers are among it: what is charged before they are enabled stays with an ancestor (cgroup-v2.rst, "Memory
    /// Ownership").
    ///
    /// # Errors
    /// As [`Hierarchy::create`].
    pub fn begin_leaf(&self, trunk: &CgroupPath, name: &str) -> Result<Leaf, CgroupError> {
        let leaf = self.make_leaf(trunk, name)?;
        self.enable_all(leaf.path())?;
        Ok(leaf)
    }

    /// The leaf in its own mount, without controllers.
    fn make_leaf(&self, trunk: &CgroupPath, name: &str) -> Result<Leaf, CgroupError> {
        let path = match self.unified() {
            Some(unified) => {
                let path = trunk.join(name)?;
                make(unified, &path)?;
                path
            }
            None => trunk.clone(),
        };
        Ok(Leaf::new(self.cgroup(&path), self.cgroup(trunk)))
    }

    /// The second half: the trunk in the other mounts.
    ///
    /// # Errors
    /// As [`Hierarchy::create`].
    pub fn complete_leaf(&self, leaf: &Leaf) -> Result<(), CgroupError> {
        self.make_except(leaf.trunk().path(), self.unified_index())
    }

    /// As [`Hierarchy::create_leaf`], below a group that `process` is in, which moves before controllers are enabled in its old group, which must not
    /// have processes then (cgroups(7)).
    ///
    /// # Errors
    /// As [`Hierarchy::create`].
    pub fn create_leaf_around(
        &self,
        trunk: &CgroupPath,
        name: &str,
        process: Pid,
    ) -> Result<Leaf, CgroupError> {
        let leaf = self.make_leaf(trunk, name)?;
        self.complete_leaf(&leaf)?;
        for (index, mount) in self.mounts().iter().enumerate() {
            let group = leaf.in_mount(index).path();
            let dir = mount.dir.open(group.relative())?;
            dir.write("cgroup.procs", &process.to_string())?;
        }
        self.enable_all(leaf.path())?;
        Ok(leaf)
    }

    fn make_everywhere(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        self.make_except(path, None)
    }

    /// In every mount but one, by its index.
    fn make_except(&self, path: &CgroupPath, except: Option<usize>) -> Result<(), CgroupError> {
        let cpuset = self
            .location(Controller::Cpuset)
            .filter(|location| location.interface == Interface::V1);
        let mounts = self.mounts().iter().enumerate();
        for (index, mount) in mounts.filter(|(index, _)| except != Some(*index)) {
            make(mount, path)?;
            if cpuset.is_some_and(|location| location.mount == index) {
                fill_cpuset(mount, path)?;
            }
        }
        Ok(())
    }

    fn enable_all(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        if self.version() != Version::V2 {
            return Ok(());
        }
        let wanted: Vec<_> = self.v2_controllers().map(Controller::name).collect();
        self.enable(path, &wanted)
    }

    /// Enables v2 controllers for `path`, which they then show in `cgroup.controllers`.
    pub(super) fn enable(&self, path: &CgroupPath, wanted: &[&str]) -> Result<(), CgroupError> {
        let Some(mount) = self.unified() else {
            return Ok(());
        };
        let leaf = mount.dir.open(path.relative())?;
        let offered = leaf.read("cgroup.controllers")?;
        let missing = |controller: &&&str| {
            !offered
                .split_ascii_whitespace()
                .any(|name| name == **controller)
        };
        let missing: Vec<String> = wanted
            .iter()
            .filter(missing)
            .map(|controller| format!("+{controller}"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let value = missing.join(" ");
        enable_in(&mount.dir, &value)?;
        if let Some(parent) = path.parent() {
            for ancestor in parent.prefixes() {
                enable_in(&mount.dir.open(ancestor)?, &value)?;
            }
        }
        Ok(())
    }
}

fn enable_in(dir: &Dir, value: &str) -> Result<(), CgroupError> {
    const FILE: &str = "cgroup.subtree_control";
    dir.try_write(FILE, value).map_err(|source| {
        let hint = match source {
            Errno::EBUSY => "the group holds processes; a group with limited children must not (cgroups(7)), move them to a leaf",
            Errno::ENOENT => "the parent does not pass this controller on",
            _ => "",
        };
        dir.write_error(FILE, value, hint.to_owned(), source)
    })
}

/// Makes the whole path in one call when its parent exists, else from the nearest ancestor on that does.
fn make(mount: &Mount, path: &CgroupPath) -> Result<(), CgroupError> {
    let prefixes: Vec<&str> = path.prefixes().collect();
    let make = |prefix: &str| match mount.dir.mkdir(prefix) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(mount.dir.error("make cgroup", prefix, errno)),
    };
    let mut made = prefixes.len();
    while made > 0 && !make(prefixes[made - 1])? {
        made -= 1;
    }
    for prefix in &prefixes[made..] {
        let errno = || mount.dir.error("make cgroup", prefix, Errno::ENOENT);
        make(prefix)?.then_some(()).ok_or_else(errno)?;
    }
    Ok(())
}

/// A new v1 cpuset is empty unless its parent has `cgroup.clone_children` (cpuset(7)). Our own parents get that flag,
/// so that filling a container's costs one read.
fn fill_cpuset(mount: &Mount, path: &CgroupPath) -> Result<(), CgroupError> {
    let leaf = mount.dir.open(path.relative())?;
    if !is_empty(&leaf.read("cpuset.cpus")?) && !is_empty(&leaf.read("cpuset.mems")?) {
        return Ok(());
    }
    let mut parent = mount.dir.open(".")?;
    for prefix in path.prefixes() {
        let child = mount.dir.open(prefix)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if is_empty(&child.read(file)?) {
                child.write(file, parent.read(file)?.trim_end())?;
                child.write("cgroup.clone_children", "1")?;
            }
        }
        parent = child;
    }
    Ok(())
}

fn is_empty(text: &str) -> bool {
    text.trim_end().is_empty()
}
