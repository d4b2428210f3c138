//! What did not work, on its way to a [`Failure`] that names the stage.

use crate::sys::Errno;
use podwright_pause::protocol::{Failure, Stage};
use podwright_pause::wire::Bytes;

/// A system call or check that failed, and what it was for.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) call: &'static str,
    pub(crate) subject: Vec<u8>,
    pub(crate) errno: Errno,
}

impl Fault {
    /// Longer subjects are cut: a failure travels in one small packet.
    const MAX_SUBJECT: usize = 1024;

    pub(crate) fn new(call: &'static str, subject: &[u8], errno: i32) -> Self {
        Self {
            call,
            subject: subject.to_vec(),
            errno: Errno(errno),
        }
    }

    /// Tells it where there is no daemon to answer to: descriptor 2 is the daemon's log file, if it keeps one.
    pub(crate) fn tell(&self) {
        eprintln!(
            "pause: {} {}: errno {}",
            self.call,
            String::from_utf8_lossy(&self.subject),
            self.errno.0
        );
    }

    /// The failure to tell the daemon.
    pub(crate) fn at(mut self, stage: Stage) -> Failure {
        self.subject.truncate(Self::MAX_SUBJECT);
        Failure {
            stage,
            call: self.call.into(),
            subject: Bytes(self.subject),
            errno: self.errno.0,
        }
    }
}

/// Says what a system call was for.
pub(crate) trait OrFault<T> {
    fn or_fault(self, call: &'static str, subject: &[u8]) -> Result<T, Fault>;
}

impl<T, E: Into<Errno>> OrFault<T> for Result<T, E> {
    fn or_fault(self, call: &'static str, subject: &[u8]) -> Result<T, Fault> {
        self.map_err(|error| Fault {
            call,
            subject: subject.to_vec(),
            errno: error.into(),
        })
    }
}
