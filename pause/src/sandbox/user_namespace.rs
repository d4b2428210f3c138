//! The pod's user namespace.
//!
//! A namespace belongs to the user namespace of whoever makes it, so a child of pause makes them all: with clone3(2) it
//! is born into a new user namespace that owns the new ones beside it. pause then joins those but keeps its own user
//! namespace, the host's: what is left to do for the pod needs the host's root, and no process of the pod may reach pause.

use super::{PidInit, init, set_sysctls};
use crate::fault::{Fault, OrFault};
use crate::procfs;
use crate::report::Report;
use crate::sys::process::{self, Forked};
use crate::sys::{Errno, file, socket};
use podwright_pause::mapping::{IdMappings, IdRange, map_file, outside};
use podwright_pause::protocol::{Failure, PodPid, SandboxPlan, Stage};
use podwright_pause::wire::Wire;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A user namespace with all ids that it will ever map.
pub(crate) struct UserNamespace {
    fd: OwnedFd,
    mappings: IdMappings,
}

impl UserNamespace {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The host's id of a user inside.
    pub(crate) fn host_uid(&self, uid: u32) -> Option<u32> {
        outside(&self.mappings.uids, uid)
    }

    /// The host's ids of the root inside.
    pub(crate) fn host_root(&self) -> Result<(u32, u32), Fault> {
        host_root(&self.mappings)
    }
}

/// The host's ids of a namespace's root.
pub(super) fn host_root(mappings: &IdMappings) -> Result<(u32, u32), Fault> {
    let root = outside(&mappings.uids, 0).zip(outside(&mappings.gids, 0));
    root.ok_or_else(|| Fault::new("id mappings without root", b"", libc::EINVAL))
}

/// Makes a user namespace and in it the other `kinds`, with the init of a PID namespace if the pod's containers share one.
/// pause joins `kinds`.
pub(super) fn make(
    plan: &SandboxPlan,
    mappings: &IdMappings,
    kinds: i32,
) -> Result<(UserNamespace, Option<PidInit>), Failure> {
    let at = |fault: Fault| fault.at(Stage::Sandbox);
    let (own, founder_end) = socket::pair().or_fault("socketpair", b"").map_err(at)?;
    let shared = match plan.pid_namespace {
        PodPid::Separate => 0,
        PodPid::Shared => libc::CLONE_NEWPID | libc::CLONE_NEWNS,
    };
    let forked = process::fork((libc::CLONE_NEWUSER | kinds | shared) as u64);
    match forked.or_fault("clone3", b"user namespace").map_err(at)? {
        Forked::Child => {
            // Its copy of pause's end: were it open, pause's death would not be told.
            drop(own);
            found(plan, founder_end.as_fd())
        }
        Forked::Parent { pid, pidfd } => {
            drop(founder_end);
            let fd = settle(pid, pidfd.as_fd(), mappings, kinds).map_err(at)?;
            file::write_value(own.as_fd(), b"mapped")
                .or_fault("write", b"user namespace")
                .map_err(at)?;
            hear(own.as_fd())?;
            let mappings = mappings.clone();
            let init = (shared != 0).then_some(PidInit { pid, pidfd });
            Ok((UserNamespace { fd, mappings }, init))
        }
    }
}

/// Writes the mappings, which only a process outside may do, and joins the namespaces.
fn settle(
    pid: u32,
    pidfd: BorrowedFd<'_>,
    mappings: &IdMappings,
    kinds: i32,
) -> Result<OwnedFd, Fault> {
    let map = |file: &str, ranges: &[IdRange]| {
        let path = format!("/proc/{pid}/{file}").into_bytes();
        let map = procfs::open(&path, libc::O_WRONLY)?;
        file::write_value(map.as_fd(), map_file(ranges).as_bytes()).or_fault("write", &path)
    };
    map("uid_map", &mappings.uids)?;
    map("gid_map", &mappings.gids)?;
    let path = format!("/proc/{pid}/ns/user");
    let fd = std::fs::File::open(&path).or_fault("open", path.as_bytes())?;
    if kinds != 0 {
        process::enter_namespaces(pidfd, kinds).or_fault("setns", b"pod")?;
    }
    Ok(fd.into())
}

/// How it went for the child.
fn hear(founder: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut packet = [0; 2048];
    let length = loop {
        match file::read(founder, &mut packet) {
            Err(Errno(libc::EINTR)) => {}
            read => {
                break read
                    .or_fault("read", b"user namespace")
                    .map_err(|fault| fault.at(Stage::Sandbox))?;
            }
        }
    };
    match Report::from_bytes(&packet[..length]) {
        Ok(Report::Executing) => Ok(()),
        Ok(Report::Failed { failure }) => Err(failure),
        _ => Err(Fault::new("child", b"user namespace", libc::ECHILD).at(Stage::Sandbox)),
    }
}

/// The child: sets what only the namespaces' own root may set, and stays as the PID namespace's init or ends.
fn found(plan: &SandboxPlan, pause: BorrowedFd<'_>) -> ! {
    let report = match furnish(plan, pause) {
        Ok(()) => Report::Executing,
        Err(fault) => Report::Failed {
            failure: fault.at(Stage::Sandbox),
        },
    };
    let told = file::write_value(pause, &report.to_bytes());
    if told.is_ok() && report == Report::Executing && plan.pid_namespace == PodPid::Shared {
        init::become_init()
    }
    process::exit(0)
}

fn furnish(plan: &SandboxPlan, pause: BorrowedFd<'_>) -> Result<(), Fault> {
    let mut word = [0; 16];
    match file::read(pause, &mut word).or_fault("read", b"pause")? {
        0 => return Err(Fault::new("read", b"pause", libc::ECHILD)),
        _ => become_root()?,
    }
    // "ipc_permissions: the owner is the IPC namespace's root" (ipc/ipc_sysctl.c, Linux 5.19): the host's may not write.
    set_sysctls(&plan.sysctls)
}

/// Becomes the root of the user namespace that this process is in. Until then it has the ids of the host's root, which the
/// namespace does not map: whatever it made would belong to nobody.
pub(crate) fn become_root() -> Result<(), Fault> {
    process::set_groups(&[]).or_fault("setgroups", b"")?;
    process::set_gid(0).or_fault("setresgid", b"0")?;
    process::set_uid(0).or_fault("setresuid", b"0")
}
