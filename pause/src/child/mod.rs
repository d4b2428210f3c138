//! What a fresh child does to become a container's process, or a process in a container: it executes its launch plan.
//!
//! The child is a copy of pause, which has one thread, so that any code may run here. It only leaves by execve or _exit:
//! nothing that it shares with pause by descriptor is ever dropped.

mod birth;
mod cgroups;
mod hooks;
mod identity;
mod masks;
mod mounts;
mod nodes;
mod overlay;
mod program;
mod root;
mod sources;
mod stdio;
mod steps;

pub(crate) use birth::namespaces_at_fork;
pub(crate) use cgroups::{Born, Groups};
pub(crate) use sources::suits_base;

use crate::report::Report;
use crate::sandbox::{ShmMounts, UserNamespace};
use crate::sys::{file, process};
use podwright_pause::plan::LaunchPlan;
use podwright_pause::protocol::{Failure, Stage};
use podwright_pause::wire::Wire;
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Which mount namespace the child's program runs in.
pub(crate) enum Entrance<'a> {
    /// One that it makes for itself, by the plan's steps.
    Made {
        /// The pod's /dev/shm, if the plan binds it.
        shm: ShmMounts<'a>,
        /// The namespace of which it is a copy; none: the host's.
        base: Option<BorrowedFd<'a>>,
        /// The container's root as a detached mount, if the daemon has made it.
        root: Option<OwnedFd>,
    },
    /// All namespaces of a running container.
    Joined {
        /// The container's first process.
        container: BorrowedFd<'a>,
    },
}

/// What becomes 0, 1 and 2.
pub(crate) enum Streams {
    /// These.
    Given([OwnedFd; 3]),
    /// A terminal that the child opens.
    Terminal,
}

/// All that a child is born with.
pub(crate) struct Child<'a> {
    pub(crate) plan: &'a LaunchPlan,
    /// Its cgroups.
    pub(crate) groups: &'a Groups,
    pub(crate) born: Born,
    pub(crate) entrance: Entrance<'a>,
    /// The pod's, if that is not the host's.
    pub(crate) user_namespace: Option<&'a UserNamespace>,
    pub(crate) streams: Streams,
    /// Where it tells pause about itself; closed by execve.
    pub(crate) report: OwnedFd,
}

impl<'a> Child<'a> {
    /// Becomes the plan's process, or tells pause why not.
    pub(crate) fn run(mut self) -> ! {
        let Err(failure) = self.become_process();
        // When pause is gone too, nobody is left to be told.
        let _ = file::write_value(self.report.as_fd(), &Report::Failed { failure }.to_bytes());
        process::exit(1)
    }

    fn become_process(&mut self) -> Result<Infallible, Failure> {
        let birth = |fault: crate::fault::Fault| fault.at(Stage::Birth);
        let identity = |fault: crate::fault::Fault| fault.at(Stage::Identity);
        self.close_what_is_not_its_own().map_err(birth)?;
        cgroups::settle(self.plan, self.groups, self.born).map_err(birth)?;
        self.give_streams().map_err(identity)?;
        let (sources, labels) = self.enter()?;
        let report = self.report.as_fd();
        let terminal = steps::execute(self.plan, &self.entrance, sources, report)?;
        stdio::connect(&self.streams, terminal, self.plan.process.uid).map_err(identity)?;
        let seccomp = identity::assume(&self.plan.process, labels)?;
        program::execute(&self.plan.process, seccomp, self.report.as_fd())
    }

    /// Goes where the program will run. With a user namespace, everything before this was done as the host's root, and
    /// everything after it is done as the pod's.
    fn enter(&mut self) -> Result<(sources::Sources<'a>, Option<OwnedFd>), Failure> {
        let birth = |fault: crate::fault::Fault| fault.at(Stage::Birth);
        let none = ShmMounts::Made(Vec::new());
        let (shm, base, root) = match &mut self.entrance {
            Entrance::Made { shm, base, root } => {
                (std::mem::replace(shm, none), *base, root.take())
            }
            Entrance::Joined { .. } => (none, None, None),
        };
        let shm = shm.make().map_err(birth)?;
        let place = match (self.user_namespace, base) {
            (Some(pod), _) => sources::Place::Pod(pod),
            (None, Some(_)) => sources::Place::Base,
            (None, None) => sources::Place::Host,
        };
        let mut sources = sources::Sources::new(shm, place, root);
        let open_labels = || birth::open_labels(&self.plan.process).map_err(birth);
        if let Entrance::Made { .. } = self.entrance {
            sources.make_early(self.plan)?;
        }
        let labels = match (&self.entrance, self.user_namespace) {
            (Entrance::Made { .. }, Some(pod)) => {
                birth::enter_pod(self.plan, pod, self.report.as_fd()).map_err(birth)?;
                open_labels()?
            }
            (entrance, pod) => {
                let labels = open_labels()?;
                birth::enter(self.plan, entrance, pod).map_err(birth)?;
                labels
            }
        };
        Ok((sources, labels))
    }

    /// Lets the program open its streams again by name, while this process may still give them away.
    fn give_streams(&self) -> Result<(), crate::fault::Fault> {
        let uid = self.plan.process.uid;
        let uid = self
            .user_namespace
            .map_or(Some(uid), |pod| pod.host_uid(uid));
        match (&self.streams, uid) {
            (Streams::Given(streams), Some(uid)) => streams
                .iter()
                .try_for_each(|stream| stdio::give_to(stream.as_fd(), uid)),
            _ => Ok(()),
        }
    }

    /// Closes its copies of everything else that pause holds: other containers' pipes, connections, the listener.
    fn close_what_is_not_its_own(&self) -> Result<(), crate::fault::Fault> {
        let mut own = vec![self.report.as_raw_fd()];
        own.extend(self.groups.descriptors());
        match &self.entrance {
            Entrance::Made { shm, base, root } => {
                own.extend(shm.descriptors());
                own.extend(base.map(|base| base.as_raw_fd()));
                own.extend(root.as_ref().map(AsRawFd::as_raw_fd));
            }
            Entrance::Joined { container } => own.push(container.as_raw_fd()),
        }
        own.extend(self.user_namespace.map(|pod| pod.fd().as_raw_fd()));
        if let Streams::Given(streams) = &self.streams {
            own.extend(streams.iter().map(AsRawFd::as_raw_fd));
        }
        own.sort_unstable();
        let mut next = 3;
        for fd in own.into_iter().filter_map(|fd| u32::try_from(fd).ok()) {
            if fd > next {
                close(next, fd - 1)?;
            }
            next = next.max(fd + 1);
        }
        close(next, u32::MAX)
    }
}

fn close(first: u32, last: u32) -> Result<(), crate::fault::Fault> {
    use crate::fault::OrFault;
    file::close_range(first, last, file::CloseRange::Now).or_fault("close_range", b"")
}
