//! Why pause did not do what it was asked for, in words for the client.

use std::io;

use podwright_pause::protocol::{Failure, MAX_PLAN, Stage};
use podwright_pause::version::{Version, Versions};
use podwright_pause::wire::{Bytes, DecodeError, Newer};

use super::activity::Activity;
use super::program::ProgramError;

/// Why a request to pause did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PauseError {
    /// It could not be started.
    #[error("cannot start the pod's pause process")]
    Start(#[source] ProgramError),
    /// The kernel would not make it.
    #[error("cannot start the pod's pause process")]
    Birth {
        /// What clone3(2) said.
        #[source]
        source: io::Error,
    },
    /// The socket failed.
    #[error("cannot {action} the pod's pause process by its socket")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It has ended, or ended while it was asked; or the connection alone has.
    #[error(
        "the connection to the pod's pause process has closed: it has ended, or is connected to again now"
    )]
    Gone,
    /// It did not answer in time.
    #[error("the pod's pause process did not answer {request} within {seconds} s; {doing}")]
    Deadline {
        /// What was asked.
        request: &'static str,
        /// The deadline.
        seconds: u64,
        /// What it did then.
        doing: Box<Activity>,
    },
    /// It answered what makes no sense.
    #[error("the pod's pause process answered {request} with something else")]
    Protocol {
        /// What was asked.
        request: &'static str,
    },
    /// There is no version of the protocol that both speak.
    #[error(
        "the pod's pause process speaks version {theirs} of the protocol, and this daemon {ours}: \
         stop and remove the pod, or go on with the version of podwright that made it"
    )]
    Version {
        /// What it says that it speaks.
        theirs: String,
        /// What this daemon speaks.
        ours: Versions,
    },
    /// It was made by an older version, which does not have what is asked.
    #[error(
        "the pod was made by an older version of podwright: its pause process speaks version {speaks} of the protocol, and \
         {what} is there since version {since}; make the pod anew"
    )]
    Older {
        /// The version that is spoken with it.
        speaks: Version,
        /// What it does not know.
        what: &'static str,
        /// The version that it would have to speak.
        since: Version,
    },
    /// Its bytes did not decode.
    #[error("the pod's pause process sent a broken message")]
    Decode(#[source] DecodeError),
    /// The plan is beyond all bounds.
    #[error(
        "the launch plan takes {length} bytes, the limit is {MAX_PLAN}: arguments and environment are too long"
    )]
    PlanTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It tried and failed.
    #[error("{}", describe(.0))]
    Failed(Failure),
}

impl PauseError {
    /// Whether nobody listens on its socket: it has ended.
    pub(crate) fn is_nobody(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self, Self::Socket { source, .. } if matches!(source.kind(), ConnectionRefused | NotFound))
    }

    /// Whether it hears nothing at all now, or does not answer.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Deadline { .. } | Self::Gone | Self::Socket { .. }
        )
    }

    /// That a message cannot be told in this version.
    pub(super) fn older(newer: Newer, speaks: Version) -> Self {
        Self::Older {
            speaks,
            what: newer.what,
            since: newer.since,
        }
    }

    /// The errno of what failed in pause or its child.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Failed(failure) => Some(failure.errno),
            _ => None,
        }
    }
}

fn describe(failure: &Failure) -> String {
    let text = |bytes: &Bytes| {
        String::from_utf8_lossy(&bytes.0)
            .chars()
            .take(256)
            .collect::<String>()
    };
    let stage = match &failure.stage {
        Stage::Request => "the request".to_owned(),
        Stage::Sandbox => "making the sandbox".to_owned(),
        Stage::Birth => "making the process".to_owned(),
        Stage::Step { index } => format!("step {index} of the container's root"),
        Stage::Identity => "taking on the user, capabilities and limits".to_owned(),
        Stage::WorkingDirectory => "entering the working directory".to_owned(),
        Stage::Program => "executing the program".to_owned(),
    };
    let (call, subject) = (text(&failure.call), text(&failure.subject));
    let on = if subject.is_empty() {
        String::new()
    } else {
        format!(" on \"{subject}\"")
    };
    let hint = match (&failure.stage, failure.errno) {
        (Stage::Program, libc::ENOENT) => {
            " (executable file not found, in $PATH if the name has no slash, or its interpreter is missing)"
        }
        (Stage::Program, libc::EACCES) => " (not executable, or a directory, for this user)",
        (Stage::Program, libc::ENOEXEC) => {
            " (not a program for this machine, or a script without #!)"
        }
        (Stage::Birth, libc::EAGAIN) => {
            " (no more processes are allowed: the limit of the container, its pod or the node is reached, see pids.max)"
        }
        _ => "",
    };
    format!(
        "{stage}: {call}{on}: {}{hint}",
        io::Error::from_raw_os_error(failure.errno)
    )
}
