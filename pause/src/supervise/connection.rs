//! Daemons on the pod's socket.

use super::source::Source;
use super::{Phase, Supervisor};
use crate::attach::Client;
use crate::fault::Fault;
use crate::sys::{Errno, process, socket};
use podwright_pause::protocol::{Answer, MAX_PACKET, Message, Request, RequestId, Stage};
use podwright_pause::version::Version;
use podwright_pause::wire::{DecodeError, Reader, Wire};
use std::os::fd::{AsFd, OwnedFd};

/// What a daemon may leave unread, in the kernel's bytes: some ten thousand answers. The usual 208 KiB are of less than three hundred, and
/// who is cut off loses the commands that it runs.
const UNREAD: i32 = 8 << 20;

/// One connection.
pub(super) struct Connection {
    pub(super) serial: u32,
    socket: OwnedFd,
    /// It has said Hello, and is told of exits.
    pub(super) greeted: bool,
    /// What is spoken with it.
    pub(super) version: Version,
}

/// Who gets an answer.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) connection: u32,
    /// What is spoken with it.
    pub(super) version: Version,
    pub(super) request: RequestId,
}

impl Asker {
    /// The client with this number.
    pub(super) fn client(self, number: u64) -> Client {
        Client {
            connection: self.connection,
            number,
        }
    }
}

impl Connection {
    /// Sends without waiting. A peer that leaves more unread than [`UNREAD`] is broken: it is cut off, and may connect
    /// again and list. What it does not know it is not told.
    pub(super) fn send(&self, message: &Message<Answer>, fds: &[OwnedFd]) -> Result<(), Errno> {
        let Ok(mut packet) = message.to_known_bytes_of(self.version) else {
            return Ok(());
        };
        if packet.len() > MAX_PACKET {
            let fault = Fault::new("answer", b"", libc::EMSGSIZE);
            packet = Message {
                id: message.id,
                body: Answer::Failed {
                    failure: fault.at(Stage::Request),
                },
            }
            .to_bytes();
        }
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        socket::send(self.socket.as_fd(), &packet, &fds)
    }
}

impl Supervisor {
    pub(super) fn accept(&mut self) {
        let Ok(socket) = socket::accept(self.listener.as_fd()) else {
            return;
        };
        // The directory's permissions keep others out already; this holds if they were wrong.
        if socket::peer_uid(socket.as_fd()) != Ok(process::own_uid()) {
            return;
        }
        // What is not granted is done without.
        let _ = socket::hold_unread(socket.as_fd(), UNREAD);
        let serial = self.serials.next();
        if self
            .epoll
            .add(socket.as_fd(), Source::Connection(serial).token())
            .is_ok()
        {
            self.connections.push(Connection {
                serial,
                socket,
                greeted: false,
                version: Version::FIRST,
            });
        }
    }

    /// Takes one request, so that nobody's stream of them starves the others.
    pub(super) fn receive(&mut self, serial: u32) {
        let Some(connection) = self
            .connections
            .iter()
            .find(|connection| connection.serial == serial)
        else {
            return;
        };
        let version = connection.version;
        let packet = self.packet.bytes();
        let received = match socket::receive(connection.socket.as_fd(), packet) {
            Err(Errno(libc::EAGAIN | libc::EINTR)) => return,
            Err(_) => return self.close_connection(serial),
            Ok(received) if received.length == 0 => return self.close_connection(serial),
            Ok(received) => received,
        };
        let bytes = &packet[..received.length];
        let asker = Asker {
            connection: serial,
            version,
            request: RequestId::get(&mut Reader::new(bytes, version)).unwrap_or(0),
        };
        let request = if received.truncated {
            Err(DecodeError::Truncated)
        } else {
            Message::<Request>::from_bytes_of(bytes, version)
        };
        if received.length > PACKET_KEPT {
            self.packet.release();
        }
        match request {
            Ok(message) => self.handle(asker, message.body, received.fds),
            Err(error) => {
                let fault = Fault::new(
                    "decode request",
                    error.to_string().as_bytes(),
                    libc::EBADMSG,
                );
                self.answer(
                    asker,
                    Answer::Failed {
                        failure: fault.at(Stage::Request),
                    },
                    &[],
                );
            }
        }
    }

    /// Forgets a connection with its clients, and kills the execs that nobody waits for any more.
    pub(super) fn close_connection(&mut self, serial: u32) {
        let Some(index) = self
            .connections
            .iter()
            .position(|connection| connection.serial == serial)
        else {
            return;
        };
        let connection = self.connections.swap_remove(index);
        self.epoll.remove(connection.socket.as_fd());
        drop(connection);
        for execution in self
            .executions
            .iter()
            .filter(|execution| execution.owner == serial)
        {
            execution.kill();
        }
        // A start that nobody can be told of does not happen: it may be asked for again, and two must not write to one layer.
        for birth in self.births.iter().filter(|birth| birth.is_asked_by(serial)) {
            let _ = process::signal(birth.pidfd.as_fd(), libc::SIGKILL);
        }
        self.detach_connection(serial);
        if matches!(self.phase, Phase::New) {
            self.phase = Phase::Ending(None);
        }
    }
}

/// A packet longer than this has touched pages of the buffer that are not worth keeping.
const PACKET_KEPT: usize = 4096;
