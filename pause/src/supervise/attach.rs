//! Clients attached to containers: coming, being served, going.

use super::connection::Asker;
use super::source::Source;
use super::{Container, Supervisor};
use crate::attach::{Client, Fanout, MAX_CLIENTS, Sink};
use crate::fault::{Fault, OrFault};
use crate::log::StreamName;
use crate::sys::event::Epoll;
use crate::sys::process::uptime;
use podwright_pause::plan::Stdin;
use podwright_pause::protocol::{Answer, Failure, Message, Stage, StreamChoice};
use podwright_pause::wire::Bytes;
use std::os::fd::OwnedFd;

/// A client from its Attach until its Detach, or the end of its connection or container.
pub(super) struct Attachment {
    client: Client,
    /// The container's number.
    container: u32,
    stdin: StreamChoice,
}

/// What a client asks to be attached to.
pub(super) struct Wanted {
    pub(super) stdin: StreamChoice,
    pub(super) outputs: Vec<StreamName>,
}

fn refuse(what: &'static str, subject: &[u8], errno: i32) -> Failure {
    Fault::new(what, subject, errno).at(Stage::Request)
}

impl Supervisor {
    /// Attaches a client; `sockets` are those of the outputs, in order. Gives stdin's descriptor.
    pub(super) fn attach(
        &mut self,
        asker: Asker,
        number: u64,
        id: &Bytes,
        wanted: Wanted,
        sockets: Vec<OwnedFd>,
    ) -> Result<Option<OwnedFd>, Failure> {
        let client = asker.client(number);
        let container = self
            .containers
            .iter()
            .find(|container| container.id == *id && container.pidfd().is_some())
            .ok_or_else(|| refuse("container is not running", &id.0, libc::ESRCH))?;
        let of_container = |attachment: &&Attachment| attachment.container == container.serial;
        if self.attachments.iter().filter(of_container).count() >= MAX_CLIENTS {
            return Err(refuse("clients of the container", &id.0, libc::EUSERS));
        }
        if self.attachments.iter().any(|other| other.client == client) {
            return Err(refuse("client is attached", &id.0, libc::EEXIST));
        }
        if sockets.len() != wanted.outputs.len() {
            return Err(refuse("sockets of the client", &id.0, libc::EBADF));
        }
        if container.terminal.is_some() && wanted.outputs.contains(&StreamName::Stderr) {
            return Err(refuse("stderr of a terminal", &id.0, libc::EINVAL));
        }
        let stdin = self.stdin_for(container, &wanted.stdin)?;
        let serial = container.serial;
        for (stream, socket) in wanted.outputs.into_iter().zip(sockets) {
            if let Err(fault) = self.add_sink(serial, stream, client, socket) {
                self.remove_sinks(client);
                return Err(fault.at(Stage::Request));
            }
        }
        let has_stdin = match stdin {
            Some(_) => StreamChoice::Asked,
            None => StreamChoice::Absent,
        };
        self.attachments.push(Attachment {
            client,
            container: serial,
            stdin: has_stdin,
        });
        Ok(stdin)
    }

    /// What a new client writes to. Stdin that is open once is open for one client.
    fn stdin_for(
        &self,
        container: &Container,
        wanted: &StreamChoice,
    ) -> Result<Option<OwnedFd>, Failure> {
        let is_taken = self
            .attachments
            .iter()
            .any(|other| other.container == container.serial && other.stdin == StreamChoice::Asked);
        let is_once = container
            .stdin
            .as_ref()
            .is_some_and(|stdin| stdin.lifetime == Stdin::Once);
        if *wanted == StreamChoice::Absent || (is_once && is_taken) {
            return Ok(None);
        }
        container
            .writer_of_stdin()
            .or_fault("dup", b"stdin")
            .map_err(|fault| fault.at(Stage::Request))
    }

    fn add_sink(
        &mut self,
        container: u32,
        stream: StreamName,
        client: Client,
        socket: OwnedFd,
    ) -> Result<(), Fault> {
        let token = Source::Sink(self.serials.next()).token();
        let sink =
            Sink::new(client, socket, token, &self.epoll).or_fault("epoll_ctl", b"client")?;
        let known = self
            .fanouts
            .iter()
            .position(|fanout| fanout.is_of(container, stream));
        let index = known.unwrap_or_else(|| {
            self.fanouts.push(Fanout::new(container, stream));
            self.fanouts.len() - 1
        });
        self.fanouts[index].add(sink);
        let is_open = self
            .containers
            .iter()
            .filter(|known| known.serial == container)
            .any(|container| container.streams.iter().any(|open| open.name() == stream));
        if !is_open {
            self.change_fanout(index, |fanout, _| fanout.end());
        }
        Ok(())
    }

    /// Lets a client go.
    pub(super) fn detach(&mut self, client: Client) {
        self.end_stdin(client);
        self.attachments
            .retain(|attachment| attachment.client != client);
        self.remove_sinks(client);
    }

    /// Lets all clients of a connection go.
    pub(super) fn detach_connection(&mut self, connection: u32) {
        while let Some(attachment) = self
            .attachments
            .iter()
            .find(|attachment| attachment.client.connection == connection)
        {
            self.detach(attachment.client);
        }
    }

    /// A client's stdin has ended: a stdin that is open for one client ends with it.
    pub(super) fn end_stdin(&mut self, client: Client) {
        let Some(attachment) = self
            .attachments
            .iter_mut()
            .find(|attachment| attachment.client == client)
        else {
            return;
        };
        if std::mem::replace(&mut attachment.stdin, StreamChoice::Absent) == StreamChoice::Absent {
            return;
        }
        let serial = attachment.container;
        let container = self
            .containers
            .iter_mut()
            .find(|container| container.serial == serial);
        if let Some(container) = container {
            container
                .stdin
                .take_if(|stdin| stdin.lifetime == Stdin::Once);
        }
    }

    /// Gives what was just read from a stream to its clients.
    pub(super) fn give_to_clients(&mut self, container: u32, stream: StreamName, length: usize) {
        let fed = self
            .fanouts
            .iter()
            .position(|fanout| fanout.is_of(container, stream));
        if let Some(index) = fed {
            let was_held_back = self.fanouts[index].holds_back();
            self.fanouts[index].give(self.buffers.batch(length), &self.epoll);
            self.fanout_changed(index, was_held_back);
        }
    }

    /// A stream, or all streams of a container, say nothing more to clients.
    pub(super) fn end_for_clients(&mut self, container: u32, stream: Option<StreamName>) {
        let is_meant = |fanout: &Fanout| match stream {
            Some(stream) => fanout.is_of(container, stream),
            None => {
                fanout.is_of(container, StreamName::Stdout)
                    || fanout.is_of(container, StreamName::Stderr)
            }
        };
        while let Some(index) = self.fanouts.iter().position(is_meant) {
            self.change_fanout(index, |fanout, _| fanout.end());
        }
    }

    /// The container has ended: so have its clients, but for the rest of its output.
    pub(super) fn end_clients_of(&mut self, container: u32) {
        self.end_for_clients(container, None);
        self.attachments
            .retain(|attachment| attachment.container != container);
    }

    /// A client has room, or is gone.
    pub(super) fn serve_client(&mut self, serial: u32) {
        let token = Source::Sink(serial).token();
        let watching = self.fanouts.iter().position(|fanout| fanout.watches(token));
        if let Some(index) = watching {
            self.change_fanout(index, |fanout, epoll| fanout.serve(token, epoll));
        }
    }

    /// How long until the first client is dropped unless it takes something, in milliseconds; -1 for no such.
    pub(super) fn patience_ms(&self) -> i32 {
        let deadline = self.fanouts.iter().filter_map(Fanout::deadline).min();
        deadline.map_or(-1, |deadline| {
            let left = (deadline - uptime()).max(0);
            // Rounded up: not to wake before it is over. At most STALLED, which fits.
            (left / 1_000_000) as i32 + 1
        })
    }

    /// Drops the clients that have taken nothing for too long.
    pub(super) fn drop_stalled_clients(&mut self) {
        let now = uptime();
        let is_late = |fanout: &Fanout| fanout.deadline().is_some_and(|deadline| deadline <= now);
        while let Some(index) = self.fanouts.iter().position(is_late) {
            let dropped =
                self.change_fanout(index, |fanout, epoll| fanout.drop_stalled(now, epoll));
            for client in dropped {
                self.remove_sinks(client);
                let message = Message {
                    id: 0,
                    body: Answer::Dropped {
                        client: client.number,
                    },
                };
                self.send_to(client.connection, &message, &[]);
            }
        }
    }

    fn remove_sinks(&mut self, client: Client) {
        for index in (0..self.fanouts.len()).rev() {
            self.change_fanout(index, |fanout, epoll| fanout.remove(client, epoll));
        }
    }

    fn change_fanout<T>(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut Fanout, &Epoll) -> T,
    ) -> T {
        let fanout = &mut self.fanouts[index];
        let was_held_back = fanout.holds_back();
        let result = change(fanout, &self.epoll);
        self.fanout_changed(index, was_held_back);
        result
    }

    /// Reads its stream again or no more, and removes it when it is done.
    fn fanout_changed(&mut self, index: usize, was_held_back: bool) {
        let fanout = &mut self.fanouts[index];
        let (serial, name) = (fanout.container, fanout.stream);
        let is_held_back = fanout.holds_back();
        if fanout.is_done() {
            fanout.close_all(&self.epoll);
            self.fanouts.swap_remove(index);
        }
        let container = self
            .containers
            .iter()
            .find(|container: &&Container| container.serial == serial);
        let streams = container.map_or(&[][..], |container| &container.streams);
        let Some(stream) = streams.iter().find(|stream| stream.name() == name) else {
            return;
        };
        match (was_held_back, is_held_back) {
            (false, true) => self.epoll.remove(stream.source()),
            (true, false) => {
                // ENOMEM and the like: its container's exit still drains it.
                let _ = self
                    .epoll
                    .add(stream.source(), Source::Log(serial, name).token());
            }
            _ => {}
        }
    }
}
