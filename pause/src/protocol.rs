//! The protocol on a pod's socket: a unix SOCK_SEQPACKET connection, one message per packet, descriptors by SCM_RIGHTS.
//!
//! The daemon asks, pause answers each request once with the request's number; exits are told as they happen and again
//! on every [`Request::List`] until they are forgotten. A request never waits behind another container's work.
//!
//! # Versions
//! The first message on a connection is [`Request::Hello`], in [`Version::FIRST`]; what follows its answer is in the version
//! that both speak, in both directions ([`crate::version`]). So a newer daemon serves pods that an older one made, and an
//! older one, after a downgrade, those of a newer one.

use crate::mapping::IdMappings;
use crate::version::Version;
use crate::wire::{Bytes, DecodeError, Reader, Schema, Wire, Writer};
use crate::{wire_enum, wire_struct};

/// The largest packet on the socket, in bytes. What is bigger travels in a sealed memfd.
pub const MAX_PACKET: usize = 64 * 1024;

/// The largest launch plan, in bytes: argv and environment are bounded by the kernel to less.
pub const MAX_PLAN: usize = 8 * 1024 * 1024;

/// The most descriptors that travel with one message.
pub const MAX_DESCRIPTORS: usize = 8;

/// The name of a cgroup that an exec has for itself begins with this.
pub const EXEC_GROUP: &str = "exec-";

/// What `Failed` names as its call when it answers a `Hello` of a daemon that is too old; its subject is what pause speaks.
pub const REFUSED_VERSION: &str = "protocol version";

/// Matches an answer to its request. 0 is for what nobody asked for: [`Answer::Exited`].
pub type RequestId = u64;

/// A message on the socket, with the number of the request that it is or answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<T> {
    /// The request's number.
    pub id: RequestId,
    /// What is asked or answered.
    pub body: T,
}

impl<T: Wire> Wire for Message<T> {
    fn put(&self, out: &mut Writer) {
        self.id.put(out);
        self.body.put(out);
    }
    fn describe(schema: &mut Schema) -> String {
        let body = T::describe(schema);
        if !schema.begin("Message") {
            schema.add("Message", 1, "id: u64".to_owned());
            schema.add("Message", 1, "body".to_owned());
        }
        format!("Message of {body}")
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: Wire::get(from)?,
            body: Wire::get(from)?,
        })
    }
}

wire_enum! {
    /// What the daemon asks of pause.
    Request {
        /// Opens the conversation. Answer: `Hello`, or `Failed` with EPROTONOSUPPORT when pause speaks no version that is so old.
        1 => Hello {
            /// The newest version that the daemon speaks.
            version: Version,
        },
        /// Makes the sandbox: the first thing asked of a new pause, once. A network namespace of the pod's own is passed as a
        /// descriptor, or made when none is. Answer: `Ready`, with the descriptor of one that was made and a NETLINK_ROUTE socket
        /// inside.
        2 => Init {
            /// What to make.
            sandbox: SandboxPlan,
        },
        /// Starts a container. The log file's descriptor is passed when the plan logs, and after it the container's root, a detached mount
        /// of what [`crate::plan::Step::OverlayRoot`] says, if the daemon has made it; who cannot use that mounts the step's. Answer: `Launched`
        /// or `Failed`. It does not begin when the connection closes before its program is executed.
        3 => Launch {
            /// The container's id.
            container: Bytes,
            /// The plan.
            plan: PlanBytes,
        },
        /// Starts a process in a running container. Answer: `Launched` or `Failed`; its exit is told as `Exited`, once. When
        /// the connection closes it is killed, with all that is in a cgroup of its own ([`EXEC_GROUP`]).
        4 => Exec {
            /// The daemon's number for it, unique in the pod.
            exec: u64,
            /// The container's id.
            container: Bytes,
            /// The plan.
            plan: PlanBytes,
        },
        /// Sends a signal to a container's or exec's first process. Answer: `Done`, or `Failed` with ESRCH when it has exited.
        5 => Signal {
            /// Whom.
            target: Target,
            /// The signal's number.
            signal: i32,
        },
        /// Replaces the log file by the passed descriptor; everything read before is written to the old one. Answer: `Done`.
        6 => ReopenLog {
            /// The container's id.
            container: Bytes,
        },
        /// Sets a terminal's size. Answer: `Done`.
        7 => Resize {
            /// Whose.
            target: Target,
            /// Rows.
            rows: u16,
            /// Columns.
            columns: u16,
        },
        /// Tells of every container, exited ones too. Answer: `Containers`.
        8 => List,
        /// Drops the record of an exited container. Answer: `Done`.
        9 => Forget {
            /// The container's id.
            container: Bytes,
        },
        /// Makes a socket in the pod's network namespace. Answer: `Done` with the descriptor.
        10 => Socket {
            /// `AF_*`.
            domain: i32,
            /// `SOCK_*`.
            kind: i32,
            /// `IPPROTO_*` or netlink family.
            protocol: i32,
        },
        /// Kills everything and ends pause. Answer: the connection closes.
        11 => Shutdown,
        /// Attaches a client to a running container: what its streams say from now on goes to the client as well as to the
        /// log. For each asked output one end of a stream socket pair is passed, stdout first; a terminal has stdout only.
        /// Answer: `Done`, with a descriptor to write stdin to (the pipe's end, which does not block, or the terminal's
        /// master) if it is asked and still open, and not another client's: open once is open for one.
        12 => Attach {
            /// The container's id.
            container: Bytes,
            /// The daemon's number for the client, unique on its connection.
            client: u64,
            /// Whether stdin's descriptor comes back.
            stdin: StreamChoice,
            /// Whether a socket for stdout is passed.
            stdout: StreamChoice,
            /// Whether a socket for stderr is passed.
            stderr: StreamChoice,
        },
        /// The client's stdin has ended, and the client is still attached: [`crate::plan::Stdin::Once`] ends with it. Answer: `Done`.
        13 => EndStdin {
            /// The daemon's number for the client.
            client: u64,
        },
        /// The client is gone: its stdin has ended, and its sockets are closed. So is every client of a connection that
        /// closes. Answer: `Done`, also for a client that is not attached (any more).
        14 => Detach {
            /// The daemon's number for the client.
            client: u64,
        },
        /// What no released version has: tests show by it that a message is sent to nobody who does not know it.
        /// Answer: `Rehearsed`.
        #[cfg(feature = "next-protocol")]
        200 [since 3] => Rehearse {
            /// Comes back.
            text: Bytes,
        },
    }
}

wire_enum! {
    /// Whether a client is attached to a stream.
    StreamChoice {
        /// It is not.
        1 => Absent,
        /// It is.
        2 => Asked,
    }
}

wire_enum! {
    /// A plan in its message, or in the first passed descriptor, a sealed memfd.
    PlanBytes {
        /// The encoded plan.
        1 => Inline {
            /// As [`crate::plan::LaunchPlan`] encodes.
            plan: Bytes,
        },
        /// In a memfd sealed against writing and shrinking.
        2 => Memfd {
            /// Its length in bytes, at most [`MAX_PLAN`].
            length: u32,
        },
    }
}

wire_struct! {
    /// What [`Request::Init`] makes.
    SandboxPlan {
        /// The pod's id: what `ps` shows.
        pod: Bytes,
        /// `CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS` bits: the namespaces that the pod does not share with the host.
        namespaces: u64,
        /// The groups that pause is in, as a launch plan's.
        cgroup_procs: Vec<Bytes>,
        /// Written to pause's own /proc/self/oom_score_adj.
        oom_score_adj: Option<i32>,
        /// Set in the pod's UTS namespace; empty leaves it.
        hostname: Bytes,
        /// Files below /proc/sys and what is written to them, in the pod's namespaces, on a verified procfs.
        sysctls: Vec<Sysctl>,
        /// The size of the pod's /dev/shm in bytes; 0 for none.
        shm_size: u64,
        /// Whether the pod's containers share a PID namespace, which then gets an init.
        pid_namespace: PodPid,
        /// The pod's user namespace, which then owns all of the pod's other ones, and which its containers join; none is
        /// the host's.
        user_namespace: Option<IdMappings>,
        /// The SELinux label of what is in the pod's /dev/shm.
        shm_label: Option<Bytes>,
    }
}

wire_enum! {
    /// The pod's PID namespace.
    PodPid {
        /// Each container has its own, or the host's.
        1 => Separate,
        /// One for all.
        2 => Shared,
    }
}

wire_struct! {
    /// One sysctl.
    Sysctl {
        /// Relative to /proc/sys, with slashes.
        path: Bytes,
        /// Written as is.
        value: Bytes,
        /// What a missing file means.
        missing: Missing,
    }
}

wire_enum! {
    /// What to do about a sysctl that this kernel does not have.
    Missing {
        /// The sandbox fails.
        1 => Fails,
        /// It is passed over (IPv6 settings on a kernel without IPv6).
        2 => Ignored,
    }
}

wire_enum! {
    /// A process that pause started.
    Target {
        /// A container's first process.
        1 => Container {
            /// The container's id.
            id: Bytes,
        },
        /// An exec.
        2 => Exec {
            /// The daemon's number for it.
            exec: u64,
        },
    }
}

wire_enum! {
    /// What pause answers or tells.
    Answer {
        /// To `Hello`.
        1 => Hello {
            /// The version that is spoken from now on: the older one of the daemon's newest and pause's newest.
            version: Version,
            /// Its process id in its own PID namespace, the host's.
            pid: u32,
            /// Whether `Init` was done.
            sandbox: SandboxState,
        },
        /// To `Init`.
        2 => Ready {
            /// The process id of the shared PID namespace's init; 0 for none.
            pid_init: u32,
        },
        /// A process runs its program now.
        3 => Launched {
            /// Its process id in the host's PID namespace.
            pid: u32,
            /// When, in nanoseconds since the epoch.
            at: i64,
        },
        /// Done; nothing to tell.
        4 => Done,
        /// It did not work, and nothing of it is left.
        5 => Failed {
            /// Why.
            failure: Failure,
        },
        /// To `List`.
        6 => Containers {
            /// All that are not forgotten.
            containers: Vec<ContainerEntry>,
        },
        /// A process has ended, and what it wrote is in its log. Not asked for: its number is 0.
        7 => Exited {
            /// Which.
            target: Target,
            /// How.
            exit: Exit,
        },
        /// An attached client did not take what its container said for too long: its sockets are closed, though the
        /// container goes on. Not asked for: its number is 0. Told on the connection that attached the client.
        8 => Dropped {
            /// The daemon's number for the client.
            client: u64,
        },
        /// A container's log has begun to fail or to work again. Not asked for: its number is 0.
        9 [since 2] => Log {
            /// The container's id.
            container: Bytes,
            /// How it is now.
            state: LogState,
        },
        /// To `Rehearse`.
        #[cfg(feature = "next-protocol")]
        200 [since 3] => Rehearsed {
            /// What came with the request.
            text: Bytes,
        },
    }
}

wire_enum! {
    /// Whether a pause has made its sandbox.
    SandboxState {
        /// Not yet; it ends when its first connection closes.
        1 => New,
        /// Yes.
        2 => Made,
    }
}

wire_struct! {
    /// What failed, in a child or in pause.
    Failure {
        /// The part of the plan that failed.
        stage: Stage,
        /// The system call or check, such as `mount` or `execve`.
        call: Bytes,
        /// The path or name that it was for; may be empty.
        subject: Bytes,
        /// What the system said.
        errno: i32,
    }
}

wire_enum! {
    /// Where something failed.
    Stage {
        /// The request did not decode or does not fit the state.
        1 => Request,
        /// Making the sandbox.
        2 => Sandbox,
        /// Making the child or its namespaces, joining cgroups.
        3 => Birth,
        /// A step of the plan.
        4 => Step {
            /// Its index.
            index: u32,
        },
        /// Taking on the process's identity: limits, ids, capabilities, seccomp, labels.
        5 => Identity,
        /// Entering the working directory.
        6 => WorkingDirectory,
        /// Finding or executing the program.
        7 => Program,
    }
}

wire_struct! {
    /// One container as pause knows it.
    ContainerEntry {
        /// Its id.
        id: Bytes,
        /// Its first process's id in the host's PID namespace.
        pid: u32,
        /// When it was started, in nanoseconds since the epoch.
        started_at: i64,
        /// How it ended, if it has.
        exit: Option<Exit>,
        /// How its log is; none when it has been written ever since the container was started.
        [since 2] log: Option<LogState>,
        /// [`REHEARSAL`], in every answer.
        #[cfg(feature = "next-protocol")]
        [since 3] rehearsal: Bytes,
    }
}

/// What the fields hold that only a build for tests has.
#[cfg(feature = "next-protocol")]
pub const REHEARSAL: &str = "what an older version could not decode";

wire_enum! {
    /// Whether what a container says gets into its log.
    LogState {
        /// It is lost for now: the file cannot be written.
        1 [since 2] => Failing {
            /// What the system says.
            errno: i32,
        },
        /// It is written again, after a record that says how much is missing.
        2 [since 2] => Resumed {
            /// The bytes of records that were lost.
            lost: u64,
        },
    }
}

wire_struct! {
    /// The end of a process.
    Exit {
        /// As a shell tells it: the exit code, or 128 + the signal.
        code: i32,
        /// The signal that ended it; 0 for none.
        signal: i32,
        /// When, in nanoseconds since the epoch.
        at: i64,
    }
}
