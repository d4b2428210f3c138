//! Launch plans: what pause's child does, step by step, to become a container's process or an exec in one.
//!
//! A plan is flat data, compiled by the daemon from the container's OCI spec. All policy was decided before; the child
//! only executes. Steps run in their order; the first that fails ends the child, and its index, system call and errno
//! go back to the daemon. Paths in steps are of two kinds: *host* paths are resolved in the host's mount namespace as
//! the daemon sees it; *inside* paths are resolved below the container's root by `openat2(RESOLVE_IN_ROOT)`, never
//! through a magic link, whatever the image or a volume holds (CVE-2021-30465 and its relatives).

use crate::wire::Bytes;
use crate::{wire_enum, wire_struct};

wire_struct! {
    /// Everything that a child does between fork and exec.
    LaunchPlan {
        /// Namespaces that the child gets of its own, as `CLONE_NEW*` bits. `CLONE_NEWNS` is always among those of a
        /// container; `CLONE_NEWPID` is given to clone(2) itself; `CLONE_NEWCGROUP` is unshared after the cgroups are joined.
        new_namespaces: u64,
        /// Whose PID namespace the child is born into, unless it gets its own.
        pid_namespace: PidNamespace,
        /// The groups that the child is in, by files below the host's root into which it writes `0` before anything else: `tasks` of
        /// cgroup v1, `cgroup.procs` of the unified hierarchy, which it is born into instead where that works.
        cgroup_procs: Vec<Bytes>,
        /// Written to /proc/self/oom_score_adj before the namespaces change.
        oom_score_adj: Option<i32>,
        /// The container's root and mounts; empty for an exec, which enters those of its container.
        steps: Vec<Step>,
        /// What is executed at the end, and as whom.
        process: Process,
        /// Where its standard streams go.
        stdio: Stdio,
        /// [`crate::protocol::REHEARSAL`], in every plan.
        #[cfg(feature = "next-protocol")]
        [since 3] rehearsal: Bytes,
    }
}

wire_enum! {
    /// The PID namespace of a child that has none of its own.
    PidNamespace {
        /// The host's: pause's own.
        1 => Host,
        /// The one that the pod's containers share; pause holds its init.
        2 => Pod,
        /// That of another container of this pod.
        3 => Container {
            /// Its id.
            id: Bytes,
        },
        /// That of a process elsewhere, by a pidfd passed with the request.
        4 => Passed,
    }
}

wire_enum! {
    /// One step towards the container's root. The root must be the first; [`Step::Pivot`] ends the inside paths.
    Step {
        /// Sets the propagation of the whole tree of the new mount namespace: `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`, with `MS_REC`.
        1 => TreePropagation {
            /// mount(2) flags.
            flags: u64,
        },
        /// Mounts the container's root file system and opens it as the root of all inside paths that follow.
        2 => OverlayRoot {
            /// Host directory that relative layer names in `options` start from: mount(2) takes a page of options at
            /// most, and short names let more than 200 layers fit.
            layers: Bytes,
            /// `lowerdir=…,upperdir=…,workdir=…` and flags, as mount(2) takes them.
            options: Bytes,
            /// Host directory to mount on; only in the child's mount namespace.
            at: Bytes,
        },
        /// Mounts a file system of its own kind.
        3 => MountFs {
            /// As in /proc/filesystems.
            fstype: Bytes,
            /// Shown as the source in mountinfo.
            source: Bytes,
            /// fsconfig(2) keys; a flag has no value.
            options: Vec<FsOption>,
            /// `MOUNT_ATTR_*` bits for fsmount(2).
            attributes: u64,
            /// Inside path.
            target: Bytes,
            /// Made when it is missing.
            create: Create,
        },
        /// Binds a host path, or what is passed or held by descriptor.
        4 => Bind {
            /// What is bound.
            source: BindSource,
            /// With all that is mounted below it.
            tree: Recursion,
            /// `MOUNT_ATTR_*` bits to set, by mount_setattr(2).
            attributes: u64,
            /// Whether the attributes are set on everything below as well.
            attributes_tree: Recursion,
            /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`; recursive as the bind is.
            propagation: u64,
            /// Inside path.
            target: Bytes,
            /// Made when it is missing, as the source's kind asks.
            create: Create,
            /// Whom its files belong to.
            owners: Owners,
        },
        /// Makes a directory and its missing parents; none of it is an error when it is there.
        5 => Mkdir {
            /// Inside path.
            path: Bytes,
            /// Permission bits of what is made.
            mode: u32,
            /// Owner of what is made.
            uid: u32,
            /// Group of what is made.
            gid: u32,
        },
        /// Makes a device node; a node of the same kind and number that is there is kept. In a user namespace, where
        /// mknod(2) is not allowed, only on the tmpfs at /dev, which is then made before it is entered.
        6 => Device {
            /// Inside path.
            path: Bytes,
            /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO` and permission bits; exact, the umask does not apply.
            mode: u32,
            /// Major number.
            major: u32,
            /// Minor number.
            minor: u32,
            /// Owner, as the host counts.
            uid: u32,
            /// Group, as the host counts.
            gid: u32,
        },
        /// Makes a symbolic link; one that is there with the same text is kept.
        7 => Symlink {
            /// What the link says.
            text: Bytes,
            /// Inside path.
            path: Bytes,
        },
        /// Opens a terminal in the container's own /dev/pts, gives its master to pause, and binds its slave on /dev/console.
        8 => Terminal {
            /// Rows at the start; 0 leaves the kernel's default.
            rows: u16,
            /// Columns at the start.
            columns: u16,
        },
        /// Hides a path: /dev/null (checked to be the null device, or made anew) over a file, an empty read-only tmpfs over a
        /// directory. A path that is missing needs no mask.
        9 => Mask {
            /// Inside path.
            path: Bytes,
        },
        /// Makes a path read-only by a bind over itself. A path that is missing is passed over.
        10 => ReadOnly {
            /// Inside path.
            path: Bytes,
        },
        /// Makes the root the root of the mount namespace and leaves the host's tree.
        11 => Pivot,
        /// Makes the root mount read-only; after [`Step::Pivot`].
        12 => RootReadOnly,
        /// Sets the propagation of the root mount; after [`Step::Pivot`].
        13 => RootPropagation {
            /// mount(2) flags.
            flags: u64,
        },
        /// Runs a program to its end, in the namespaces and the root as they are then; that it fails ends the child.
        14 => Hook {
            /// Absolute; a host path before [`Step::Pivot`], an inside path after it.
            path: Bytes,
            /// Its arguments, its name first.
            argv: Vec<Bytes>,
            /// `NAME=value` strings.
            env: Vec<Bytes>,
            /// After which it is killed.
            timeout_ms: u32,
            /// What it reads on its standard input; a pipe must hold it.
            input: Bytes,
        },
    }
}

wire_struct! {
    /// One fsconfig(2) setting.
    FsOption {
        /// The key.
        key: Bytes,
        /// The value; none for a flag.
        value: Option<Bytes>,
    }
}

wire_enum! {
    /// What a bind shows.
    BindSource {
        /// A host path; symbolic links are followed, magic links are not.
        1 => Host {
            /// Absolute.
            path: Bytes,
        },
        /// The pod's /dev/shm, which pause holds.
        2 => PodShm,
        /// A directory of an image, read-only.
        3 => Image {
            /// As for [`Step::OverlayRoot`].
            layers: Bytes,
            /// `lowerdir=…` of two directories at least, as mount(2) takes it.
            options: Bytes,
            /// Path within the image; empty for its root.
            sub_path: Bytes,
            /// Host directory to mount on for a moment; only in the child's mount namespace.
            at: Bytes,
        },
    }
}

wire_enum! {
    /// Whom the files of a bind belong to, as the container sees it.
    Owners {
        /// To those who own them on the host: ids that the pod's user namespace does not map are nobody's.
        1 => OfHost,
        /// To the ids of the pod's user namespace: the file that id 0 owns on the disk belongs to the container's root
        /// (an idmapped mount, mount_setattr(2)).
        2 => OfPod,
    }
}

wire_enum! {
    /// Whether an operation covers what is mounted below.
    Recursion {
        /// This mount alone.
        1 => This,
        /// The whole tree.
        2 => Tree,
    }
}

wire_enum! {
    /// What is made at a mount target that is missing.
    Create {
        /// Nothing: missing is an error.
        1 => Nothing,
        /// A directory, with its parents.
        2 => Directory,
        /// An empty file, with its parents.
        3 => File,
        /// What the bind's source is.
        4 => AsSource,
    }
}

wire_struct! {
    /// The program and its identity.
    Process {
        /// Program and arguments; a program without a slash is looked up on PATH of `env`, inside.
        argv: Vec<Bytes>,
        /// `NAME=value` strings.
        env: Vec<Bytes>,
        /// Working directory, inside; verified to be below the root after chdir (CVE-2024-21626).
        cwd: Bytes,
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups, exactly.
        groups: Vec<u32>,
        /// File mode creation mask.
        umask: u32,
        /// Capability sets.
        capabilities: Capabilities,
        /// Whether no_new_privs is set.
        new_privileges: NewPrivileges,
        /// An array of `struct sock_filter` for seccomp(2).
        seccomp: Option<Bytes>,
        /// setrlimit(2) triples.
        rlimits: Vec<Rlimit>,
        /// Written to /proc/self/attr/apparmor/exec, as `exec PROFILE`.
        apparmor: Option<Bytes>,
        /// Written to /proc/self/attr/exec.
        selinux: Option<Bytes>,
    }
}

wire_enum! {
    /// Whether execve may add privileges (setuid, file capabilities).
    NewPrivileges {
        /// It may.
        1 => Allowed,
        /// prctl(PR_SET_NO_NEW_PRIVS).
        2 => Denied,
    }
}

wire_struct! {
    /// Capability sets as masks, bit N for capability N (capabilities(7)).
    Capabilities {
        /// What execve may ever give.
        bounding: u64,
        /// In force.
        effective: u64,
        /// May be put in force.
        permitted: u64,
        /// Kept across execve of files that inherit them.
        inheritable: u64,
        /// Kept across execve of ordinary files.
        ambient: u64,
    }
}

wire_struct! {
    /// A resource limit.
    Rlimit {
        /// `RLIMIT_*`.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    }
}

wire_enum! {
    /// Where a process's standard streams go.
    Stdio {
        /// stdout and stderr through pipes to the log; stdin as told.
        1 => Log {
            /// What stdin reads.
            stdin: Stdin,
        },
        /// A terminal of its own; what it shows goes to the log (containers) or to the passed descriptor (execs).
        2 => Terminal,
        /// The three descriptors passed with the request, in order, become 0, 1 and 2.
        3 => Passed,
    }
}

wire_enum! {
    /// What a logged process reads.
    Stdin {
        /// Nothing: /dev/null.
        1 => Null,
        /// A pipe that pause keeps open until it is attached to.
        2 => Open,
        /// As `Open`, and closed when the first attached client goes.
        3 => Once,
    }
}
