//! The pod's /dev/shm.

use crate::fault::{Fault, OrFault};
use crate::sys::mount::{self, Depth, attributes};
use crate::sys::process;
use std::os::fd::{AsFd, OwnedFd};

/// A tmpfs that containers of the pod share.
pub(crate) struct Shm(OwnedFd);

/// How pause holds it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holding {
    /// By descriptor alone: nothing of it shows on the host.
    Detached,
    /// In a mount namespace of pause's own, for kernels that clone only what is attached (before 6.15).
    Attached,
}

impl Shm {
    /// `size` in bytes; `owner` of its root directory, as the host counts; the SELinux `label` of all in it.
    pub(crate) fn make(size: u64, owner: (u32, u32), label: Option<&str>) -> Result<Self, Fault> {
        let shm = Self::make_held(size, owner, label, Holding::Detached)?;
        if shm.clone_for_bind().is_ok() {
            Ok(shm)
        } else {
            Self::make_held(size, owner, label, Holding::Attached)
        }
    }

    fn make_held(
        size: u64,
        (uid, gid): (u32, u32),
        label: Option<&str>,
        holding: Holding,
    ) -> Result<Self, Fault> {
        let path = b"/dev/shm";
        let (size, uid, gid) = (size.to_string(), uid.to_string(), gid.to_string());
        let mut options = vec![
            ("mode", "1777"),
            ("size", &size),
            ("uid", &uid),
            ("gid", &gid),
        ];
        options.extend(label.map(|label| ("context", label)));
        let attributes = attributes::NOSUID | attributes::NODEV | attributes::NOEXEC;
        let tmpfs = mount::detached_tmpfs(&options, attributes).or_fault("fsmount", path)?;
        if holding == Holding::Attached {
            process::unshare(libc::CLONE_NEWNS).or_fault("unshare", b"mount")?;
            mount::change_propagation(b"/", libc::MS_SLAVE | libc::MS_REC)
                .or_fault("mount", b"/")?;
            let place = mount::mount_point(path).or_fault("openat2", path)?;
            mount::attach(tmpfs.as_fd(), place.as_fd()).or_fault("move_mount", path)?;
        }
        Ok(Self(tmpfs))
    }

    /// A detached mount of it. Made by pause itself: only in the mount namespace that it belongs to can it be cloned.
    pub(crate) fn clone_for_bind(&self) -> Result<OwnedFd, Fault> {
        mount::clone_tree(self.0.as_fd(), Depth::This).or_fault("open_tree", b"/dev/shm")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use super::*;
    use crate::sys::file;

    /// In a thread with a mount namespace of its own: both kinds of holding show one tmpfs to all who bind it.
    fn shares_one_tmpfs(holding: Holding) {
        std::thread::spawn(move || {
            process::unshare(libc::CLONE_NEWNS).unwrap();
            mount::change_propagation(b"/", libc::MS_PRIVATE | libc::MS_REC).unwrap();
            let shm = Shm::make_held(1 << 20, (0, 0), None, holding).unwrap();
            let (one, other) = (shm.clone_for_bind().unwrap(), shm.clone_for_bind().unwrap());
            file::make_directory(one.as_fd(), b"made", 0o700).unwrap();
            assert!(file::stat_entry(other.as_fd(), b"made").is_ok());
            let place = mount::mount_point(b"/tmp").unwrap();
            mount::attach(one.as_fd(), place.as_fd()).unwrap();
            assert!(std::path::Path::new("/tmp/made").is_dir());
            assert_eq!(
                std::path::Path::new("/dev/shm/made").is_dir(),
                holding == Holding::Attached
            );
        })
        .join()
        .unwrap();
    }

    #[test]
    fn held_by_descriptor() {
        shares_one_tmpfs(Holding::Detached);
    }

    #[test]
    fn held_in_a_mount_namespace() {
        shares_one_tmpfs(Holding::Attached);
    }
}
