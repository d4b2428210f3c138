//! The pod's namespaces, sysctls, /dev/shm and PID-namespace init.

mod init;
mod own_root;
mod shm;
mod user_namespace;

pub(crate) use own_root::leave_for;
pub(crate) use shm::{Shm, ShmMounts, can_be_detached};
pub(crate) use user_namespace::{UserNamespace, become_root};

use crate::child::{Born, Groups};
use crate::fault::{Fault, OrFault};
use crate::procfs;
use crate::sys::mount::FsContext;
use crate::sys::{Errno, process, socket};
use podwright_pause::protocol::{Failure, Missing, PodPid, SandboxPlan, Stage, Sysctl};
use std::os::fd::{AsFd, OwnedFd};

/// What pause holds for its pod besides the namespaces that it is in.
pub(crate) struct Sandbox {
    pub(crate) shm: Option<Shm>,
    /// The shared PID namespace's init, while it lives.
    pub(crate) init: Option<PidInit>,
    /// Its user namespace, if that is not the host's.
    pub(crate) user_namespace: Option<UserNamespace>,
    sysfs: Sysfs,
}

/// The sysfs of the network, which the pod's containers mount: the kernel looks for it among those of all pods (`sget_fc` in
/// fs/super.c), 0.3 ms with a thousand, and finds the newest first.
enum Sysfs {
    /// It is to be made when there is time. Without it, the first container's mount takes that long.
    Wanted,
    /// It is there as long as this.
    Made { _context: FsContext },
    /// The network is the host's, or it cannot be made.
    Absent,
}

/// The init of a shared PID namespace.
pub(crate) struct PidInit {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
}

impl Sandbox {
    /// Makes it, and the descriptors that the daemon needs to set its network up. When this fails, pause is of no more
    /// use: some of its own namespaces may have changed already. `network` is the pod's network namespace if that is there already.
    pub(crate) fn make(
        plan: &SandboxPlan,
        network: Option<OwnedFd>,
        born: Born,
    ) -> Result<(Self, Vec<OwnedFd>), Failure> {
        let at = |fault: Fault| fault.at(Stage::Sandbox);
        let mut kinds = settle(plan, born).map_err(at)?;
        let has_network = kinds & libc::CLONE_NEWNET != 0;
        if let Some(network) = network {
            kinds = join_network(plan, kinds, &network).map_err(at)?;
        }
        let (user_namespace, init) = match &plan.user_namespace {
            Some(mappings) => {
                let (made, init) = user_namespace::make(plan, mappings, kinds)?;
                (Some(made), init)
            }
            None => (None, make_namespaces(plan, kinds).map_err(at)?),
        };
        if !plan.hostname.0.is_empty() {
            process::set_hostname(&plan.hostname.0)
                .or_fault("sethostname", &plan.hostname.0)
                .map_err(at)?;
        }
        let shm = make_shm(plan).map_err(at)?;
        let fds = network_descriptors(kinds).map_err(at)?;
        let sandbox = Self {
            shm,
            init,
            user_namespace,
            sysfs: if has_network {
                Sysfs::Wanted
            } else {
                Sysfs::Absent
            },
        };
        Ok((sandbox, fds))
    }

    /// Whether [`Self::furnish`] has something to do.
    pub(crate) fn is_unfurnished(&self) -> bool {
        matches!(self.sysfs, Sysfs::Wanted)
    }

    /// Makes what containers need and nobody waits for yet.
    pub(crate) fn furnish(&mut self) {
        let made = FsContext::open(b"sysfs").and_then(|context| {
            context.create()?;
            Ok(context)
        });
        self.sysfs = match made {
            Ok(context) => Sysfs::Made { _context: context },
            Err(_) => Sysfs::Absent,
        };
    }
}

/// Joins the cgroups, and checks which namespaces are asked for.
fn settle(plan: &SandboxPlan, born: Born) -> Result<i32, Fault> {
    Groups::open(&plan.cgroup_procs)?.join(born)?;
    if let Some(score) = plan.oom_score_adj {
        procfs::set_own_oom_score(score)?;
    }
    let own = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let kinds = i32::try_from(plan.namespaces).unwrap_or(-1);
    if kinds & !own != 0 {
        return Err(Fault::new("namespaces of the sandbox", b"", libc::EINVAL));
    }
    Ok(kinds)
}

/// Joins a network namespace of the pod's own; the kinds that are still to be made.
fn join_network(plan: &SandboxPlan, kinds: i32, network: &OwnedFd) -> Result<i32, Fault> {
    // That of a pod with a user namespace must belong to it.
    if kinds & libc::CLONE_NEWNET == 0 || plan.user_namespace.is_some() {
        return Err(Fault::new("passed network namespace", b"", libc::EINVAL));
    }
    process::enter_namespaces(network.as_fd(), libc::CLONE_NEWNET)
        .or_fault("setns", b"network namespace")?;
    Ok(kinds & !libc::CLONE_NEWNET)
}

/// Makes them in the host's user namespace.
fn make_namespaces(plan: &SandboxPlan, kinds: i32) -> Result<Option<PidInit>, Fault> {
    process::unshare(kinds).or_fault("unshare", b"")?;
    set_sysctls(&plan.sysctls)?;
    match plan.pid_namespace {
        PodPid::Separate => Ok(None),
        PodPid::Shared => init::start().map(Some),
    }
}

fn make_shm(plan: &SandboxPlan) -> Result<Option<Shm>, Fault> {
    if plan.shm_size == 0 {
        return Ok(None);
    }
    let owner = match &plan.user_namespace {
        Some(mappings) => user_namespace::host_root(mappings)?,
        None => (0, 0),
    };
    let label = plan.shm_label.as_ref();
    let label = label
        .map(|label| str::from_utf8(&label.0))
        .transpose()
        .map_err(|_| Fault::new("label of /dev/shm", b"", libc::EINVAL))?;
    Shm::make(plan.shm_size, owner, label).map(Some)
}

/// What the daemon sets the network up with, if it was made here.
fn network_descriptors(kinds: i32) -> Result<Vec<OwnedFd>, Fault> {
    if kinds & libc::CLONE_NEWNET == 0 {
        return Ok(Vec::new());
    }
    let namespace = std::fs::File::open("/proc/self/ns/net").or_fault("open", b"/proc/self/ns/net");
    let netlink = socket::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
    Ok(vec![
        namespace?.into(),
        netlink.or_fault("socket", b"NETLINK_ROUTE")?,
    ])
}

/// Writes sysctls of the namespaces that this process is in now.
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
