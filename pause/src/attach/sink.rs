//! One client's end of one stream.

use super::STALLED;
use crate::sys::event::{Epoll, Interest};
use crate::sys::{Errno, socket};
use std::os::fd::{AsFd, OwnedFd};

/// A client: the connection that attached it, and the daemon's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) connection: u32,
    pub(crate) number: u64,
}

/// A stream socket that the client reads the other end of. A socket, for its end can be told at once: of a pipe, children
/// that are between fork and exec may hold copies.
pub(crate) struct Sink {
    pub(super) client: Client,
    socket: OwnedFd,
    token: u64,
    /// How much of the backlog it has.
    pub(super) taken: usize,
    /// When it last took something, while something waits for it.
    waits_since: Option<i64>,
}

/// What a client did with what it was given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Took {
    /// It has this much of it.
    Part(usize),
    /// It has gone.
    Gone,
}

impl Sink {
    /// Watched under `token` from now on.
    pub(crate) fn new(
        client: Client,
        socket: OwnedFd,
        token: u64,
        epoll: &Epoll,
    ) -> Result<Self, Errno> {
        epoll.add_idle(socket.as_fd(), token)?;
        Ok(Self {
            client,
            socket,
            token,
            taken: 0,
            waits_since: None,
        })
    }

    pub(super) fn is_watched_as(&self, token: u64) -> bool {
        self.token == token
    }

    pub(super) fn waits(&self) -> bool {
        self.waits_since.is_some()
    }

    /// When it is dropped unless it takes something.
    pub(super) fn deadline(&self) -> Option<i64> {
        self.waits_since.map(|since| since + STALLED)
    }

    /// Gives it as much as it takes.
    pub(super) fn give(&self, bytes: &[u8]) -> Took {
        let mut done = 0;
        while done < bytes.len() {
            match socket::write(self.socket.as_fd(), &bytes[done..]) {
                Ok(count) => done += count,
                Err(Errno(libc::EINTR)) => {}
                Err(Errno(libc::EAGAIN)) => break,
                Err(_) => return Took::Gone,
            }
        }
        Took::Part(done)
    }

    /// Something waits for it since `now`, or nothing any more.
    pub(super) fn set_waiting(&mut self, since: Option<i64>, epoll: &Epoll) {
        if self.waits() != since.is_some() {
            let interest = match since {
                Some(_) => Interest::Room,
                None => Interest::End,
            };
            // A sink that is not watched would be dropped by its deadline.
            let _ = epoll.change(self.socket.as_fd(), self.token, interest);
        }
        self.waits_since = since;
    }

    /// Ends the stream for the client.
    pub(super) fn close(self, epoll: &Epoll) {
        epoll.remove(self.socket.as_fd());
        socket::shut_down(self.socket.as_fd());
    }
}
