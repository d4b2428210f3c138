//! A mount namespace with next to nothing in it, of which those of containers are copies.
//!
//! A copy of the host's costs a mount for each that the host has, of which a node with many volumes has thousands; leaving its tree
//! costs a grace period of RCU (umount2(2)) and a look at every thread of the machine (pivot_root(2)), and until then it holds mounts that
//! the host would unmount. A copy of this one has a single mount, and what a container's tree is made of is mounted over it.

use crate::fault::{Fault, OrFault};
use crate::sandbox::leave_for;
use crate::sys::mount::{self, FsContext, attributes};
use crate::sys::process::{self, Forked};
use crate::sys::{Result, event, file};
use std::fs::File;
use std::io::{PipeWriter, Read as _, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The namespace, which lives as long as somebody holds this.
pub(crate) struct Base(OwnedFd);

impl Base {
    /// Makes it. None where it would be of no use: before Linux 6.7, overlayfs takes relative names of layers from mount(2) alone, and so
    /// only in a mount namespace where the host's tree is.
    pub(crate) fn make() -> std::result::Result<Option<Self>, Fault> {
        if !overlay_takes_layers_one_by_one() {
            return Ok(None);
        }
        let (mut ready, tell) = pipe().or_fault("pipe2", b"base")?;
        match process::fork(libc::CLONE_NEWNS as u64).or_fault("clone3", b"base")? {
            Forked::Child => empty(&tell),
            Forked::Parent { pid, pidfd } => {
                drop(tell);
                let told = ready.read_exact(&mut [0]);
                let namespace = File::open(format!("/proc/{pid}/ns/mnt"));
                let _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
                process::reap_blocking();
                told.or_fault("read", b"base")?;
                let namespace = namespace.or_fault("open", b"/proc/PID/ns/mnt")?;
                Ok(Some(Self(namespace.into())))
            }
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn overlay_takes_layers_one_by_one() -> bool {
    FsContext::open(b"overlay").is_ok_and(|context| {
        // Before Linux 6.5, overlayfs is told of its options when it is mounted, so that any are taken until then.
        context.set(b"lowerdir+", Some(b"/")).is_ok()
            && context.set(b"podwright", Some(b"none")).is_err()
    })
}

/// What the first process in the namespace does. It lives until the namespace has been opened.
fn empty(tell: &PipeWriter) -> ! {
    let emptied = root()
        .or_fault("fsmount", b"base")
        .and_then(|root| leave_for(root.as_fd()));
    if emptied.is_ok() && file::write_value(tell.as_fd(), b"r").is_ok() {
        event::sleep_for_ever()
    }
    process::exit(1)
}

/// The one mount: /dev/null, which may hide paths, and nothing else.
fn root() -> Result<OwnedFd> {
    let options = [("size", "4096"), ("nr_inodes", "3"), ("mode", "0555")];
    let root = mount::detached_tmpfs(&options, attributes::NOSUID | attributes::NOEXEC)?;
    let directory = libc::O_PATH | libc::O_DIRECTORY;
    file::make_directory(root.as_fd(), b"dev", 0o555)?;
    let dev = file::openat2(root.as_fd(), b"dev", directory, 0, 0)?;
    let kind = libc::S_IFCHR | 0o666;
    file::make_node(dev.as_fd(), b"null", kind, libc::makedev(1, 3))?;
    mount::add_attributes(root.as_fd(), attributes::RDONLY, mount::Depth::This)?;
    Ok(root)
}
