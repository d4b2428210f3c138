//! A pod's network namespace.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::error::NetworkError;

/// How long a thread waits for memory.
const BEFORE_ANOTHER_TRY: Duration = Duration::from_millis(10);

/// The calling thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace. It lives as long as this, and longer while a process is in it.
#[derive(Debug)]
pub struct Namespace {
    /// As `/proc/<pid>/ns/net`.
    pub file: OwnedFd,
    /// A `NETLINK_ROUTE` socket that was opened inside, and that nobody else uses.
    pub netlink: OwnedFd,
}

impl Namespace {
    /// Makes one, which belongs to the user namespace of the calling process. The calling thread is inside for a moment.
    ///
    /// # Errors
    /// [`NetworkError::Namespace`].
    pub fn make() -> Result<Self, NetworkError> {
        let host = Host::open()?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(failed("make"))?;
        let made = Self::of_thread();
        host.go_back();
        made
    }

    /// The one that the calling thread is in.
    fn of_thread() -> Result<Self, NetworkError> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        );
        Ok(Self {
            file: open_own()?,
            netlink: netlink.map_err(failed("open a netlink socket in"))?,
        })
    }

    /// Does something inside, with the calling thread.
    pub(crate) fn within<T>(
        &self,
        work: impl FnOnce() -> Result<T, NetworkError>,
    ) -> Result<T, NetworkError> {
        let host = Host::open()?;
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(failed("enter"))?;
        let result = work();
        host.go_back();
        result
    }
}

fn open_own() -> Result<OwnedFd, NetworkError> {
    let file = File::open(OWN).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)));
    file.map(Into::into).map_err(failed("open"))
}

/// The namespace of a thread that leaves it for a moment.
struct Host(OwnedFd);

impl Host {
    /// Enters the namespace that the thread is in already: who may not do that, could not go back.
    fn open() -> Result<Self, NetworkError> {
        let host = open_own()?;
        setns(&host, CloneFlags::CLONE_NEWNET).map_err(failed("come back to"))?;
        Ok(Self(host))
    }

    /// Goes back, however long that takes: all that is left to fail is memory (setns(2)), and the thread is of no use elsewhere.
    fn go_back(self) {
        while let Err(errno) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
            tracing::error!(%errno, "a thread cannot leave a pod's network namespace and tries again");
            std::thread::sleep(BEFORE_ANOTHER_TRY);
        }
    }
}

fn failed(action: &'static str) -> impl FnOnce(Errno) -> NetworkError {
    move |errno| NetworkError::Namespace { action, errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_thread_is_where_it_was() {
        let own = || std::fs::metadata(OWN).unwrap().ino();
        let before = own();
        let made = Namespace::make().expect("these tests need root");
        assert_eq!(own(), before);
        let inside = made.within(|| Ok(own())).unwrap();
        assert_eq!(own(), before);
        assert_ne!(inside, before);
        let made = File::from(made.file).metadata().unwrap().ino();
        assert_eq!(made, inside);
    }
}
