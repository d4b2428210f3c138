//! Children that have not executed their program yet.

use super::Supervisor;
use super::connection::Asker;
use super::processes::{Container, Execution, Life};
use super::source::Source;
use crate::child::Groups;
use crate::fault::Fault;
use crate::launch::{Ends, Newborn};
use crate::log::{LogFile, Stream, StreamName};
use crate::report::Report;
use crate::sys::process::Ended;
use crate::sys::{Errno, file, process, socket};
use podwright_pause::protocol::{Answer, Failure, Stage};
use podwright_pause::wire::{Bytes, Wire};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// A child between fork and exec. It ends as
/// - a process, when its report socket closes after `Executing`, which execve does;
/// - a failure, when it has been reaped: then nothing of it is left, and the daemon is told.
pub(super) struct Birth {
    pub(super) serial: u32,
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) report: OwnedFd,
    ends: Ends,
    asker: Asker,
    purpose: Purpose,
    terminal: Option<OwnedFd>,
    progress: Progress,
}

/// What the child is to become.
pub(super) enum Purpose {
    Container { id: Bytes, log: Option<File> },
    Exec { number: u64, group: Option<Bytes> },
}

/// What the child has told.
enum Progress {
    Preparing,
    Executing,
    Failed(Failure),
}

impl Birth {
    pub(super) fn new(serial: u32, newborn: Newborn, asker: Asker, purpose: Purpose) -> Self {
        let Newborn {
            pid,
            pidfd,
            report,
            ends,
        } = newborn;
        Self {
            serial,
            pid,
            pidfd,
            report,
            ends,
            asker,
            purpose,
            terminal: None,
            progress: Progress::Preparing,
        }
    }

    pub(super) fn is_container(&self, wanted: &Bytes) -> bool {
        matches!(&self.purpose, Purpose::Container { id, .. } if id == wanted)
    }

    /// Whether this connection asked for it.
    pub(super) fn is_asked_by(&self, connection: u32) -> bool {
        self.asker.connection == connection
    }

    /// Why it ended before it was a process. Its descriptors are closed before the daemon is told.
    fn into_failure(self, ended: &Ended) -> Failure {
        if let Progress::Failed(failure) = self.progress {
            return failure;
        }
        let how = if ended.killed {
            "ended by signal "
        } else {
            "ended with code "
        };
        let subject = format!("{how}{}", ended.status);
        Fault::new("child", subject.as_bytes(), libc::ECHILD).at(Stage::Birth)
    }

    /// Takes the reports that have come. True when no more can come.
    fn take_reports(&mut self) -> bool {
        let mut packet = [0; 2048];
        loop {
            let received = match socket::receive(self.report.as_fd(), &mut packet) {
                Err(Errno(libc::EINTR)) => continue,
                Err(Errno(libc::EAGAIN)) => return false,
                Err(_) => return true,
                Ok(received) if received.length == 0 => return true,
                Ok(received) => received,
            };
            match Report::from_bytes(&packet[..received.length]) {
                Ok(Report::Terminal) => self.terminal = received.fds.into_iter().next(),
                Ok(Report::HandedOver { pid }) => match received.fds.into_iter().next() {
                    Some(pidfd) => (self.pid, self.pidfd) = (pid, pidfd),
                    None => {
                        let fault = Fault::new("report", b"without a pidfd", libc::EBADF);
                        self.progress = Progress::Failed(fault.at(Stage::Birth));
                    }
                },
                Ok(Report::Executing) => self.progress = Progress::Executing,
                Ok(Report::Failed { failure }) => self.progress = Progress::Failed(failure),
                // The child is a copy of this program and its subjects are bounded: this tells a damaged child.
                Err(error) => {
                    let fault = Fault::new("report", error.to_string().as_bytes(), libc::EMSGSIZE);
                    self.progress = Progress::Failed(fault.at(Stage::Birth));
                }
            }
        }
    }
}

impl Supervisor {
    /// A child has told all that it will.
    pub(super) fn hear(&mut self, serial: u32) {
        let Some(index) = self.births.iter().position(|birth| birth.serial == serial) else {
            return;
        };
        let birth = &mut self.births[index];
        if !birth.take_reports() {
            return;
        }
        self.epoll.remove(birth.report.as_fd());
        if matches!(birth.progress, Progress::Executing) {
            let birth = self.births.swap_remove(index);
            self.began(birth);
        }
    }

    /// A child has ended. True if it had not become a process: then its failure was told.
    pub(super) fn settle_birth(&mut self, ended: &Ended) -> bool {
        // A child that has handed its plan over is another process from then on: what was told comes before who has ended.
        for birth in &mut self.births {
            birth.take_reports();
        }
        let Some(index) = self.births.iter().position(|birth| birth.pid == ended.pid) else {
            return false;
        };
        let birth = self.births.swap_remove(index);
        self.epoll.remove(birth.report.as_fd());
        if matches!(birth.progress, Progress::Executing) {
            self.began(birth);
            return false;
        }
        let asker = birth.asker;
        let failure = birth.into_failure(ended);
        self.answer(asker, Answer::Failed { failure }, &[]);
        true
    }

    /// A child runs its program now.
    fn began(&mut self, birth: Birth) {
        let Birth {
            serial,
            pid,
            pidfd,
            ends,
            asker,
            purpose,
            terminal,
            ..
        } = birth;
        let at = process::now();
        let mut fds = Vec::new();
        match purpose {
            Purpose::Exec { number, group } => {
                fds.extend(
                    terminal
                        .as_ref()
                        .and_then(|terminal| terminal.try_clone().ok()),
                );
                let execution = Execution {
                    number,
                    pid,
                    pidfd,
                    owner: asker.connection,
                    group,
                    terminal,
                };
                let mut connections = self.connections.iter();
                if !connections.any(|connection| connection.serial == asker.connection) {
                    execution.kill();
                }
                self.executions.push(execution);
            }
            Purpose::Container { id, log } => {
                let mut outputs = ends.outputs;
                outputs.extend(
                    terminal.as_ref().and_then(|terminal| {
                        Some((StreamName::Stdout, terminal.try_clone().ok()?))
                    }),
                );
                let streams = outputs
                    .into_iter()
                    .filter_map(|(name, source)| self.watch(serial, name, source))
                    .collect();
                self.containers.push(Container {
                    serial,
                    id,
                    pid,
                    started_at: at,
                    life: Life::Running {
                        pidfd,
                        groups: Groups::default(),
                    },
                    log: log.map(LogFile::new),
                    streams,
                    stdin: ends.stdin,
                    terminal,
                });
            }
        }
        self.answer(asker, Answer::Launched { pid, at }, &fds);
    }

    fn watch(&self, serial: u32, name: StreamName, source: OwnedFd) -> Option<Stream> {
        file::set_nonblocking(source.as_fd()).ok()?;
        self.epoll
            .add(source.as_fd(), Source::Log(serial, name).token())
            .ok()?;
        Some(Stream::new(source, name))
    }
}
