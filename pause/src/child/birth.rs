//! The namespaces that a child makes or enters.

use super::Entrance;
use crate::fault::{Fault, OrFault};
use crate::procfs;
use crate::report::Report;
use crate::sandbox::{UserNamespace, become_root};
use crate::sys::process::Forked;
use crate::sys::{file, process, socket};
use podwright_pause::plan::{LaunchPlan, Process};
use podwright_pause::wire::Wire;
use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The namespaces that the child makes after it has joined its cgroups and, if it does, the pod's user namespace, which
/// then owns them.
const LATE: u64 = (libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP) as u64;

/// The kinds that clone3(2) makes for the child, not the child itself.
pub(crate) fn namespaces_at_fork(
    plan: &LaunchPlan,
    entrance: &Entrance<'_>,
    user_namespace: Option<&UserNamespace>,
) -> u64 {
    match (user_namespace, entrance) {
        (Some(_), _) => 0,
        (None, Entrance::Made { base: Some(_), .. }) => plan.new_namespaces & !LATE,
        (None, _) => plan.new_namespaces & !(libc::CLONE_NEWCGROUP as u64),
    }
}

/// Makes the namespaces of a container that it was not born with, or enters all that a running one has.
pub(super) fn enter(
    plan: &LaunchPlan,
    entrance: &Entrance<'_>,
    user_namespace: Option<&UserNamespace>,
) -> Result<(), Fault> {
    match entrance {
        Entrance::Made {
            base: Some(base), ..
        } => {
            process::enter_namespaces(*base, libc::CLONE_NEWNS).or_fault("setns", b"base")?;
            let kinds = i32::try_from(plan.new_namespaces & LATE).unwrap_or(-1);
            process::unshare(kinds).or_fault("unshare", b"")
        }
        Entrance::Made { base: None, .. }
            if plan.new_namespaces & libc::CLONE_NEWCGROUP as u64 != 0 =>
        {
            process::unshare(libc::CLONE_NEWCGROUP).or_fault("unshare", b"cgroup")
        }
        Entrance::Made { base: None, .. } => Ok(()),
        Entrance::Joined { container } => {
            let own = user_namespace.map_or(0, |_| libc::CLONE_NEWUSER);
            let kinds = libc::CLONE_NEWNS
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWCGROUP;
            process::enter_namespaces(container.as_fd(), own | kinds).or_fault("setns", b"")?;
            user_namespace.map_or(Ok(()), |_| become_root())
        }
    }
}

/// Leaves the host's user namespace for the pod's, and makes there, for the pod's root, the namespaces of a container.
///
/// A PID namespace belongs to the user namespace of the process that makes it, and only a child of that process is born
/// into it. So with a PID namespace of its own the plan goes on in such a child, a sibling to this process, which ends.
pub(super) fn enter_pod(
    plan: &LaunchPlan,
    user_namespace: &UserNamespace,
    report: BorrowedFd<'_>,
) -> Result<(), Fault> {
    process::enter_namespaces(user_namespace.fd(), libc::CLONE_NEWUSER)
        .or_fault("setns", b"user")?;
    become_root()?;
    let kinds = plan.new_namespaces;
    if kinds & libc::CLONE_NEWPID as u64 == 0 {
        let kinds = i32::try_from(kinds & LATE).unwrap_or(-1);
        return process::unshare(kinds).or_fault("unshare", b"");
    }
    let (wait, go) = pipe().or_fault("pipe2", b"")?;
    let kinds = kinds & (LATE | libc::CLONE_NEWPID as u64);
    match process::fork_sibling(kinds).or_fault("clone3", b"")? {
        Forked::Child => take_over(wait, go),
        Forked::Parent { pid, pidfd } => hand_over(pid, &pidfd, &go, report),
    }
}

/// The new process waits until pause can know of it, so that pause cannot miss its end.
fn take_over(wait: PipeReader, go: PipeWriter) -> Result<(), Fault> {
    drop(go);
    let mut word = [0; 1];
    match file::read(wait.as_fd(), &mut word).or_fault("read", b"handover")? {
        0 => process::exit(1),
        _ => Ok(()),
    }
}

fn hand_over(
    pid: u32,
    pidfd: &OwnedFd,
    go: &PipeWriter,
    report: BorrowedFd<'_>,
) -> Result<(), Fault> {
    let handed = Report::HandedOver { pid }.to_bytes();
    socket::send(report, &handed, &[pidfd.as_fd()]).or_fault("sendmsg", b"handover")?;
    file::write_value(go.as_fd(), b"g").or_fault("write", b"handover")?;
    process::exit(0)
}

/// The host's `/proc/thread-self/attr` when the process asks for labels: it must be opened before the container's mounts
/// can come between.
pub(super) fn open_labels(process: &Process) -> Result<Option<OwnedFd>, Fault> {
    if process.apparmor.is_none() && process.selinux.is_none() {
        return Ok(None);
    }
    procfs::open(b"/proc/thread-self/attr", libc::O_PATH | libc::O_DIRECTORY).map(Some)
}
