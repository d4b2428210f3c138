//! Unix sequenced-packet sockets: one packet, one message, with descriptors beside it (unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag,
    SockType, UnixAddr, bind, connect, listen, recvmsg, sendmsg, shutdown, socket,
};
use podwright_pause::protocol::MAX_DESCRIPTORS;
use tokio::io::unix::AsyncFd;

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?)
}

/// The address of `name` in the directory. Through /proc, because sun_path holds 108 bytes only and state directories may be deep.
fn address(directory: BorrowedFd<'_>, name: &str) -> io::Result<UnixAddr> {
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    Ok(UnixAddr::new(Path::new(&path))?)
}

/// A listening socket named `name` in `directory`.
pub(super) fn listener(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let fd = new_socket()?;
    bind(fd.as_raw_fd(), &address(directory, name)?)?;
    // A pause that is frozen accepts nobody: each start of a daemon leaves one more that waits, and beyond the limit none can connect. The
    // kernel bounds this by net.core.somaxconn.
    listen(&fd, Backlog::MAXALLOWABLE)?;
    Ok(fd)
}

/// A connection to the socket named `name` in `directory`.
pub(super) fn connection(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let fd = new_socket()?;
    connect(fd.as_raw_fd(), &address(directory, name)?)?;
    Ok(fd)
}

/// Registers a socket with the runtime's event loop.
#[allow(
    unsafe_code,
    reason = "the event loop trusts the descriptor to stay what it is"
)]
pub(super) fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open descriptor until it is dropped, and AsyncFd deregisters it before it drops it.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

/// Closes the connection for both sides, whoever holds the descriptor.
pub(super) fn shut(socket: &OwnedFd) {
    // ENOTCONN: the other side has closed it.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
}

/// Sends one packet without waiting.
pub(super) fn send(
    socket: &OwnedFd,
    packet: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(packet)],
        control,
        flags,
        None,
    )?;
    Ok(())
}

/// What came in one packet.
pub(super) struct Packet {
    pub(super) length: usize,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Receives one packet into `buffer` without waiting; none when the peer has closed.
#[allow(unsafe_code, reason = "recvmsg hands over descriptors as bare numbers")]
pub(super) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<Packet>> {
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; MAX_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut control),
        flags,
    )?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just installed these descriptors for this call (SCM_RIGHTS, unix(7)); nobody else has
            // seen their numbers, so each gets exactly one owner here.
            descriptors.extend(
                raw.into_iter()
                    .map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }),
            );
        }
    }
    if message
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC)
    {
        return Err(io::Error::other(
            "a packet was longer than the protocol allows",
        ));
    }
    match message.bytes {
        0 => Ok(None),
        length => Ok(Some(Packet {
            length,
            descriptors,
        })),
    }
}
