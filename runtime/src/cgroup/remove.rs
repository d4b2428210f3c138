//! Removing a group and everything below it from every mount.

use nix::errno::Errno;

use super::dir::Dir;
use super::{Cgroup, CgroupError};

impl Cgroup {
    /// Removes the subtree from every mount, children first. What is gone already is fine; a failure in one mount does
    /// not keep the others from being cleaned.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] while processes are in it or leave it: try again later. [`CgroupError::Io`] otherwise.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let mut failure = Ok(());
        for mount in self.hierarchy.mounts() {
            let result = remove_below(&mount.dir, self.path.relative());
            failure = failure.and(result);
        }
        failure
    }
}

fn remove_below(at: &Dir, relative: &str) -> Result<(), CgroupError> {
    match at.rmdir(relative) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        // Both stand for "has children" and EBUSY for "has processes" too.
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
        Err(source) => return Err(at.error("remove cgroup", relative, source)),
    }
    let dir = match at.open(relative) {
        Ok(dir) => dir,
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => return Err(error),
    };
    for child in dir.children()? {
        remove_below(&dir, &child)?;
    }
    match at.rmdir(relative) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => Err(CgroupError::Busy {
            path: dir.path().to_owned(),
        }),
        Err(source) => Err(at.error("remove cgroup", relative, source)),
    }
}
