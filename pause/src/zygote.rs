//! pause before it has a pod: one process per daemon, which copies itself for each new pod, so that no pod waits for execve(2) and
//! all share what pages they do not change. It ends with the daemon.

use crate::base::Base;
use crate::child::Born;
use crate::fault::{Fault, OrFault};
use crate::sys::event::Epoll;
use crate::sys::process::Forked;
use crate::sys::{Errno, Result, file, process, socket};
use podwright_pause::birth::{Birth, MAX_ORDER};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A pause that was born just now.
pub(crate) struct Newborn {
    /// The pod's.
    pub(crate) listener: OwnedFd,
    pub(crate) born: Born,
    /// The pod's id.
    pub(crate) pod: Vec<u8>,
    pub(crate) base: Option<Base>,
}

/// What a pause is ordered with.
struct Order {
    pod: Vec<u8>,
    listener: OwnedFd,
    group: Option<OwnedFd>,
}

/// Serves the daemon's orders until it is gone, and then gives nothing; gives each newborn, in its own process.
pub(crate) fn serve() -> std::result::Result<Option<Newborn>, Fault> {
    let daemon = file::standard(0);
    let epoll = Epoll::new().or_fault("epoll_create1", b"zygote")?;
    epoll.add(daemon, 0).or_fault("epoll_ctl", b"zygote")?;
    let base = Base::make().unwrap_or_else(|fault| {
        // Containers begin with the host's tree then, which takes longer.
        fault.tell();
        None
    });
    // Learned here for all that are born.
    crate::sandbox::can_be_detached();
    loop {
        epoll.wait(-1);
        let order = match receive(daemon) {
            Err(Errno(libc::EAGAIN | libc::EINTR)) => continue,
            received => received.or_fault("recvmsg", b"zygote")?,
        };
        let Some(order) = order else {
            return Ok(None);
        };
        let birth = match order.bear() {
            Ok((Forked::Child, born)) => {
                return Ok(Some(Newborn {
                    listener: order.listener,
                    born,
                    pod: order.pod,
                    base,
                }));
            }
            Ok((Forked::Parent { pid, .. }, _)) => Birth::Born { pid },
            Err(Errno(errno)) => Birth::Failed { errno },
        };
        socket::send(daemon, &birth.to_bytes(), &[]).or_fault("sendmsg", b"zygote")?;
    }
}

/// The next order; none when the daemon is gone.
fn receive(daemon: BorrowedFd<'_>) -> Result<Option<Order>> {
    let mut packet = [0; MAX_ORDER];
    let received = socket::receive(daemon, &mut packet)?;
    if received.length == 0 {
        return Ok(None);
    }
    let mut descriptors = received.fds.into_iter();
    match (received.truncated, descriptors.next()) {
        (false, Some(listener)) => Ok(Some(Order {
            pod: packet[..received.length].to_vec(),
            listener,
            group: descriptors.next(),
        })),
        _ => Err(Errno(libc::EBADMSG)),
    }
}

impl Order {
    /// A child of the daemon's, which reaps it; in the pod's group from its first moment, if that takes it. If it does not, joining
    /// it says why when the sandbox is made.
    fn bear(&self) -> Result<(Forked, Born)> {
        if let Some(group) = &self.group
            && file::filesystem(group.as_fd()) == Ok(file::CGROUP2_SUPER_MAGIC)
            && let Ok(forked) = process::fork_sibling_into(group.as_fd())
        {
            return Ok((forked, Born::InGroup));
        }
        Ok((process::fork_sibling(0)?, Born::Elsewhere))
    }
}
