//! Requests that are answered at once.

use super::attach::Wanted;
use super::connection::Asker;
use super::{Container, Phase, Supervisor};
use crate::fault::{Fault, OrFault};
use crate::log::StreamName;
use crate::sandbox::Sandbox;
use crate::sys::{process, socket, terminal};
use podwright_pause::protocol::{
    Answer, Failure, REFUSED_VERSION, Request, SandboxPlan, SandboxState, Stage, StreamChoice,
    Target,
};
use podwright_pause::version::{Version, Versions};
use podwright_pause::wire::Bytes;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

type Reply = Result<(Answer, Vec<OwnedFd>), Failure>;

fn done() -> Reply {
    Ok((Answer::Done, Vec::new()))
}

fn refuse(what: &'static str, subject: &[u8], errno: i32) -> Failure {
    Fault::new(what, subject, errno).at(Stage::Request)
}

impl Supervisor {
    /// Does what is asked. A child's own report answers for it if it is started.
    pub(super) fn handle(&mut self, asker: Asker, request: Request, fds: Vec<OwnedFd>) {
        let reply = match request {
            Request::Launch { container, plan } => {
                match self.launch(asker, container, &plan, fds) {
                    Ok(()) => return,
                    Err(failure) => Err(failure),
                }
            }
            Request::Exec {
                exec,
                container,
                plan,
            } => match self.exec(asker, exec, &container, &plan, fds) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
            Request::Hello { version } => self.hello(asker, version),
            Request::Init { sandbox } => self.init(&sandbox, fds),
            Request::Signal { target, signal } => self.signal(&target, signal),
            Request::ReopenLog { container } => self.reopen_log(&container, fds),
            Request::Resize {
                target,
                rows,
                columns,
            } => self.resize(&target, rows, columns),
            Request::List => Ok((
                Answer::Containers {
                    containers: self.containers.iter().map(Container::entry).collect(),
                },
                Vec::new(),
            )),
            Request::Forget { container } => self.forget(&container),
            Request::Socket {
                domain,
                kind,
                protocol,
            } => match socket::socket(domain, kind, protocol).or_fault("socket", b"") {
                Ok(socket) => Ok((Answer::Done, vec![socket])),
                Err(fault) => Err(fault.at(Stage::Request)),
            },
            Request::Shutdown => return self.shut_down(),
            Request::Attach {
                container,
                client,
                stdin,
                stdout,
                stderr,
            } => {
                let outputs = [(stdout, StreamName::Stdout), (stderr, StreamName::Stderr)];
                let asked = outputs
                    .into_iter()
                    .filter(|(choice, _)| *choice == StreamChoice::Asked);
                let outputs = asked.map(|(_, name)| name).collect();
                self.attach(asker, client, &container, Wanted { stdin, outputs }, fds)
                    .map(|stdin| (Answer::Done, stdin.into_iter().collect()))
            }
            Request::EndStdin { client } => {
                self.end_stdin(asker.client(client));
                done()
            }
            #[cfg(feature = "next-protocol")]
            Request::Rehearse { text } => Ok((Answer::Rehearsed { text }, Vec::new())),
            Request::Detach { client } => {
                self.detach(asker.client(client));
                done()
            }
        };
        match reply {
            Ok((answer, fds)) => self.answer(asker, answer, &fds),
            Err(failure) => self.answer(asker, Answer::Failed { failure }, &[]),
        }
    }

    fn hello(&mut self, asker: Asker, theirs: Version) -> Reply {
        let spoken = Versions::spoken();
        let version = spoken.with(theirs).ok_or_else(|| {
            let range = spoken.to_string();
            refuse(REFUSED_VERSION, range.as_bytes(), libc::EPROTONOSUPPORT)
        })?;
        if let Some(connection) = self
            .connections
            .iter_mut()
            .find(|connection| connection.serial == asker.connection)
        {
            connection.greeted = true;
            connection.version = version;
        }
        let sandbox = match self.phase {
            Phase::Made(_) | Phase::Leaving(_) => SandboxState::Made,
            Phase::New | Phase::Ending(_) => SandboxState::New,
        };
        Ok((
            Answer::Hello {
                version,
                pid: std::process::id(),
                sandbox,
            },
            Vec::new(),
        ))
    }

    fn init(&mut self, plan: &SandboxPlan, fds: Vec<OwnedFd>) -> Reply {
        if !matches!(self.phase, Phase::New) {
            return Err(refuse("sandbox is made", &plan.pod.0, libc::EEXIST));
        }
        let network = fds.into_iter().next();
        let (sandbox, fds) = Sandbox::make(plan, network, self.born)?;
        let pid_init = sandbox.init.as_ref().map_or(0, |init| init.pid);
        self.phase = Phase::Made(sandbox);
        Ok((Answer::Ready { pid_init }, fds))
    }

    fn container(&mut self, id: &Bytes) -> Result<&mut Container, Failure> {
        self.containers
            .iter_mut()
            .find(|container| container.id == *id)
            .ok_or_else(|| refuse("container", &id.0, libc::ENOENT))
    }

    /// A target's first process, if it runs, and its terminal.
    fn running(&self, target: &Target) -> Result<(BorrowedFd<'_>, Option<&OwnedFd>), Failure> {
        let gone = || refuse("process", b"", libc::ESRCH);
        match target {
            Target::Container { id } => {
                let container = self
                    .containers
                    .iter()
                    .find(|container| container.id == *id)
                    .ok_or_else(gone)?;
                Ok((
                    container.pidfd().ok_or_else(gone)?,
                    container.terminal.as_ref(),
                ))
            }
            Target::Exec { exec } => {
                let execution = self
                    .executions
                    .iter()
                    .find(|execution| execution.number == *exec)
                    .ok_or_else(gone)?;
                Ok((execution.pidfd.as_fd(), execution.terminal.as_ref()))
            }
        }
    }

    fn signal(&mut self, target: &Target, signal: i32) -> Reply {
        let (pidfd, _) = self.running(target)?;
        process::signal(pidfd, signal)
            .or_fault("pidfd_send_signal", b"")
            .map_err(|fault| fault.at(Stage::Request))?;
        done()
    }

    fn resize(&mut self, target: &Target, rows: u16, columns: u16) -> Reply {
        let (_, terminal) = self.running(target)?;
        let terminal = terminal.ok_or_else(|| refuse("terminal", b"", libc::ENOTTY))?;
        terminal::resize(terminal.as_fd(), rows, columns)
            .or_fault("ioctl TIOCSWINSZ", b"")
            .map_err(|fault| fault.at(Stage::Request))?;
        done()
    }

    fn reopen_log(&mut self, id: &Bytes, fds: Vec<OwnedFd>) -> Reply {
        let file = fds
            .into_iter()
            .next()
            .ok_or_else(|| refuse("descriptor of the log", &id.0, libc::EBADF))?;
        let log = self
            .container(id)?
            .log
            .as_mut()
            .ok_or_else(|| refuse("log", &id.0, libc::ENOENT))?;
        log.replace(File::from(file));
        done()
    }

    fn forget(&mut self, id: &Bytes) -> Reply {
        if self.container(id)?.pidfd().is_some() {
            return Err(refuse("container is running", &id.0, libc::EBUSY));
        }
        if let Some(index) = self
            .containers
            .iter()
            .position(|container| container.id == *id)
        {
            let container = self.containers.swap_remove(index);
            container
                .streams
                .iter()
                .for_each(|stream| self.epoll.remove(stream.source()));
            self.end_clients_of(container.serial);
        }
        done()
    }

    /// Kills all that pause has started; the loop ends when it is reaped.
    fn shut_down(&mut self) {
        let sandbox = match std::mem::replace(&mut self.phase, Phase::Ending(None)) {
            Phase::Made(sandbox) | Phase::Leaving(sandbox) => Some(sandbox),
            Phase::Ending(sandbox) => sandbox,
            Phase::New => None,
        };
        let init = sandbox
            .as_ref()
            .and_then(|sandbox| sandbox.init.as_ref())
            .map(|init| init.pidfd.as_fd());
        let containers = self.containers.iter().filter_map(Container::pidfd);
        let births = self.births.iter().map(|birth| birth.pidfd.as_fd());
        for pidfd in containers.chain(births).chain(init) {
            let _ = process::signal(pidfd, libc::SIGKILL);
        }
        self.executions
            .iter()
            .for_each(|execution| process::kill_group(execution.pid));
        self.phase = Phase::Ending(sandbox);
    }

    /// systemd has sent SIGTERM to all of the pod's scope, and SIGKILL follows to what is still there later.
    pub(super) fn take_no_more(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ending(None)) {
            Phase::Made(sandbox) => Phase::Leaving(sandbox),
            Phase::New => Phase::Ending(None),
            phase @ (Phase::Leaving(_) | Phase::Ending(_)) => phase,
        };
    }

    /// Without containers, a pod that is stopped has nothing to wait for.
    pub(super) fn leave_with_the_last(&mut self) {
        if matches!(self.phase, Phase::Leaving(_)) && !self.has_running() {
            self.shut_down();
        }
    }

    /// Whether a container runs or is about to.
    pub(super) fn has_running(&self) -> bool {
        let mut containers = self.containers.iter();
        !self.births.is_empty() || containers.any(|container| container.pidfd().is_some())
    }
}
