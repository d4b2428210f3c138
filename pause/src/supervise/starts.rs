//! Launch and Exec: forks a child, and leaves it to its plan.

use super::births::{Birth, Purpose};
use super::connection::Asker;
use super::processes::{Life, own_group};
use super::source::Source;
use super::{Phase, Supervisor};
use crate::base::Base;
use crate::child::{Entrance, Groups, suits_base};
use crate::fault::{Fault, OrFault};
use crate::launch::{self, Nursery};
use crate::sandbox::{Sandbox, ShmMounts};
use crate::sys::process;
use podwright_pause::plan::{BindSource, LaunchPlan, PidNamespace, Stdio, Step};
use podwright_pause::protocol::{Failure, PlanBytes, Stage};
use podwright_pause::wire::Bytes;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The namespaces that a plan may ask for: a user namespace is the pod's, not a container's.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

fn request(fault: Fault) -> Failure {
    fault.at(Stage::Request)
}

fn refuse(what: &'static str, subject: &[u8], errno: i32) -> Failure {
    request(Fault::new(what, subject, errno))
}

impl Phase {
    /// The sandbox, if it takes new processes.
    fn sandbox(&self) -> Result<&Sandbox, Failure> {
        match self {
            Self::Made(sandbox) => Ok(sandbox),
            Self::New => Err(refuse("sandbox is not made", b"", libc::EINVAL)),
            Self::Leaving(_) | Self::Ending(_) => {
                Err(refuse("pause is shutting down", b"", libc::ESHUTDOWN))
            }
        }
    }
}

impl Supervisor {
    /// Starts a container. `fds`: the plan's memfd, the passed PID namespace, the log with the root or the three streams; each if used.
    pub(super) fn launch(
        &mut self,
        asker: Asker,
        id: Bytes,
        plan: &PlanBytes,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let sandbox = self.phase.sandbox()?;
        let known = self.containers.iter().any(|container| container.id == id)
            || self.births.iter().any(|birth| birth.is_container(&id));
        if known {
            return Err(refuse("container exists", &id.0, libc::EEXIST));
        }
        let plan = launch::decode(plan, asker.version, &mut fds).map_err(request)?;
        check_namespaces(&plan, libc::CLONE_NEWNS)?;
        let passed_namespace = match plan.pid_namespace {
            PidNamespace::Passed if fds.is_empty() => {
                return Err(refuse(
                    "descriptor of the PID namespace",
                    &id.0,
                    libc::EBADF,
                ));
            }
            PidNamespace::Passed => Some(fds.remove(0)),
            _ => None,
        };
        let nursery = Nursery {
            own: self.pid_namespace.as_fd(),
            other: self.pid_namespace_of(&plan, sandbox, passed_namespace.as_ref())?,
        };
        let log = match plan.stdio {
            Stdio::Passed => None,
            Stdio::Log { .. } | Stdio::Terminal if fds.is_empty() => {
                return Err(refuse("descriptor of the log", &id.0, libc::EBADF));
            }
            Stdio::Log { .. } | Stdio::Terminal => Some(File::from(fds.remove(0))),
        };
        let root = match plan.stdio {
            Stdio::Passed => None,
            Stdio::Log { .. } | Stdio::Terminal => fds.pop(),
        };
        let shm = shm_mounts(&plan, sandbox)?;
        let pod = sandbox.user_namespace.as_ref();
        let birth = |fault: Fault| fault.at(Stage::Birth);
        let groups = Groups::open(&plan.cgroup_procs).map_err(birth)?;
        let base = self.base.as_ref().map(Base::fd);
        let base = base.filter(|_| pod.is_none() && suits_base(&plan));
        let entrance = Entrance::Made { shm, base, root };
        let newborn = launch::start(&plan, &groups, entrance, pod, &nursery, fds).map_err(birth)?;
        let serial = self.serials.next();
        self.expect(Birth::new(
            serial,
            newborn,
            asker,
            Purpose::Container { id, log },
        ))
    }

    /// Starts a process in a running container. `fds`: the plan's memfd and the three streams, each if used.
    pub(super) fn exec(
        &mut self,
        asker: Asker,
        exec: u64,
        id: &Bytes,
        plan: &PlanBytes,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let sandbox = self.phase.sandbox()?;
        let plan = launch::decode(plan, asker.version, &mut fds).map_err(request)?;
        check_namespaces(&plan, 0)?;
        if matches!(plan.stdio, Stdio::Log { .. }) {
            return Err(refuse("exec with a log", &id.0, libc::EINVAL));
        }
        let birth = |fault: Fault| fault.at(Stage::Birth);
        let mut containers = self.containers.iter_mut();
        let running = containers.find_map(|container| match &mut container.life {
            Life::Running { pidfd, groups } if container.id == *id => {
                let pidfd: &OwnedFd = pidfd;
                Some((pidfd.as_fd(), groups))
            }
            _ => None,
        });
        let (container, groups) =
            running.ok_or_else(|| refuse("container is not running", &id.0, libc::ESRCH))?;
        groups.change_to(&plan.cgroup_procs).map_err(birth)?;
        let nursery = Nursery {
            own: self.pid_namespace.as_fd(),
            other: Some(container),
        };
        let pod = sandbox.user_namespace.as_ref();
        let entrance = Entrance::Joined { container };
        let newborn = launch::start(&plan, groups, entrance, pod, &nursery, fds).map_err(birth)?;
        let serial = self.serials.next();
        self.expect(Birth::new(
            serial,
            newborn,
            asker,
            Purpose::Exec {
                number: exec,
                group: own_group(&plan),
            },
        ))
    }

    /// Watches for the end of a child's reports, which can wait until then.
    fn expect(&mut self, birth: Birth) -> Result<(), Failure> {
        let watched = self
            .epoll
            .add_idle(birth.report.as_fd(), Source::Birth(birth.serial).token());
        if let Err(fault) = watched.or_fault("epoll_ctl", b"birth") {
            let _ = process::signal(birth.pidfd.as_fd(), libc::SIGKILL);
            return Err(fault.at(Stage::Birth));
        }
        self.births.push(birth);
        Ok(())
    }

    fn pid_namespace_of<'a>(
        &'a self,
        plan: &LaunchPlan,
        sandbox: &'a Sandbox,
        passed: Option<&'a OwnedFd>,
    ) -> Result<Option<BorrowedFd<'a>>, Failure> {
        if plan.new_namespaces & libc::CLONE_NEWPID as u64 != 0 {
            return Ok(None);
        }
        match &plan.pid_namespace {
            PidNamespace::Host => Ok(None),
            PidNamespace::Passed => Ok(passed.map(AsFd::as_fd)),
            PidNamespace::Pod => {
                let init = sandbox
                    .init
                    .as_ref()
                    .ok_or_else(|| refuse("PID namespace of the pod", b"", libc::ESRCH))?;
                Ok(Some(init.pidfd.as_fd()))
            }
            PidNamespace::Container { id } => {
                let container = self
                    .containers
                    .iter()
                    .find(|container| container.id == *id)
                    .and_then(|container| container.pidfd());
                container
                    .map(Some)
                    .ok_or_else(|| refuse("PID namespace of the container", &id.0, libc::ESRCH))
            }
        }
    }
}

fn check_namespaces(plan: &LaunchPlan, needed: i32) -> Result<(), Failure> {
    let (allowed, needed) = (NAMESPACES as u64, needed as u64);
    let allowed = if needed == 0 { 0 } else { allowed };
    if plan.new_namespaces & !allowed != 0 || plan.new_namespaces & needed != needed {
        return Err(refuse("namespaces of the plan", b"", libc::EINVAL));
    }
    Ok(())
}

/// One mount of the pod's /dev/shm for each bind of it.
fn shm_mounts<'a>(plan: &LaunchPlan, sandbox: &'a Sandbox) -> Result<ShmMounts<'a>, Failure> {
    let Some(shm) = &sandbox.shm else {
        return Ok(ShmMounts::Made(Vec::new()));
    };
    let binds = plan.steps.iter().filter(|step| {
        matches!(
            step,
            Step::Bind {
                source: BindSource::PodShm,
                ..
            }
        )
    });
    shm.mounts(binds.count())
        .map_err(|fault| fault.at(Stage::Birth))
}
