//! Hooks: programs that the node's operator has run while a container is made (OCI runtime specification, config.md,
//! "POSIX-platform Hooks"). The child runs them itself, in the container's namespaces, and waits for their end.

use crate::fault::{Fault, OrFault};
use crate::sys::event::{self, Epoll};
use crate::sys::process::{self, Ended, Forked};
use crate::sys::{Errno, c_string, file};
use podwright_pause::wire::Bytes;
use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// What of a failed hook's output is told: its end.
const TOLD: usize = 400;

/// Tokens of what is waited for.
const OUTPUT: u64 = 0;
const END: u64 = 1;

/// A program to run.
pub(super) struct Hook<'a> {
    pub(super) path: &'a [u8],
    pub(super) argv: &'a [Bytes],
    pub(super) env: &'a [Bytes],
    pub(super) timeout: Duration,
    /// What it reads: the container's state, as JSON.
    pub(super) input: &'a [u8],
}

/// The ends of its streams that the hook gets.
struct Streams {
    input: OwnedFd,
    output: OwnedFd,
}

/// Runs a hook to its end.
pub(super) fn run(hook: &Hook<'_>) -> Result<(), Fault> {
    let argv = c_strings(hook.argv)?;
    let env = c_strings(hook.env)?;
    let path = c_string(hook.path).or_fault("hook", hook.path)?;
    let as_fault = |error: io::Error| Fault::new("pipe2", hook.path, raw(&error));
    let (input, mut to_hook) = io::pipe().map_err(as_fault)?;
    let (from_hook, output) = io::pipe().map_err(as_fault)?;
    file::set_nonblocking(from_hook.as_fd()).or_fault("fcntl", hook.path)?;
    // Less than a pipe holds: it does not block.
    to_hook.write_all(hook.input).map_err(as_fault)?;
    drop(to_hook);
    let streams = Streams {
        input: input.into(),
        output: output.into(),
    };
    match process::fork(0).or_fault("clone3", hook.path)? {
        Forked::Child => become_hook(&path, &argv, &env, &streams),
        Forked::Parent { pid, pidfd } => {
            drop(streams);
            follow(hook, pid, pidfd, from_hook.into())
        }
    }
}

fn raw(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn c_strings(strings: &[Bytes]) -> Result<Vec<CString>, Fault> {
    let strings = strings.iter();
    strings
        .map(|string| c_string(&string.0).or_fault("hook", &string.0))
        .collect()
}

fn become_hook(path: &CString, argv: &[CString], env: &[CString], streams: &Streams) -> ! {
    let errno = ready(streams).map_or_else(|errno| errno, |()| process::execute(path, argv, env));
    let told = format!(
        "cannot execute it: {}\n",
        io::Error::from_raw_os_error(errno.0)
    );
    let _ = file::write_value(streams.output.as_fd(), told.as_bytes());
    process::exit(127)
}

/// A session of its own, so that all of it can be killed; its streams, and no other descriptor.
fn ready(streams: &Streams) -> Result<(), Errno> {
    process::new_session()?;
    process::die_with_parent()?;
    file::duplicate_onto(streams.input.as_fd(), 0)?;
    file::duplicate_onto(streams.output.as_fd(), 1)?;
    file::duplicate_onto(streams.output.as_fd(), 2)?;
    file::close_range(3, u32::MAX, file::CloseRange::AtExec)?;
    event::default_signals();
    event::unblock_signals()
}

/// Reads what the hook writes until it has ended, or its time is over.
fn follow(hook: &Hook<'_>, pid: u32, pidfd: OwnedFd, output: OwnedFd) -> Result<(), Fault> {
    let epoll = Epoll::new().or_fault("epoll_create1", hook.path)?;
    epoll
        .add(output.as_fd(), OUTPUT)
        .and_then(|()| epoll.add(pidfd.as_fd(), END))
        .or_fault("epoll_ctl", hook.path)?;
    let deadline = Instant::now() + hook.timeout;
    let mut told = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            process::kill_group(pid);
            reap(pid);
            let seconds = hook.timeout.as_secs();
            let why = format!("did not end within {seconds} s");
            return Err(failed(hook, &why, &told, libc::ETIMEDOUT));
        }
        let timeout = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
        let ready = epoll.wait(timeout);
        let tokens: Vec<u64> = ready.tokens().collect();
        if tokens.contains(&OUTPUT) && !read(&output, &mut told) {
            epoll.remove(output.as_fd());
        }
        if tokens.contains(&END) {
            break;
        }
    }
    read(&output, &mut told);
    let ended = reap(pid);
    // Whatever it has left running must not outlive it in the container.
    process::kill_group(pid);
    match ended {
        Some(Ended {
            status: 0,
            killed: false,
            ..
        }) => Ok(()),
        Some(Ended {
            status,
            killed: true,
            ..
        }) => Err(failed(
            hook,
            &format!("was killed by signal {status}"),
            &told,
            libc::EINTR,
        )),
        Some(Ended { status, .. }) => Err(failed(
            hook,
            &format!("ended with {status}"),
            &told,
            libc::ECANCELED,
        )),
        None => Err(failed(hook, "ended unseen", &told, libc::ECHILD)),
    }
}

/// Takes what is there and keeps its end. False when no more can come.
fn read(output: &OwnedFd, told: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 1024];
    loop {
        match file::read(output.as_fd(), &mut buffer) {
            Ok(0) => return false,
            Ok(count) => {
                told.extend_from_slice(&buffer[..count]);
                told.drain(..told.len().saturating_sub(TOLD));
            }
            Err(Errno(libc::EAGAIN | libc::EINTR)) => return true,
            Err(_) => return false,
        }
    }
}

/// Reaps the hook. Others' orphans come to the first process of a PID namespace; they are reaped on the way.
fn reap(pid: u32) -> Option<Ended> {
    std::iter::from_fn(process::reap_blocking).find(|ended| ended.pid == pid)
}

fn failed(hook: &Hook<'_>, why: &str, told: &[u8], errno: i32) -> Fault {
    let mut subject = hook.path.to_vec();
    subject.extend_from_slice(b" ");
    subject.extend_from_slice(why.as_bytes());
    let told = told.trim_ascii();
    if !told.is_empty() {
        subject.extend_from_slice(b": ");
        subject.extend_from_slice(told);
    }
    Fault::new("hook", &subject, errno)
}
