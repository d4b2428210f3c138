//! Sockets. The kernel answers a netlink request before `send` returns (rtnetlink and nfnetlink both work in the
//! sender's context), so answers are read without ever blocking, and an empty socket means that there are no more.
#![allow(unsafe_code)] // setsockopt(2) for the netlink options, which nix does not wrap

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, recvmsg,
    send, setsockopt, socket, sockopt,
};

use super::NetlinkError;
use super::message::{Message, Reply, parse};

/// Largest datagram of answers that is read; the kernel makes dumps in parts of at most 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Room for the largest batch: a table with the ports of thousands of pods. It is a limit, not an allocation.
const SEND_BYTES: usize = 16 * 1024 * 1024;

thread_local! {
    /// What answers are read into: nothing is kept in it between two exchanges.
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECEIVE_BYTES].into_boxed_slice());
}

/// The netlink families that this crate speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    /// rtnetlink(7): links, addresses, routes.
    Route,
    /// nfnetlink: nf_tables and connection tracking.
    Netfilter,
}

/// A netlink socket of the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: OwnedFd,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let protocol = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .map_err(|errno| NetlinkError::Open {
            what: "socket",
            errno,
        })?;
        prepare(descriptor.as_fd())?;
        setsockopt(&descriptor, sockopt::SndBufForce, &SEND_BYTES).map_err(|errno| {
            NetlinkError::Open {
                what: "SO_SNDBUFFORCE",
                errno,
            }
        })?;
        Ok(Self { descriptor })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Notices of changes of links, in the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct LinkNotices {
    descriptor: OwnedFd,
}

impl LinkNotices {
    /// Subscribes: changes from now on are noticed.
    pub(crate) fn subscribe() -> Result<Self, NetlinkError> {
        let failed = |what| move |errno| NetlinkError::Open { what, errno };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkRoute;
        let descriptor = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)
            .map_err(failed("socket"))?;
        let groups = NetlinkAddr::new(0, libc::RTMGRP_LINK as u32);
        bind(descriptor.as_raw_fd(), &groups).map_err(failed("subscribe to links"))?;
        Ok(Self { descriptor })
    }

    /// Waits for the next notice; whether there was one in time.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<bool, NetlinkError> {
        if !await_notice(self.descriptor.as_fd(), timeout)? {
            return Ok(false);
        }
        // What is in it does not matter: the caller looks at the link itself.
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            match recv(
                self.descriptor.as_raw_fd(),
                &mut buffer,
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(true),
                Err(errno) => {
                    return Err(NetlinkError::Transport {
                        direction: "receive",
                        what: "wait for a change of a link".to_owned(),
                        errno,
                    });
                }
            }
        }
    }
}

/// Asks for error texts (`NETLINK_EXT_ACK`) and for errors that do not repeat the request
/// (`NETLINK_CAP_ACK`).
pub(crate) fn prepare(descriptor: BorrowedFd<'_>) -> Result<(), NetlinkError> {
    set_option(descriptor, 11, 1, "NETLINK_EXT_ACK")?;
    set_option(descriptor, 10, 1, "NETLINK_CAP_ACK")
}

/// `RTNLGRP_IPV6_ROUTE`.
const IPV6_ROUTES: libc::c_int = 11;

/// Notices changes of IPv6 routes on this socket; [`exchange`] reads past them.
pub(crate) fn join_ipv6_routes(descriptor: BorrowedFd<'_>) -> Result<(), NetlinkError> {
    let option = libc::NETLINK_ADD_MEMBERSHIP;
    set_option(descriptor, option, IPV6_ROUTES, "NETLINK_ADD_MEMBERSHIP")
}

/// Ends what [`join_ipv6_routes`] began.
pub(crate) fn leave_ipv6_routes(descriptor: BorrowedFd<'_>) -> Result<(), NetlinkError> {
    let option = libc::NETLINK_DROP_MEMBERSHIP;
    set_option(descriptor, option, IPV6_ROUTES, "NETLINK_DROP_MEMBERSHIP")
}

/// Waits until there is something to read; whether there was in time.
pub(crate) fn await_notice(
    descriptor: BorrowedFd<'_>,
    timeout: Duration,
) -> Result<bool, NetlinkError> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut waiting = [PollFd::new(descriptor, PollFlags::POLLIN)];
    match poll(&mut waiting, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(true),
        Err(errno) => Err(NetlinkError::Transport {
            direction: "receive",
            what: "wait for a notice".to_owned(),
            errno,
        }),
    }
}

fn set_option(
    descriptor: BorrowedFd<'_>,
    option: libc::c_int,
    value: libc::c_int,
    what: &'static str,
) -> Result<(), NetlinkError> {
    // SAFETY: the option value is a live c_int and its exact size is given; the kernel only reads
    // it during the call.
    let result = unsafe {
        libc::setsockopt(
            descriptor.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result)
        .map(drop)
        .map_err(|errno| NetlinkError::Open { what, errno })
}

/// Sends all messages at once and returns the objects which the kernel answered with.
///
/// rtnetlink carries out the messages in order and goes on past a refused one; nfnetlink takes or leaves a batch as a
/// whole. Either way the first refusal is the error.
pub(crate) fn exchange(
    socket: impl AsFd,
    messages: &[Message],
) -> Result<Vec<Reply>, NetlinkError> {
    let socket = socket.as_fd();
    let mut batch = Vec::with_capacity(2048);
    // nfnetlink acknowledges no BATCH_END before Linux 6.10: ask it of the last message that changes something.
    let acknowledged = messages
        .iter()
        .rposition(|message| !message.is_frame())
        .unwrap_or_default();
    for (index, message) in messages.iter().enumerate() {
        let flags = if index == acknowledged {
            libc::NLM_F_ACK
        } else {
            0
        };
        message.finish(&mut batch, sequence_of(index), flags);
    }
    send_all(socket, &batch, || first_of(messages))?;
    RECEIVED.with_borrow_mut(|buffer| answers(socket, buffer, messages, sequence_of(acknowledged)))
}

/// Reads the answers to messages that were sent; `acknowledged` is the sequence number of the one that asks for it.
fn answers(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    messages: &[Message],
    acknowledged: u32,
) -> Result<Vec<Reply>, NetlinkError> {
    let what = || first_of(messages);
    let mut objects = Vec::new();
    let mut is_acknowledged = false;
    let mut refusal: Option<(u32, NetlinkError)> = None;
    while let Some(replies) = receive(socket, buffer, what)? {
        for reply in replies {
            match reply {
                Reply::Ack { sequence } => is_acknowledged |= sequence == acknowledged,
                Reply::Refused {
                    sequence,
                    errno,
                    detail,
                } => {
                    if refusal.as_ref().is_none_or(|(first, _)| sequence < *first) {
                        let message = messages.get(sequence.wrapping_sub(1) as usize);
                        let what = message.map_or_else(what, |message| message.what().to_owned());
                        refusal = Some((
                            sequence,
                            NetlinkError::Refused {
                                what,
                                detail,
                                errno,
                            },
                        ));
                    }
                }
                Reply::Object { .. } => objects.push(reply),
                Reply::Done { .. } => {}
            }
        }
    }
    match refusal {
        Some((_, error)) => Err(error),
        None if is_acknowledged => Ok(objects),
        None => Err(NetlinkError::Answer {
            what: what(),
            problem: "no acknowledgement",
        }),
    }
}

/// What an exchange is for.
fn first_of(messages: &[Message]) -> String {
    let first = messages.first();
    first
        .map(|message| message.what().to_owned())
        .unwrap_or_default()
}

/// Sends one dump request and returns all objects of its answer.
pub(crate) fn dump(socket: impl AsFd, message: &Message) -> Result<Vec<Reply>, NetlinkError> {
    let socket = socket.as_fd();
    let mut bytes = Vec::with_capacity(256);
    message.finish(&mut bytes, sequence_of(0), libc::NLM_F_DUMP);
    let what = || message.what().to_owned();
    send_all(socket, &bytes, what)?;
    RECEIVED.with_borrow_mut(|buffer| dumped(socket, buffer, what))
}

fn dumped(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    what: impl Fn() -> String + Copy,
) -> Result<Vec<Reply>, NetlinkError> {
    let mut objects = Vec::new();
    while let Some(replies) = receive(socket, buffer, what)? {
        for reply in replies {
            match reply {
                Reply::Object { .. } => objects.push(reply),
                Reply::Done { .. } => return Ok(objects),
                Reply::Refused { errno, detail, .. } => {
                    return Err(NetlinkError::Refused {
                        what: what(),
                        detail,
                        errno,
                    });
                }
                Reply::Ack { .. } => {}
            }
        }
    }
    Err(NetlinkError::Answer {
        what: what(),
        problem: "the dump has no end",
    })
}

/// Sequence numbers count from 1 in each exchange: answers never outlive it, because it empties the socket.
fn sequence_of(index: usize) -> u32 {
    // A batch is at most SEND_BYTES long.
    index as u32 + 1
}

fn send_all(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    what: impl Fn() -> String,
) -> Result<(), NetlinkError> {
    loop {
        match send(socket.as_raw_fd(), bytes, MsgFlags::empty()) {
            Ok(_) => return Ok(()), // a datagram: all or nothing
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(NetlinkError::Transport {
                    direction: "send",
                    what: what(),
                    errno,
                });
            }
        }
    }
}

/// The next datagram's messages; `None` when there is none.
fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    what: impl Fn() -> String,
) -> Result<Option<Vec<Reply>>, NetlinkError> {
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let received =
            recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut parts, None, MsgFlags::MSG_DONTWAIT);
        let (length, flags, sender) = match received {
            Ok(message) => (message.bytes, message.flags, message.address),
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => {
                return Err(NetlinkError::Transport {
                    direction: "receive",
                    what: what(),
                    errno,
                });
            }
        };
        // Who has CAP_NET_ADMIN in the socket's namespace can send to it; only the kernel (port 0) is believed.
        if sender.is_none_or(|sender| sender.pid() != 0) {
            continue;
        }
        if flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(NetlinkError::Answer {
                what: what(),
                problem: "longer than the receive buffer",
            });
        }
        return match parse(&buffer[..length]) {
            Some(replies) => Ok(Some(replies)),
            None => Err(NetlinkError::Answer {
                what: what(),
                problem: "truncated messages",
            }),
        };
    }
}
