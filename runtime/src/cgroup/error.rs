//! What can go wrong with a control group.

use std::path::PathBuf;

use nix::errno::Errno;

/// An operation on a control group failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No usable cgroup mount was found.
    #[error("no cgroup mount in {mountinfo}; mount cgroup2 at /sys/fs/cgroup")]
    NoHierarchy {
        /// The file that lists the mounts.
        mountinfo: PathBuf,
    },
    /// A path that may not name a group.
    #[error("cgroup path {path:?} {reason}")]
    InvalidPath {
        /// The refused path.
        path: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A system call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: Errno,
    },
    /// The kernel refused a value.
    #[error("cannot write {value:?} to {}{}{hint}", path.display(), if hint.is_empty() { "" } else { ": " })]
    Write {
        /// The interface file.
        path: PathBuf,
        /// The refused value.
        value: String,
        /// What this error means for this file, and what to do; may be empty.
        hint: String,
        /// What the system answered.
        #[source]
        source: Errno,
    },
    /// An interface file holds something this code does not understand.
    #[error("{} reads {text:?}, expected {expected}", path.display())]
    Parse {
        /// The interface file.
        path: PathBuf,
        /// Its first bytes.
        text: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// `unified` keys need the v2 interface.
    #[error("resource unified[{key:?}] needs cgroup v2, this machine runs v1 controllers")]
    UnifiedOnV1 {
        /// The first key of the request.
        key: String,
    },
    /// The kernel refused the program that decides on device accesses.
    #[error("cannot put a device program on {}; it takes a kernel with CONFIG_CGROUP_BPF, and CAP_SYS_ADMIN or CAP_BPF and CAP_NET_ADMIN", path.display())]
    DeviceProgram {
        /// The group.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: Errno,
    },
    /// Device rules need a v1 devices controller, or a unified mount for a program.
    #[error(
        "{path}: neither a v1 devices controller nor cgroup2 is mounted to hold the device rules"
    )]
    DeviceFilterUnsupported {
        /// The group.
        path: String,
    },
    /// A resource that this runtime does not set.
    #[error("resource {field} is not supported")]
    Unsupported {
        /// The field of the OCI resources.
        field: &'static str,
    },
    /// A value outside what any kernel takes.
    #[error("resource {field} = {value:?}: {reason}")]
    InvalidValue {
        /// The field of the OCI resources.
        field: &'static str,
        /// The refused value.
        value: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A limit was asked for that needs a controller the kernel does not offer.
    #[error("resource {field} needs the cgroup controller {controller}, which is not available")]
    MissingController {
        /// The controller's name.
        controller: &'static str,
        /// The field of the request.
        field: &'static str,
    },
    /// The group still has processes or is being torn down; try again later.
    #[error("cannot remove {}: it is still in use", path.display())]
    Busy {
        /// The first directory that stayed.
        path: PathBuf,
    },
    /// Killed processes did not end before the deadline.
    #[error("{left} processes of cgroup {path} live on after SIGKILL and {waited_ms} ms")]
    StillAlive {
        /// The group.
        path: String,
        /// How many are left.
        left: usize,
        /// How long was waited, in milliseconds.
        waited_ms: u128,
    },
}

impl CgroupError {
    /// Whether a later try may succeed without any change.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::StillAlive { .. })
    }

    /// Whether the group does not exist (any more).
    pub fn is_missing(&self) -> bool {
        // A file that is open when its group goes reads as ENODEV.
        matches!(
            self,
            Self::Io {
                source: Errno::ENOENT | Errno::ENODEV,
                ..
            } | Self::Write {
                source: Errno::ENOENT | Errno::ENODEV,
                ..
            }
        )
    }

    /// Whether a file has no answer in a group of this kind.
    pub(super) fn is_not_supported(&self) -> bool {
        matches!(
            self,
            Self::Io {
                source: Errno::EOPNOTSUPP,
                ..
            }
        )
    }

    /// Whether the limit is refused because of what the group's processes use now.
    pub fn is_in_use(&self) -> bool {
        matches!(
            self,
            Self::Write {
                source: Errno::EBUSY,
                ..
            }
        )
    }

    /// Whether the request itself is at fault (`INVALID_ARGUMENT`), not the machine.
    pub fn is_invalid_input(&self) -> bool {
        match self {
            Self::InvalidPath { .. }
            | Self::InvalidValue { .. }
            | Self::UnifiedOnV1 { .. }
            | Self::Unsupported { .. } => true,
            // ENODEV without a hint is a group that is gone.
            Self::Write {
                source: Errno::ENODEV,
                hint,
                ..
            } => !hint.is_empty(),
            Self::Write { source, .. } => matches!(
                source,
                Errno::EINVAL
                    | Errno::ERANGE
                    | Errno::EBUSY
                    | Errno::ENOSPC
                    | Errno::EACCES
                    | Errno::EOPNOTSUPP
            ),
            _ => false,
        }
    }
}
