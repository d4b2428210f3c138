//! How a call fails: a kind that decides the gRPC code, and words that say what was tried on what and why it failed.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;

use nix::errno::Errno;

use tonic::{Code, Status};

/// What a failure means to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request can never succeed as it is.
    InvalidArgument,
    /// What it names does not exist.
    NotFound,
    /// What it would make exists, and is something else.
    AlreadyExists,
    /// The object is in a state that does not allow it.
    FailedPrecondition,
    /// The time that the client gave is over.
    DeadlineExceeded,
    /// A range, a port or space is used up.
    ResourceExhausted,
    /// Something that is needed does not answer now; trying again may help.
    Unavailable,
    /// Credentials are missing or refused.
    PermissionDenied,
    /// The system refused.
    Internal,
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct CallError {
    /// For the gRPC code.
    pub(crate) kind: Kind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CallError {
    /// A failure without a deeper cause.
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    /// The request is wrong.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, what)
    }

    /// The state does not allow it.
    pub(crate) fn state(what: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, what)
    }

    /// A failure with its cause.
    pub(crate) fn caused(
        kind: Kind,
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            what: what.into(),
            source: Some(source.into()),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Says of a failure what was being done when it came.
pub(crate) trait Context<T> {
    /// As the system's failure.
    fn internal(self, what: impl FnOnce() -> String) -> Result<T, CallError>;
    /// As the request's failure.
    fn invalid(self, what: impl FnOnce() -> String) -> Result<T, CallError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Context<T> for Result<T, E> {
    fn internal(self, what: impl FnOnce() -> String) -> Result<T, CallError> {
        self.map_err(|error| CallError::caused(Kind::Internal, what(), error))
    }
    fn invalid(self, what: impl FnOnce() -> String) -> Result<T, CallError> {
        self.map_err(|error| CallError::caused(Kind::InvalidArgument, what(), error))
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Whether a full disk or quota is behind the failure: then the node is not broken, but something must be removed.
fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let full = |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    let io = error.downcast_ref::<std::io::Error>();
    let errno = error.downcast_ref::<Errno>();
    io.is_some_and(|error| full(error.kind()))
        || errno.is_some_and(|errno| matches!(errno, Errno::ENOSPC | Errno::EDQUOT))
        || error.source().is_some_and(is_disk_full)
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let code = match error.kind {
            Kind::Internal if is_disk_full(&error) => Code::ResourceExhausted,
            Kind::InvalidArgument => Code::InvalidArgument,
            Kind::NotFound => Code::NotFound,
            Kind::AlreadyExists => Code::AlreadyExists,
            Kind::FailedPrecondition => Code::FailedPrecondition,
            Kind::DeadlineExceeded => Code::DeadlineExceeded,
            Kind::ResourceExhausted => Code::ResourceExhausted,
            Kind::Unavailable => Code::Unavailable,
            Kind::PermissionDenied => Code::PermissionDenied,
            Kind::Internal => Code::Internal,
        };
        // gRPC clients bound the size of headers; the message travels in one.
        let text: String = chain(&error).chars().take(2048).collect();
        Self::new(code, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_internal_error() {
        for (errno, code) in [
            (libc::ENOSPC, Code::ResourceExhausted),
            (libc::EIO, Code::Internal),
        ] {
            let cause = std::io::Error::from_raw_os_error(errno);
            let error = CallError::caused(Kind::Internal, "cannot write", cause);
            let outer = CallError::caused(Kind::Internal, "cannot create", error);
            assert_eq!(Status::from(outer).code(), code);
        }
    }
}
