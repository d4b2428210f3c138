//! Has a pause born as the daemon does.

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use podwright_pause::birth::Birth;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A child of this process that is not std's.
pub struct Process {
    pid: Pid,
    ended: Option<WaitStatus>,
}

impl Process {
    pub fn child(pid: u32) -> Self {
        Self {
            pid: Pid::from_raw(pid.cast_signed()),
            ended: None,
        }
    }

    pub fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    pub fn kill(&self) {
        if self.ended.is_none() {
            kill(self.pid, Signal::SIGKILL).unwrap();
        }
    }

    pub fn try_wait(&mut self) -> Option<WaitStatus> {
        if self.ended.is_none() {
            let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).unwrap();
            self.ended = (status != WaitStatus::StillAlive).then_some(status);
        }
        self.ended
    }
}

/// A zygote of the test's own; it ends when this is dropped.
pub struct Zygote {
    pub process: Child,
    orders: Option<OwnedFd>,
}

impl Zygote {
    pub fn start(binary: &str) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (orders, its) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let process = Command::new(binary)
            .arg0(format!("{:80}", "podwright-pause"))
            .stdin(Stdio::from(its))
            .spawn()
            .unwrap();
        Self {
            process,
            orders: Some(orders),
        }
    }

    /// Sends an order; the answer, none when the zygote ends instead.
    pub fn order(&self, id: &[u8], descriptors: &[&OwnedFd]) -> Option<Birth> {
        let orders = self.orders.as_ref().unwrap().as_raw_fd();
        let raw: Vec<_> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(orders, &[IoSlice::new(id)], control, flags, None).unwrap();
        let mut answer = [0; Birth::LENGTH];
        match recv(orders, &mut answer, MsgFlags::empty()).unwrap() {
            0 => None,
            length => Some(Birth::from_bytes(&answer[..length]).unwrap()),
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        self.orders = None;
        let status = self.process.wait().unwrap();
        // After an order that is none it has ended with a failure.
        assert!(status.code().is_some(), "{status}");
    }
}

pub fn bear(binary: &str, listener: &OwnedFd) -> Process {
    let zygote = Zygote::start(binary);
    match zygote.order(b"pod", &[listener]) {
        Some(Birth::Born { pid }) => Process::child(pid),
        other => panic!("{other:?}"),
    }
}
