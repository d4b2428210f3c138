//! What the tests speak to pause with: starts it as the daemon does, and waits for events with a deadline.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses its part of it
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

pub mod plans;
pub mod root;
pub mod zygote;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::sys::socket::{
    Backlog, ControlMessage, ControlMessageOwned, bind, connect, listen, recvmsg, sendmsg, socket,
};
use nix::sys::wait::WaitStatus;
use podwright_pause::plan::LaunchPlan;
use podwright_pause::protocol::*;
use podwright_pause::version::Version;
use podwright_pause::wire::{Bytes, Wire};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zygote::Process;

/// No event that a test waits for takes longer on a sound machine, however busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The program under test.
pub fn binary() -> String {
    std::env::var("PAUSE_BINARY").unwrap_or(env!("CARGO_BIN_EXE_pause").into())
}

/// A pod's socket, with a path that can be connected to or without.
pub fn listener(path: Option<&Path>) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    let address = match path {
        Some(path) => UnixAddr::new(path).unwrap(),
        None => UnixAddr::new_unnamed(),
    };
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(16).unwrap()).unwrap();
    listener
}

/// A pause of the test's own, killed with all of its containers when dropped.
pub struct Pause {
    pub process: Process,
    pub dir: tempfile::TempDir,
}

impl Pause {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = zygote::bear(&binary(), &listener(Some(&dir.path().join("socket"))));
        Self { process, dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn connect(&self) -> Client {
        let socket = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        connect(
            socket.as_raw_fd(),
            &UnixAddr::new(&self.path("socket")).unwrap(),
        )
        .unwrap();
        Client {
            socket,
            next: 0,
            told: VecDeque::new(),
            logs: Vec::new(),
        }
    }

    /// A connection of another user, to whom the directory and the socket are opened first.
    pub fn connect_as(&self, uid: u32) -> Client {
        for (path, mode) in [(self.dir.path(), 0o711), (&*self.path("socket"), 0o666)] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                #[allow(unsafe_code)]
                // SAFETY: takes no pointers. Of the system call itself only this thread changes its user (setresuid(2)), and it
                // ends here.
                let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
                assert_eq!(changed, 0, "{}", std::io::Error::last_os_error());
                self.connect()
            });
            other.join().unwrap()
        })
    }

    /// A connection that has said Hello.
    pub fn client(&self) -> Client {
        let mut client = self.connect();
        let (answer, _) = client.ask(
            &Request::Hello {
                version: Version::NEWEST,
            },
            &[],
        );
        assert!(
            matches!(
                answer,
                Answer::Hello {
                    version: Version::NEWEST,
                    ..
                }
            ),
            "{answer:?}"
        );
        client
    }

    /// A pause whose sandbox is made.
    pub fn ready(sandbox: SandboxPlan) -> (Self, Client) {
        let pause = Self::start();
        let mut client = pause.client();
        let (answer, _) = client.ask(&Request::Init { sandbox }, &[]);
        assert!(matches!(answer, Answer::Ready { .. }), "{answer:?}");
        (pause, client)
    }

    pub fn log(&self, name: &str) -> File {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(name))
            .unwrap()
    }

    pub fn log_text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Waits until pause has ended by itself.
    pub fn wait(&mut self) -> WaitStatus {
        until("pause ends", || self.process.try_wait().is_some());
        self.process.try_wait().unwrap()
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.process.kill();
        until("a killed pause ends", || self.process.try_wait().is_some());
    }
}

/// Polls for what no descriptor tells.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::yield_now();
    }
}

pub struct Client {
    socket: OwnedFd,
    next: u64,
    told: VecDeque<Answer>,
    logs: Vec<(Bytes, LogState)>,
}

impl Client {
    pub fn send_raw(&self, bytes: &[u8], fds: &[RawFd]) {
        let control = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() {
            &[][..]
        } else {
            &control[..]
        };
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .unwrap();
    }

    /// The next message; None when pause has closed.
    pub fn receive(&self) -> Option<(Message<Answer>, Vec<OwnedFd>)> {
        let mut poll = [nix::poll::PollFd::new(
            self.socket.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        let ready = nix::poll::poll(&mut poll, DEADLINE.as_millis() as u16).unwrap();
        assert!(ready > 0, "no answer in time");
        let mut bytes = vec![0; MAX_PACKET];
        let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let (length, fds) = {
            let mut iov = [IoSliceMut::new(&mut bytes)];
            let got = match recvmsg::<()>(
                self.socket.as_raw_fd(),
                &mut iov,
                Some(&mut control),
                MsgFlags::MSG_CMSG_CLOEXEC,
            ) {
                Err(nix::errno::Errno::ECONNRESET) => return None,
                got => got.unwrap(),
            };
            let mut fds = Vec::new();
            for message in got.cmsgs().unwrap() {
                if let ControlMessageOwned::ScmRights(raw) = message {
                    #[allow(unsafe_code)]
                    // SAFETY: the kernel has just made these descriptors for us.
                    fds.extend(
                        raw.into_iter()
                            .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                    );
                }
            }
            (got.bytes, fds)
        };
        (length > 0).then(|| (Message::from_bytes(&bytes[..length]).unwrap(), fds))
    }

    pub fn send(&mut self, request: &Request, fds: &[RawFd]) -> u64 {
        self.next += 1;
        self.send_raw(
            &Message {
                id: self.next,
                body: request.clone(),
            }
            .to_bytes(),
            fds,
        );
        self.next
    }

    pub fn ask(&mut self, request: &Request, fds: &[RawFd]) -> (Answer, Vec<OwnedFd>) {
        let id = self.send(request, fds);
        self.answer_to(id)
    }

    pub fn answer_to(&mut self, id: u64) -> (Answer, Vec<OwnedFd>) {
        loop {
            let (message, fds) = self.receive().expect("pause closed the connection");
            match message.id {
                0 => self.told.push_back(message.body),
                got => {
                    assert_eq!(got, id);
                    return (message.body, fds);
                }
            }
        }
    }

    /// What was told of logs before the exits that were waited for.
    pub fn told_logs(&mut self) -> Vec<(Bytes, LogState)> {
        std::mem::take(&mut self.logs)
    }

    /// Waits for an exit.
    pub fn exit_of(&mut self, wanted: &Target) -> Exit {
        loop {
            let told = match self.told.pop_front() {
                Some(told) => told,
                None => {
                    let (message, _) = self.receive().expect("pause closed the connection");
                    assert_eq!(message.id, 0, "{message:?}");
                    message.body
                }
            };
            match told {
                Answer::Exited { target, exit } if target == *wanted => return exit,
                Answer::Log { container, state } => self.logs.push((container, state)),
                _ => {}
            }
        }
    }

    pub fn launch(&mut self, id: &str, plan: &LaunchPlan, log: &File) -> Result<u32, Failure> {
        let plan = PlanBytes::Inline {
            plan: Bytes(plan.to_bytes()),
        };
        let request = Request::Launch {
            container: id.into(),
            plan,
        };
        launched(self.ask(&request, &[log.as_raw_fd()]).0)
    }

    /// Launches, waits for the end, and gives the log's text.
    pub fn run(&mut self, pause: &Pause, id: &str, plan: &LaunchPlan) -> (Exit, String) {
        self.launch(id, plan, &pause.log(id)).unwrap();
        let exit = self.exit_of(&container(id));
        (exit, texts(&pause.log_text(id)))
    }
}

pub fn launched(answer: Answer) -> Result<u32, Failure> {
    match answer {
        Answer::Launched { pid, .. } => Ok(pid),
        Answer::Failed { failure } => Err(failure),
        other => panic!("{other:?}"),
    }
}

pub fn container(id: &str) -> Target {
    Target::Container { id: id.into() }
}

/// A log's texts without their prefixes.
pub fn texts(log: &str) -> String {
    log.lines()
        .map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap()))
        .collect()
}
