//! The pod's /dev/shm.

use super::own_root;
use crate::fault::{Fault, OrFault};
use crate::sys::mount::{self, Depth, attributes};
use crate::sys::process;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

const PATH: &[u8] = b"/dev/shm";
/// The size of one that is only tried, in bytes.
const PAGE: u64 = 4096;
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/mnt";

/// A tmpfs that containers of the pod share. Nothing of it shows on the host, and pause stays in the host's mount namespace:
/// a container's mounts are peers of the host's only when they were made there.
pub(crate) enum Shm {
    /// Held by descriptor alone, and cloned by pause: only in the mount namespace where it was made can it be.
    Detached(OwnedFd),
    /// Attached in a mount namespace that has nothing else, for kernels that clone only what is attached in the mount
    /// namespace of the process (before 6.15): who needs a clone enters it.
    Attached { tmpfs: OwnedFd, namespace: OwnedFd },
}

/// A child's mounts of it, one for each bind.
pub(crate) enum ShmMounts<'a> {
    /// Made by pause.
    Made(Vec<OwnedFd>),
    /// So many, to be made by the child. It is left in the wrong mount namespace if it cannot return, pause is not.
    ToMake {
        tmpfs: BorrowedFd<'a>,
        namespace: BorrowedFd<'a>,
        count: usize,
    },
}

impl Shm {
    /// `size` in bytes; `owner` of its root directory, as the host counts; the SELinux `label` of all in it.
    pub(crate) fn make(size: u64, owner: (u32, u32), label: Option<&str>) -> Result<Self, Fault> {
        let tmpfs = tmpfs(size, owner, label)?;
        if can_be_detached() {
            Ok(Self::Detached(tmpfs))
        } else {
            Self::attached(tmpfs)
        }
    }

    /// When this fails, this process may be left in another mount namespace.
    fn attached(tmpfs: OwnedFd) -> Result<Self, Fault> {
        let own = own_namespace()?;
        process::unshare(libc::CLONE_NEWNS).or_fault("unshare", b"mount")?;
        let namespace = own_namespace()?;
        own_root::leave_for(tmpfs.as_fd())?;
        enter(own.as_fd())?;
        Ok(Self::Attached { tmpfs, namespace })
    }

    /// `count` mounts of it for a child.
    pub(crate) fn mounts(&self, count: usize) -> Result<ShmMounts<'_>, Fault> {
        match self {
            Self::Detached(tmpfs) => clones(tmpfs.as_fd(), count).map(ShmMounts::Made),
            Self::Attached { tmpfs, namespace } => Ok(ShmMounts::ToMake {
                tmpfs: tmpfs.as_fd(),
                namespace: namespace.as_fd(),
                count,
            }),
        }
    }
}

impl ShmMounts<'_> {
    /// What a child needs for them.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::Made(made) => made.iter().map(AsRawFd::as_raw_fd).collect(),
            Self::ToMake {
                tmpfs, namespace, ..
            } => vec![tmpfs.as_raw_fd(), namespace.as_raw_fd()],
        }
    }

    /// The mounts, detached.
    pub(crate) fn make(self) -> Result<Vec<OwnedFd>, Fault> {
        match self {
            Self::Made(made) => Ok(made),
            Self::ToMake { count: 0, .. } => Ok(Vec::new()),
            Self::ToMake {
                tmpfs,
                namespace,
                count,
            } => {
                let own = own_namespace()?;
                enter(namespace)?;
                let made = clones(tmpfs, count)?;
                enter(own.as_fd())?;
                Ok(made)
            }
        }
    }
}

/// Whether the kernel clones what is attached nowhere. The zygote learns it for all that are born from it: whoever drops a clone waits
/// for a grace period of RCU.
pub(crate) fn can_be_detached() -> bool {
    static LEARNED: OnceLock<bool> = OnceLock::new();
    *LEARNED.get_or_init(|| {
        let tried = tmpfs(PAGE, (0, 0), None).and_then(|tmpfs| clones(tmpfs.as_fd(), 1));
        tried.is_ok()
    })
}

fn tmpfs(size: u64, (uid, gid): (u32, u32), label: Option<&str>) -> Result<OwnedFd, Fault> {
    let (size, uid, gid) = (size.to_string(), uid.to_string(), gid.to_string());
    let mut options = vec![
        ("mode", "1777"),
        ("size", &size),
        ("uid", &uid),
        ("gid", &gid),
    ];
    options.extend(label.map(|label| ("context", label)));
    let attributes = attributes::NOSUID | attributes::NODEV | attributes::NOEXEC;
    mount::detached_tmpfs(&options, attributes).or_fault("fsmount", PATH)
}

fn clones(tmpfs: BorrowedFd<'_>, count: usize) -> Result<Vec<OwnedFd>, Fault> {
    let clone = |_| mount::clone_tree(tmpfs, Depth::This).or_fault("open_tree", PATH);
    (0..count).map(clone).collect()
}

fn own_namespace() -> Result<OwnedFd, Fault> {
    let file = File::open(OWN_NAMESPACE).or_fault("open", OWN_NAMESPACE.as_bytes())?;
    Ok(file.into())
}

/// Root and working directory become the namespace's root, setns(2).
fn enter(namespace: BorrowedFd<'_>) -> Result<(), Fault> {
    process::enter_namespaces(namespace, libc::CLONE_NEWNS).or_fault("setns", b"mount")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use super::*;
    use crate::sys::file;

    /// In a thread with a mount namespace of its own: both kinds of holding show one tmpfs to all who bind it, and nobody
    /// else, and leave the thread where it was.
    fn shares_one_tmpfs(hold: fn(OwnedFd) -> Result<Shm, Fault>) {
        std::thread::spawn(move || {
            process::unshare(libc::CLONE_NEWNS).unwrap();
            mount::change_propagation(b"/", libc::MS_PRIVATE | libc::MS_REC).unwrap();
            let namespace = || std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
            let before = namespace();
            let shm = hold(tmpfs(1 << 20, (0, 0), None).unwrap());
            let shm = shm.map_err(|fault| fault.errno).unwrap();
            let mounts = |count| shm.mounts(count).and_then(ShmMounts::make);
            let mut made = mounts(2).map_err(|fault| fault.errno).unwrap();
            let (one, other) = (made.pop().unwrap(), made.pop().unwrap());
            file::make_directory(one.as_fd(), b"made", 0o700).unwrap();
            assert!(file::stat_entry(other.as_fd(), b"made").is_ok());
            assert_eq!(namespace(), before);
            assert!(!std::path::Path::new("/dev/shm/made").is_dir());
            let place = mount::mount_point(b"/tmp").unwrap();
            mount::attach(one.as_fd(), place.as_fd()).unwrap();
            assert!(std::path::Path::new("/tmp/made").is_dir());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn held_by_descriptor() {
        shares_one_tmpfs(|tmpfs| Ok(Shm::Detached(tmpfs)));
    }

    #[test]
    fn held_in_a_mount_namespace() {
        shares_one_tmpfs(Shm::attached);
    }
}
