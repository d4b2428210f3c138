//! The loop: connections, births, exits and logs, each served when it has something, none waiting for another.

mod attach;
mod births;
mod connection;
mod exits;
mod logs;
mod processes;
mod requests;
mod source;
mod starts;

use crate::attach::Fanout;
use crate::base::Base;
use crate::child::Born;
use crate::fault::{Fault, OrFault};
use crate::log::Buffers;
use crate::sandbox::Sandbox;
use crate::sys::event::{self, Epoll};
use crate::sys::memory::Region;
use attach::Attachment;
use births::Birth;
use connection::Connection;
use podwright_pause::protocol::{Answer, MAX_PACKET, Message};
use processes::{Container, Execution};
use source::{Serial, Source};
use std::os::fd::{AsFd, OwnedFd};

/// How long logs must be quiet before their buffers' pages are given back, in milliseconds.
const QUIET_MS: i32 = 3000;

/// How long a pause waits for the daemon that started it, in milliseconds. The daemon connects at once.
const UNCLAIMED_MS: i32 = 10_000;

/// How long nothing must happen before a new pod is furnished, in milliseconds: while the daemon still works for the pod, it would
/// be in its way where processors are few.
const CALM_MS: i32 = 1;

/// All that pause knows.
pub(crate) struct Supervisor {
    epoll: Epoll,
    listener: OwnedFd,
    signals: OwnedFd,
    /// pause's own PID namespace, to come back to.
    pid_namespace: OwnedFd,
    serials: Serial,
    connections: Vec<Connection>,
    births: Vec<Birth>,
    containers: Vec<Container>,
    executions: Vec<Execution>,
    attachments: Vec<Attachment>,
    fanouts: Vec<Fanout>,
    phase: Phase,
    born: Born,
    base: Option<Base>,
    buffers: Buffers,
    packet: Region,
}

/// A pause's life.
enum Phase {
    /// Before `Init`.
    New,
    /// The pod is up.
    Made(Sandbox),
    /// systemd stops the pod's scope: pause ends with the last container, and starts no more.
    Leaving(Sandbox),
    /// `Shutdown` was asked, or the sandbox could not be made; ends when all processes have.
    Ending(Option<Sandbox>),
}

impl Supervisor {
    /// `listener` is the pod's socket, `signals` readable on SIGCHLD.
    pub(crate) fn new(
        listener: OwnedFd,
        signals: OwnedFd,
        born: Born,
        base: Option<Base>,
    ) -> Result<Self, Fault> {
        let epoll = Epoll::new().or_fault("epoll_create1", b"")?;
        crate::sys::file::set_nonblocking(listener.as_fd()).or_fault("fcntl", b"listener")?;
        epoll
            .add(listener.as_fd(), Source::Listener.token())
            .or_fault("epoll_ctl", b"listener")?;
        epoll
            .add(signals.as_fd(), Source::Signals.token())
            .or_fault("epoll_ctl", b"signalfd")?;
        let pid_namespace = std::fs::File::open("/proc/self/ns/pid")
            .or_fault("open", b"/proc/self/ns/pid")?
            .into();
        Ok(Self {
            epoll,
            listener,
            signals,
            pid_namespace,
            serials: Serial::default(),
            connections: Vec::new(),
            births: Vec::new(),
            containers: Vec::new(),
            executions: Vec::new(),
            attachments: Vec::new(),
            fanouts: Vec::new(),
            phase: Phase::New,
            born,
            base,
            buffers: Buffers::new().or_fault("mmap", b"")?,
            packet: Region::new(MAX_PACKET).or_fault("mmap", b"")?,
        })
    }

    /// Serves until the pod is shut down.
    pub(crate) fn run(mut self) -> Result<(), Fault> {
        while !self.has_ended() {
            let is_unclaimed = matches!(self.phase, Phase::New) && self.connections.is_empty();
            let timeout = match (is_unclaimed, self.buffers.are_used()) {
                (true, _) => UNCLAIMED_MS,
                (false, true) => sooner(QUIET_MS, self.patience_ms()),
                (false, false) => self.patience_ms(),
            };
            let unfurnished = match &mut self.phase {
                Phase::Made(sandbox) if sandbox.is_unfurnished() => Some(sandbox),
                _ => None,
            };
            let timeout = match unfurnished {
                Some(_) => sooner(CALM_MS, timeout),
                None => timeout,
            };
            let ready = self.epoll.wait(timeout);
            if ready.timed_out()
                && let Some(sandbox) = unfurnished
            {
                sandbox.furnish();
            }
            if is_unclaimed && ready.timed_out() {
                // The daemon died between starting this process and connecting to it.
                return Ok(());
            }
            for token in ready.tokens() {
                self.serve(Source::from_token(token));
            }
            self.drop_stalled_clients();
            self.buffers.release_when_quiet();
        }
        Ok(())
    }

    fn serve(&mut self, source: Source) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => {
                let is_told_to_end = event::take_signals(self.signals.as_fd());
                self.reap();
                if is_told_to_end {
                    self.take_no_more();
                }
                self.leave_with_the_last();
            }
            Source::Connection(serial) => self.receive(serial),
            Source::Birth(serial) => self.hear(serial),
            Source::Log(serial, stream) => self.copy_log(serial, stream),
            Source::Sink(serial) => self.serve_client(serial),
        }
    }

    fn has_ended(&self) -> bool {
        match &self.phase {
            Phase::New | Phase::Made(_) | Phase::Leaving(_) => false,
            Phase::Ending(sandbox) => {
                let init = sandbox
                    .as_ref()
                    .is_some_and(|sandbox| sandbox.init.is_some());
                !init && !self.has_running() && self.executions.is_empty()
            }
        }
    }

    /// Tells every daemon that has introduced itself.
    fn tell_all(&mut self, answer: Answer) {
        let message = Message {
            id: 0,
            body: answer,
        };
        let failed: Vec<u32> = self
            .connections
            .iter()
            .filter(|connection| connection.greeted && connection.send(&message, &[]).is_err())
            .map(|connection| connection.serial)
            .collect();
        failed
            .into_iter()
            .for_each(|serial| self.close_connection(serial));
    }

    fn answer(&mut self, asker: connection::Asker, answer: Answer, fds: &[OwnedFd]) {
        let message = Message {
            id: asker.request,
            body: answer,
        };
        self.send_to(asker.connection, &message, fds);
    }

    fn send_to(&mut self, serial: u32, message: &Message<Answer>, fds: &[OwnedFd]) {
        let connection = self
            .connections
            .iter()
            .find(|connection| connection.serial == serial);
        if connection.is_some_and(|connection| connection.send(message, fds).is_err()) {
            self.close_connection(serial);
        }
    }
}

/// The shorter of two times in milliseconds, where -1 is for ever.
fn sooner(one: i32, other: i32) -> i32 {
    if other < 0 { one } else { one.min(other) }
}
