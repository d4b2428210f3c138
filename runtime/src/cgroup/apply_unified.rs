//! The keys of `unified`: files of the v2 interface, by their names.

use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;

use super::apply::write_in_any_order;
use super::apply_v2::make_room;
use super::undo::{Occasion, Target};
use super::{Cgroup, CgroupError, Version};

const PARTITION: &str = "cpuset.cpus.partition";

/// A file and a line for it.
pub(super) type Entry<'a> = (&'a str, String);

impl Cgroup {
    /// The request's keys and values, line by line: the kernel takes one per write.
    pub(super) fn checked_unified<'a>(
        &self,
        resources: &'a LinuxResources,
    ) -> Result<Vec<Entry<'a>>, CgroupError> {
        let mut entries = Vec::new();
        for (key, value) in resources.unified().iter().flatten() {
            if self.hierarchy.version() != Version::V2 {
                return Err(CgroupError::UnifiedOnV1 {
                    key: key.chars().take(80).collect(),
                });
            }
            // "cgroup.*" files move processes and kill; only a controller's files are limits.
            let plain = key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            if !plain || !key.contains('.') || key.starts_with('.') || key.starts_with("cgroup.") {
                return Err(invalid(key, "is not a controller's interface file"));
            }
            if value.trim().is_empty() {
                return Err(invalid(key, "has no value"));
            }
            let lines = value.lines().filter(|line| !line.trim().is_empty());
            entries.extend(lines.map(|line| (key.as_str(), line.to_owned())));
        }
        // Among the lines of one file, the request's order is kept.
        entries.sort_by_key(|(key, _)| *key);
        Ok(entries)
    }

    pub(super) fn apply_unified(
        &self,
        entries: &[Entry<'_>],
        occasion: &mut Occasion,
    ) -> Result<(), CgroupError> {
        let Some((mount, index)) = self.hierarchy.unified().zip(self.hierarchy.unified_index())
        else {
            return Ok(());
        };
        if entries.is_empty() {
            return Ok(());
        }
        let mut target = Target {
            dir: mount.dir.open(self.path.relative())?,
            mount: index,
            occasion,
        };
        for (key, value) in entries {
            if !target.has(key) {
                self.enable_for(key, &target)?;
            }
            if let ("memory.max", Ok(limit)) = (*key, value.trim().parse()) {
                make_room(&target, limit)?;
            }
        }
        write_in_any_order(&mut target, entries, |_, _, errno| match errno {
            Errno::ENODEV => "there is no such device".to_owned(),
            Errno::EOPNOTSUPP => "the kernel cannot do this here".to_owned(),
            _ => String::new(),
        })?;
        match entries.iter().find(|(key, _)| *key == PARTITION) {
            Some((_, wanted)) => refuse_invalid_partition(&target, wanted),
            None => Ok(()),
        }
    }

    /// Enables the controller that `key` is a file of: rdma, misc and the like are there for those who ask.
    fn enable_for(&self, key: &str, target: &Target<'_>) -> Result<(), CgroupError> {
        let controller = key.split('.').next().unwrap_or_default();
        let offered = match self.hierarchy.unified() {
            Some(mount) => mount.dir.read("cgroup.controllers")?,
            None => String::new(),
        };
        if !offered
            .split_ascii_whitespace()
            .any(|name| name == controller)
        {
            return Err(invalid(
                key,
                "is a file of a controller that this kernel does not offer",
            ));
        }
        self.hierarchy.enable(&self.path, &[controller])?;
        match target.has(key) {
            true => Ok(()),
            false => Err(invalid(key, "is no file that this kernel has")),
        }
    }
}

/// The kernel takes a partition that cannot be, and tells in the same file that it is none (cgroup-v2.rst).
fn refuse_invalid_partition(target: &Target<'_>, wanted: &str) -> Result<(), CgroupError> {
    let held = target.dir.read(PARTITION)?;
    if !held.contains("invalid") {
        return Ok(());
    }
    let hint = format!(
        "the kernel holds it as {:?}; every group above it has to be a partition or, since Linux 6.7, to pass cpuset.cpus.exclusive on",
        held.trim()
    );
    Err(target
        .dir
        .write_error(PARTITION, wanted, hint, Errno::EINVAL))
}

fn invalid(key: &str, reason: &'static str) -> CgroupError {
    CgroupError::InvalidValue {
        field: "unified",
        value: key.chars().take(80).collect(),
        reason,
    }
}
