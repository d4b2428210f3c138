//! The pod's namespaces, sysctls, /dev/shm and PID-namespace init.

mod init;
mod shm;

pub(crate) use shm::Shm;

use crate::child::join_cgroup;
use crate::fault::{Fault, OrFault};
use crate::procfs;
use crate::sys::{Errno, process, socket};
use podwright_pause::protocol::{Missing, PodPid, SandboxPlan, Sysctl};
use std::os::fd::{AsFd, OwnedFd};

/// What pause holds for its pod besides the namespaces that it is in.
pub(crate) struct Sandbox {
    pub(crate) shm: Option<Shm>,
    /// The shared PID namespace's init, while it lives.
    pub(crate) init: Option<PidInit>,
}

/// The init of a shared PID namespace.
pub(crate) struct PidInit {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
}

impl Sandbox {
    /// Makes it, and the descriptors that the daemon needs to set its network up. When this fails, pause is of no more
    /// use: some of its own namespaces may have changed already.
    pub(crate) fn make(plan: &SandboxPlan) -> Result<(Self, Vec<OwnedFd>), Fault> {
        for procs in &plan.cgroup_procs {
            join_cgroup(&procs.0)?;
        }
        if let Some(score) = plan.oom_score_adj {
            procfs::set_own_oom_score(score)?;
        }
        let own = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let kinds = i32::try_from(plan.namespaces).unwrap_or(-1);
        if kinds & !own != 0 {
            return Err(Fault::new("namespaces of the sandbox", b"", libc::EINVAL));
        }
        process::unshare(kinds).or_fault("unshare", b"")?;
        if !plan.hostname.0.is_empty() {
            process::set_hostname(&plan.hostname.0).or_fault("sethostname", &plan.hostname.0)?;
        }
        set_sysctls(&plan.sysctls)?;
        let shm = (plan.shm_size > 0)
            .then(|| Shm::make(plan.shm_size))
            .transpose()?;
        let init = match plan.pid_namespace {
            PodPid::Separate => None,
            PodPid::Shared => Some(init::start()?),
        };
        let mut fds = Vec::new();
        if kinds & libc::CLONE_NEWNET != 0 {
            fds.push(
                std::fs::File::open("/proc/self/ns/net")
                    .or_fault("open", b"/proc/self/ns/net")?
                    .into(),
            );
            let netlink = socket::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
            fds.push(netlink.or_fault("socket", b"NETLINK_ROUTE")?);
        }
        Ok((Self { shm, init }, fds))
    }
}

/// Writes sysctls of the namespaces that pause is in now.
fn set_sysctls(sysctls: &[Sysctl]) -> Result<(), Fault> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let root = procfs::open(b"/proc/sys", libc::O_PATH | libc::O_DIRECTORY)?;
    for sysctl in sysctls {
        match procfs::open_beneath(root.as_fd(), &sysctl.path.0, libc::O_WRONLY) {
            Err(Fault {
                errno: Errno(libc::ENOENT),
                ..
            }) if sysctl.missing == Missing::Ignored => {}
            Err(fault) => return Err(fault),
            Ok(file) => crate::sys::file::write_value(file.as_fd(), &sysctl.value.0)
                .or_fault("write", &sysctl.path.0)?,
        }
    }
    Ok(())
}
