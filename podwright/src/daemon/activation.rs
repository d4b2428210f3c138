//! A listening socket passed by systemd (sd_listen_fds(3)).

#![allow(unsafe_code)] // the descriptor arrives as a number, by the protocol of sd_listen_fds(3)

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{
    AddressFamily, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

/// The first passed descriptor: `SD_LISTEN_FDS_START`.
const FIRST: i32 = 3;

/// Why the passed sockets cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ActivationError {
    #[error("systemd passed {count:?} sockets (LISTEN_FDS); the daemon serves exactly one")]
    Count { count: String },
    #[error(
        "descriptor {FIRST}, passed as LISTEN_FDS, is no listening Unix stream socket: {errno}"
    )]
    NotListening { errno: Errno },
}

/// The passed socket; none when this process was not started by socket activation.
pub(crate) fn listener() -> Result<Option<UnixListener>, ActivationError> {
    let variable = |name| std::env::var(name).ok();
    if !is_for_us(
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
    )? {
        return Ok(None);
    }
    // SAFETY: the descriptor is only borrowed to be duplicated, here, in the only thread. If it is not open, fcntl says EBADF.
    let passed = unsafe { BorrowedFd::borrow_raw(FIRST) };
    let not_listening = |errno| ActivationError::NotListening { errno };
    check_listening(passed).map_err(not_listening)?;
    // A duplicate is ours and close-on-exec; the original number stays open, in this process only.
    fcntl(passed, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).map_err(not_listening)?;
    let ours: OwnedFd = passed
        .try_clone_to_owned()
        .map_err(|e| not_listening(Errno::from_raw(e.raw_os_error().unwrap_or(0))))?;
    Ok(Some(UnixListener::from(ours)))
}

/// Whether `LISTEN_PID` and `LISTEN_FDS` speak to this process.
fn is_for_us(pid: Option<&str>, count: Option<&str>) -> Result<bool, ActivationError> {
    match (pid, count) {
        (Some(pid), Some(count)) if pid == std::process::id().to_string() => match count {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(ActivationError::Count {
                count: count.to_owned(),
            }),
        },
        _ => Ok(false),
    }
}

fn check_listening(socket: BorrowedFd<'_>) -> nix::Result<()> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let stream = getsockopt(&socket, sockopt::SockType)? == nix::sys::socket::SockType::Stream;
    if address.family() != Some(AddressFamily::Unix)
        || !stream
        || !getsockopt(&socket, sockopt::AcceptConn)?
    {
        return Err(Errno::ENOTSUP);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_one_socket_for_this_process_counts() {
        let me = std::process::id().to_string();
        assert_eq!(is_for_us(None, Some("1")), Ok(false));
        assert_eq!(
            is_for_us(Some("1"), Some("1")),
            Ok(false),
            "another process's"
        );
        assert_eq!(is_for_us(Some(&me), None), Ok(false));
        assert_eq!(is_for_us(Some(&me), Some("0")), Ok(false));
        assert_eq!(is_for_us(Some(&me), Some("1")), Ok(true));
        assert!(is_for_us(Some(&me), Some("2")).is_err());
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        assert_eq!(check_listening(listener.as_fd()), Ok(()));
        let (stream, _other) = UnixStream::pair().unwrap();
        assert_eq!(check_listening(stream.as_fd()), Err(Errno::ENOTSUP));
        let file = tempfile::tempfile().unwrap();
        assert_eq!(check_listening(file.as_fd()), Err(Errno::ENOTSOCK));
    }
}
