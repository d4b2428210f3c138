//! pause's side of a start: from a request to a child that executes its plan.

mod plan_bytes;

pub(crate) use plan_bytes::decode;

use crate::child::{Born, Child, Entrance, Groups, Streams, namespaces_at_fork};
use crate::fault::{Fault, OrFault};
use crate::log::StreamName;
use crate::sandbox::UserNamespace;
use crate::sys::process::Forked;
use crate::sys::{Errno, file, process, socket};
use podwright_pause::plan::{LaunchPlan, Stdin, Stdio};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A child that has not told yet how it went.
pub(crate) struct Newborn {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    /// Its reports arrive here.
    pub(crate) report: OwnedFd,
    pub(crate) ends: Ends,
}

/// pause's ends of a child's standard streams.
#[derive(Default)]
pub(crate) struct Ends {
    pub(crate) stdin: Option<Input>,
    pub(crate) outputs: Vec<(StreamName, OwnedFd)>,
}

/// pause's end of a child's stdin.
pub(crate) struct Input {
    /// Does not block: clients that are attached get copies of it.
    pub(crate) writer: OwnedFd,
    /// When it is closed.
    pub(crate) lifetime: Stdin,
}

/// pause's PID namespace for children is another until this is dropped.
struct PidNamespaceGuard<'a> {
    own: BorrowedFd<'a>,
}

impl<'a> PidNamespaceGuard<'a> {
    fn enter(other: BorrowedFd<'_>, own: BorrowedFd<'a>) -> Result<Self, Fault> {
        process::enter_namespaces(other, libc::CLONE_NEWPID).or_fault("setns", b"pid")?;
        Ok(Self { own })
    }
}

impl Drop for PidNamespaceGuard<'_> {
    fn drop(&mut self) {
        // Going back to the namespace that the caller is in itself is always allowed (pid_namespaces(7)).
        let _ = process::enter_namespaces(self.own, libc::CLONE_NEWPID);
    }
}

/// The PID namespace that a child is born into.
pub(crate) struct Nursery<'a> {
    /// pause's own.
    pub(crate) own: BorrowedFd<'a>,
    /// That of the process of this pidfd instead.
    pub(crate) other: Option<BorrowedFd<'a>>,
}

/// Starts a child, which is in `groups` then. `passed` are the descriptors for [`Stdio::Passed`].
pub(crate) fn start(
    plan: &LaunchPlan,
    groups: &Groups,
    entrance: Entrance<'_>,
    user_namespace: Option<&UserNamespace>,
    nursery: &Nursery<'_>,
    passed: Vec<OwnedFd>,
) -> Result<Newborn, Fault> {
    let (report, child_report) = socket::pair().or_fault("socketpair", b"")?;
    let (streams, ends) = connect(&plan.stdio, passed)?;
    let mut child = Child {
        plan,
        groups,
        born: Born::InGroup,
        entrance,
        user_namespace,
        streams,
        report: child_report,
    };
    let guard = nursery
        .other
        .map(|other| PidNamespaceGuard::enter(other, nursery.own))
        .transpose()?;
    let namespaces = namespaces_at_fork(plan, &child.entrance, user_namespace);
    let birthplace = groups.birthplace();
    let born = birthplace.map(|(group, _)| process::fork_into(namespaces, group));
    let (forked, group) = match born {
        // The group is full (pids.max). Nobody is born there, but may move in, so that a command can look around.
        Some(Err(Errno(libc::EAGAIN))) | None => {
            child.born = Born::Elsewhere;
            (process::fork(namespaces), &b""[..])
        }
        Some(forked) => (forked, birthplace.map_or(&b""[..], |(_, path)| path)),
    };
    match forked.or_fault("clone3", group)? {
        Forked::Child => child.run(),
        Forked::Parent { pid, pidfd } => {
            drop(guard);
            Ok(Newborn {
                pid,
                pidfd,
                report,
                ends,
            })
        }
    }
}

fn connect(stdio: &Stdio, passed: Vec<OwnedFd>) -> Result<(Streams, Ends), Fault> {
    match stdio {
        Stdio::Log { stdin } => pipes(stdin).or_fault("pipe2", b""),
        Stdio::Terminal => Ok((Streams::Terminal, Ends::default())),
        Stdio::Passed => {
            let streams = passed
                .try_into()
                .map_err(|_| Fault::new("three descriptors", b"stdio", libc::EBADF))?;
            Ok((Streams::Given(streams), Ends::default()))
        }
    }
}

fn pipes(stdin: &Stdin) -> io::Result<(Streams, Ends)> {
    let (child_in, own_in) = match stdin {
        Stdin::Null => (std::fs::File::open("/dev/null")?.into(), None),
        Stdin::Open | Stdin::Once => {
            let (reader, writer) = io::pipe()?;
            file::set_nonblocking(writer.as_fd()).map_err(as_io)?;
            let input = Input {
                writer: writer.into(),
                lifetime: stdin.clone(),
            };
            (reader.into(), Some(input))
        }
    };
    let (own_out, child_out) = log_pipe()?;
    let (own_err, child_err) = log_pipe()?;
    let outputs = vec![(StreamName::Stdout, own_out), (StreamName::Stderr, own_err)];
    Ok((
        Streams::Given([child_in, child_out, child_err]),
        Ends {
            stdin: own_in,
            outputs,
        },
    ))
}

/// Wanted capacities of a log pipe, the best first: a container need not wait for pause within a burst.
const PIPE_CAPACITIES: [i32; 2] = [1024 * 1024, 256 * 1024];

fn as_io(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.0)
}

fn log_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    file::set_nonblocking(reader.as_fd()).map_err(as_io)?;
    // What the machine does not grant (/proc/sys/fs/pipe-max-size) is done without.
    let _ = PIPE_CAPACITIES
        .iter()
        .find(|&&bytes| file::set_pipe_capacity(reader.as_fd(), bytes).is_ok());
    Ok((reader.into(), writer.into()))
}
