//! epoll(7) and signalfd(2).
#![allow(unsafe_code)] // raw system calls

use super::{Result, check};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An epoll instance. Sources are watched level-triggered, and carry a number of the caller's.
pub(crate) struct Epoll(OwnedFd);

/// What a source is watched for. Its end is told in any case.
#[derive(Clone, Copy)]
pub(crate) enum Interest {
    /// Something to read.
    Input,
    /// Room to write.
    Room,
    /// Nothing but its end.
    End,
}

impl Interest {
    fn event(self, token: u64) -> libc::epoll_event {
        let events = match self {
            Self::Input => libc::EPOLLIN,
            Self::Room => libc::EPOLLOUT,
            Self::End => 0,
        };
        libc::epoll_event {
            events: events as u32,
            u64: token,
        }
    }
}

/// The most events taken at once.
const BATCH: usize = 32;

/// The numbers of the sources that are ready.
pub(crate) struct Ready {
    events: [libc::epoll_event; BATCH],
    count: usize,
    timed_out: bool,
}

impl Ready {
    /// Whether nothing happened for the whole time.
    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = u64> + '_ {
        self.events.iter().take(self.count).map(|event| event.u64)
    }
}

impl Epoll {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: takes no pointers; a non-negative result is a new descriptor that nobody else owns.
        unsafe {
            let fd = check(libc::syscall(libc::SYS_epoll_create1, libc::EPOLL_CLOEXEC))?;
            Ok(Self(OwnedFd::from_raw_fd(fd as i32)))
        }
    }

    /// Watches for input.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, Interest::Input.event(token))
    }

    /// Watches for nothing but the end, for now.
    pub(crate) fn add_idle(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, Interest::End.event(token))
    }

    /// Watches for something else.
    pub(crate) fn change(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest.event(token))
    }

    fn control(&self, what: i32, fd: BorrowedFd<'_>, mut event: libc::epoll_event) -> Result<()> {
        // SAFETY: `event` is read during the call only.
        let returned =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, fd.as_raw_fd(), &raw mut event) };
        check(returned.into())?;
        Ok(())
    }

    /// Must precede the closing of a descriptor that children may still hold: epoll watches the open file, not the number.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        // An error means that it was not watched, which is what is wanted.
        // SAFETY: EPOLL_CTL_DEL ignores the event pointer (Linux 2.6.9).
        unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                fd.as_raw_fd(),
                std::ptr::null_mut(),
            )
        };
    }

    /// Waits until a source is ready, or for `timeout_ms` (-1: for ever). Interrupted is as good as nothing ready.
    pub(crate) fn wait(&self, timeout_ms: i32) -> Ready {
        let mut ready = Ready {
            events: [libc::epoll_event { events: 0, u64: 0 }; BATCH],
            count: 0,
            timed_out: false,
        };
        // SAFETY: the kernel writes at most BATCH events into the array, which outlives the call.
        let count = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                ready.events.as_mut_ptr(),
                BATCH as i32,
                timeout_ms,
            )
        };
        // A negative count is an interruption (EINTR), no timeout.
        ready.timed_out = count == 0;
        ready.count = usize::try_from(count).unwrap_or(0);
        ready
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The kernel's signal set, whose size system calls ask for.
const SIGSET_BYTES: usize = 8;

/// Blocks every signal that can be blocked and gives a descriptor that is readable on SIGCHLD and SIGTERM.
pub(crate) fn block_signals() -> Result<OwnedFd> {
    let all: u64 = !0;
    let taken: u64 = 1 << (libc::SIGCHLD - 1) | 1 << (libc::SIGTERM - 1);
    // SAFETY: both masks are 8 bytes, as the size says, and are read during the calls only; the descriptor is new.
    unsafe {
        check(libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &all,
            std::ptr::null::<u64>(),
            SIGSET_BYTES,
        ))?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let fd = check(libc::syscall(
            libc::SYS_signalfd4,
            -1,
            &taken,
            SIGSET_BYTES,
            flags,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Unblocks every signal.
pub(crate) fn unblock_signals() -> Result<()> {
    let none: u64 = 0;
    // SAFETY: the mask is 8 bytes, as the size says, and read during the call only.
    unsafe {
        check(libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &none,
            std::ptr::null::<u64>(),
            SIGSET_BYTES,
        ))?;
    }
    Ok(())
}

/// Gives every signal its default action: an ignored signal would stay ignored across exec. By the system call, for libc's
/// function refuses the signals that it uses itself, which may be inherited as ignored like any other.
pub(crate) fn default_signals() {
    // The kernel's struct sigaction: handler SIG_DFL, no flags, no restorer, no mask; on all architectures at most this long.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no code; the kernel reads the struct during the call. SIGKILL and SIGSTOP are refused,
        // and have no action to reset.
        unsafe {
            let null = std::ptr::null_mut::<u8>();
            libc::syscall(libc::SYS_rt_sigaction, signal, &default, null, SIGSET_BYTES);
        }
    }
}

/// Has the kernel reap every child by itself: sigaction(2), SIGCHLD with SIG_IGN.
pub(crate) fn ignore_child_exits() {
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Takes what a signalfd holds; whether a SIGTERM of the machine's first process was among it, which is how systemd stops a
/// unit. Children's ends are told by waitid(2), and anybody else's SIGTERM counts for nothing.
pub(crate) fn take_signals(fd: BorrowedFd<'_>) -> bool {
    const INIT: u32 = 1;
    let mut is_told_to_end = false;
    loop {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of_val(&info);
        // SAFETY: the kernel writes at most `size` bytes into `info`, which lives until the call returns.
        let read = unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if read != size as isize {
            return is_told_to_end;
        }
        // SAFETY: the kernel has written the whole structure, which is plain numbers (signalfd(2)).
        let info = unsafe { info.assume_init() };
        is_told_to_end |= info.ssi_signo == libc::SIGTERM as u32 && info.ssi_pid == INIT;
    }
}

/// Sleeps until a signal ends the process.
pub(crate) fn sleep_for_ever() -> ! {
    loop {
        // SAFETY: without descriptors, timeout and mask, ppoll(2) touches no memory.
        unsafe {
            let null = std::ptr::null::<u8>();
            libc::syscall(libc::SYS_ppoll, null, 0, null, null, SIGSET_BYTES);
        }
    }
}
