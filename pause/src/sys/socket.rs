//! SOCK_SEQPACKET sockets and the descriptors that travel over them.
#![allow(unsafe_code)] // raw system calls

use super::{Errno, Result, check};
use podwright_pause::protocol::MAX_DESCRIPTORS;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// socket(2), with SOCK_CLOEXEC.
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    // SAFETY: takes no pointers; the descriptor is new.
    unsafe {
        let fd = check(libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol).into())?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// A connected SOCK_SEQPACKET pair.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: the kernel writes two new descriptors into `fds`.
    unsafe {
        check(
            libc::socketpair(
                libc::AF_UNIX,
                libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
                0,
                fds.as_mut_ptr(),
            )
            .into(),
        )?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// accept4(2), nonblocking.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the peer's address is not asked for; the descriptor is new.
    unsafe {
        let fd = check(
            libc::accept4(
                listener.as_raw_fd(),
                ptr::null_mut(),
                ptr::null_mut(),
                flags,
            )
            .into(),
        )?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Has the kernel hold so many bytes of unread packets, by its own count of them, whatever the machine's limit is (SO_SNDBUFFORCE of
/// socket(7), which needs CAP_NET_ADMIN).
pub(crate) fn hold_unread(socket: BorrowedFd<'_>, bytes: i32) -> Result<()> {
    // The kernel doubles what it is given, for its own structures.
    let half = bytes / 2;
    // SAFETY: the kernel reads an int from `half`, which lives until the call's end.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            ptr::from_ref(&half).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    check(returned.into())?;
    Ok(())
}

/// The user id of a connection's other end, when it connected (SO_PEERCRED).
pub(crate) fn peer_uid(connection: BorrowedFd<'_>) -> Result<u32> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `peer`, into it.
    let returned = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ptr::from_mut(&mut peer).cast(),
            &mut length,
        )
    };
    check(returned.into())?;
    Ok(peer.uid)
}

/// Room for the control message that carries the most descriptors, aligned as cmsghdr asks.
#[repr(C, align(8))]
struct Control([u8; 64]);

const CONTROL_FITS: () = {
    // SAFETY: CMSG_SPACE only computes.
    let space = unsafe { libc::CMSG_SPACE((MAX_DESCRIPTORS * size_of::<RawFd>()) as u32) };
    assert!(
        space as usize <= size_of::<Control>(),
        "MAX_DESCRIPTORS fit the control buffer"
    );
};

fn header(bytes: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    let () = CONTROL_FITS;
    // SAFETY: msghdr is pointers and numbers, for which null and zero are valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = bytes;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header
}

/// Sends one packet with descriptors, without waiting and without SIGPIPE.
pub(crate) fn send(socket: BorrowedFd<'_>, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut control = Control([0; 64]);
    let mut bytes = libc::iovec {
        iov_base: packet.as_ptr().cast_mut().cast(),
        iov_len: packet.len(),
    };
    let mut header = header(&mut bytes, &mut control);
    if fds.is_empty() {
        header.msg_control = ptr::null_mut();
    } else if fds.len() > MAX_DESCRIPTORS {
        return Err(Errno(libc::EINVAL));
    } else {
        let length = size_of_val(fds) as u32;
        // SAFETY: `control` has room for MAX_DESCRIPTORS (CONTROL_FITS), so the first header and its data lie inside it;
        // BorrowedFd has the representation of a RawFd. The kernel only reads the packet.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(length) as _;
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(length) as _;
            ptr::copy_nonoverlapping(
                fds.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(first),
                size_of_val(fds),
            );
        }
    }
    // SAFETY: all that the header points to lives until the end of this function.
    check(unsafe {
        libc::sendmsg(
            socket.as_raw_fd(),
            &header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    } as libc::c_long)?;
    Ok(())
}

/// Writes to a stream socket as much as it takes at once, without SIGPIPE.
pub(crate) fn write(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most the slice's length from it.
    check(unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
        )
    } as libc::c_long)
    .map(|n| n as usize)
}

/// Ends a connection, whoever else holds copies of its descriptor.
pub(crate) fn shut_down(socket: BorrowedFd<'_>) {
    // ENOTCONN: it has ended already.
    // SAFETY: takes no pointers.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// One packet as it came.
pub(crate) struct Received {
    /// Bytes of the buffer that it filled. 0: the other end has closed.
    pub(crate) length: usize,
    /// It was longer than the buffer, or carried more descriptors than are allowed.
    pub(crate) truncated: bool,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Takes the next packet, without waiting.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received> {
    let mut control = Control([0; 64]);
    let mut bytes = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut header = header(&mut bytes, &mut control);
    header.msg_controllen = size_of::<Control>() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the kernel writes at most the told lengths into buffer and control, which live until the end of this function.
    let length =
        check(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) } as libc::c_long)?;
    Ok(Received {
        length: length as usize,
        truncated: header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        fds: received_descriptors(&header),
    })
}

fn received_descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel filled `header`'s control buffer with well-formed messages, which CMSG_NXTHDR walks inside its
    // bounds. Descriptors in SCM_RIGHTS are new to this process and owned by nobody else; the data may be unaligned.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_RIGHTS
            {
                let data = libc::CMSG_DATA(message).cast::<RawFd>();
                let length = (*message).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for index in 0..length / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    fds
}
