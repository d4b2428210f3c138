//! Processes: making, entering, judging and reaping them.
#![allow(unsafe_code)] // raw system calls

use super::{Errno, Result, check};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The new process. Its copies of the parent's values must not be dropped: it executes or ends.
    Child,
    /// The one that forked.
    Parent {
        /// The child's process id in the parent's PID namespace.
        pid: u32,
        /// Refers to the child whatever becomes of the number.
        pidfd: OwnedFd,
    },
}

/// clone3(2) as fork(2), with `namespaces` (`CLONE_NEW*`) for the child. The child tells its end by SIGCHLD.
pub(crate) fn fork(namespaces: u64) -> Result<Forked> {
    clone(namespaces, libc::SIGCHLD as u64, None)
}

/// As [`fork`], into a group of cgroup v2, given by its directory.
pub(crate) fn fork_into(namespaces: u64, cgroup: BorrowedFd<'_>) -> Result<Forked> {
    clone(namespaces, libc::SIGCHLD as u64, Some(cgroup))
}

/// As [`fork`], but the new process is a child of this one's parent, and its end is told there as this one's would be: with
/// CLONE_PARENT "the exit signal must be 0" (clone(2)).
pub(crate) fn fork_sibling(namespaces: u64) -> Result<Forked> {
    clone(namespaces | libc::CLONE_PARENT as u64, 0, None)
}

/// Both: a child of this one's parent, in that group.
pub(crate) fn fork_sibling_into(cgroup: BorrowedFd<'_>) -> Result<Forked> {
    clone(libc::CLONE_PARENT as u64, 0, Some(cgroup))
}

/// CLONE_INTO_CGROUP of `linux/sched.h`; libc's is of a type that it does not fit into on all targets.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn clone(flags: u64, exit_signal: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain numbers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = exit_signal;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        // A descriptor is never negative.
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM the child has its own copy of all memory, this stack included. This process has one thread,
    // so no lock is held in the copy. The kernel writes `pidfd` before it returns to the parent.
    unsafe {
        match check(libc::syscall(
            libc::SYS_clone3,
            &args,
            size_of::<libc::clone_args>(),
        ))? {
            0 => Ok(Forked::Child),
            pid => Ok(Forked::Parent {
                pid: pid as u32,
                pidfd: OwnedFd::from_raw_fd(pidfd),
            }),
        }
    }
}

/// Ends this process at once: no destructors, no buffers.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: never returns, and runs nothing of this process.
    unsafe { libc::_exit(code) }
}

/// setns(2). With several kinds, `fd` is a pidfd.
pub(crate) fn enter_namespaces(fd: BorrowedFd<'_>, kinds: i32) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }.into())?;
    Ok(())
}

/// unshare(2).
pub(crate) fn unshare(kinds: i32) -> Result<()> {
    // SAFETY: takes no pointers; this process has one thread, so nothing is unshared from under another.
    check(unsafe { libc::unshare(kinds) }.into())?;
    Ok(())
}

/// sethostname(2).
pub(crate) fn set_hostname(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads the slice's length from it during the call.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into())?;
    Ok(())
}

/// Starts a session of its own.
pub(crate) fn new_session() -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::setsid() }.into())?;
    Ok(())
}

/// How a process ended, as waitid(2) tells it.
pub(crate) struct Ended {
    pub(crate) pid: u32,
    /// The exit code, or the signal's number.
    pub(crate) status: i32,
    pub(crate) killed: bool,
}

/// Reaps one child that has ended, if there is one.
pub(crate) fn reap() -> Option<Ended> {
    wait(libc::WNOHANG)
}

/// Waits until a child ends, and reaps it. None without children.
pub(crate) fn reap_blocking() -> Option<Ended> {
    wait(0)
}

fn wait(how: i32) -> Option<Ended> {
    // SAFETY: siginfo_t is plain data, for which zero is valid. The kernel fills it; with WNOHANG and nothing to tell,
    // si_pid stays 0. The fields read are those that SIGCHLD's siginfo has.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        check(libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | how).into()).ok()?;
        let pid = u32::try_from(info.si_pid()).ok().filter(|&pid| pid != 0)?;
        let killed = matches!(info.si_code, libc::CLD_KILLED | libc::CLD_DUMPED);
        Some(Ended {
            pid,
            status: info.si_status(),
            killed,
        })
    }
}

/// pidfd_send_signal(2).
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo asks for the one that kill(2) would send.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<u8>(),
            0,
        )
    })?;
    Ok(())
}

/// SIGKILL for a process that is named by a list of the kernel's, read just now.
pub(crate) fn kill(pid: u32) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 0
    {
        // SAFETY: takes no pointers. A process that is gone is what is wanted.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Kills the process group that a child of this process leads. The child must not have been reaped: until then nobody
/// else can get its number.
pub(crate) fn kill_group(leader: u32) {
    if let Ok(group) = i32::try_from(leader) {
        // SAFETY: takes no pointers. A group that is gone is what is wanted.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

fn prctl(option: i32, a: u64, b: u64) -> Result<()> {
    // SAFETY: only options whose arguments are numbers are passed by the callers below.
    check(unsafe { libc::prctl(option, a, b, 0, 0) }.into())?;
    Ok(())
}

/// Orphans of this process's descendants become its children.
pub(crate) fn become_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)
}

/// Nobody without CAP_SYS_PTRACE may look into this process's memory and /proc files, or open its executable there.
pub(crate) fn forbid_dumps() -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0)
}

/// SIGKILL when the parent ends. Changes of ids clear it (PR_SET_PDEATHSIG(2const)).
pub(crate) fn die_with_parent() -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0)
}

/// What `ps -o comm` shows; at most 15 bytes count.
pub(crate) fn set_name(name: &CStr) -> Result<()> {
    // SAFETY: the kernel reads up to the terminating NUL, at most 16 bytes.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) }.into())?;
    Ok(())
}

/// PR_SET_NO_NEW_PRIVS.
pub(crate) fn deny_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Whether permitted capabilities outlast the change from uid 0 to another.
pub(crate) fn keep_capabilities() -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)
}

/// Drops a capability from the bounding set. EINVAL: the kernel has none of that number.
pub(crate) fn drop_bounding(capability: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0)
}

/// Whether a capability is in the bounding set. EINVAL: the kernel has none of that number.
pub(crate) fn is_bounding(capability: u32) -> Result<bool> {
    // SAFETY: takes no pointers.
    check(
        unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability as libc::c_ulong, 0, 0, 0) }.into(),
    )
    .map(|set| set == 1)
}

/// Empties the ambient set.
pub(crate) fn clear_ambient() -> Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as u64,
        0,
    )
}

/// Adds a capability to the ambient set.
pub(crate) fn raise_ambient(capability: u32) -> Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_RAISE as u64,
        capability.into(),
    )
}

/// A process's capability sets as masks.
#[derive(Clone, Copy)]
pub(crate) struct CapabilitySets {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

/// _LINUX_CAPABILITY_VERSION_3: two words per set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// capget(2) of this process.
pub(crate) fn capabilities() -> Result<CapabilitySets> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut words = [CapabilityWords::default(); 2];
    // SAFETY: version 3 has two elements, which the kernel fills; both live across the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &mut header, words.as_mut_ptr()) })?;
    let [low, high] = words;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(CapabilitySets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// capset(2) of this process.
pub(crate) fn set_capabilities(sets: CapabilitySets) -> Result<()> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let words = [0, 32].map(|shift| CapabilityWords {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    });
    // SAFETY: version 3 has two elements, which the kernel reads; both live across the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &mut header, words.as_ptr()) })?;
    Ok(())
}

/// setgroups(2).
pub(crate) fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads as many elements as the slice has.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// setresgid(2), all three.
pub(crate) fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    Ok(())
}

/// setresuid(2), all three.
pub(crate) fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// This process's effective user id.
pub(crate) fn own_uid() -> u32 {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { libc::geteuid() }
}

/// prlimit(2) of this process.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    // SAFETY: struct rlimit64 is two 64-bit numbers, read during the call; the old limit is not asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &limit,
            ptr::null_mut::<u8>(),
        )
    })?;
    Ok(())
}

/// seccomp(2): installs a filter given as the bytes of a `struct sock_filter` array.
pub(crate) fn filter_system_calls(program: &[u8]) -> Result<()> {
    const SET_MODE_FILTER: u32 = 1;
    const INSTRUCTION: usize = size_of::<libc::sock_filter>();
    let count = u16::try_from(program.len() / INSTRUCTION).map_err(|_| Errno(libc::EINVAL))?;
    if !program.len().is_multiple_of(INSTRUCTION) {
        return Err(Errno(libc::EINVAL));
    }
    // The kernel copies the program as bytes, so that its alignment here does not matter.
    let filter = libc::sock_fprog {
        len: count,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel reads `count` instructions of 8 bytes each, which `program` holds, and checks them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0, &filter) })?;
    Ok(())
}

/// execve(2). Returns only when it failed.
pub(crate) fn execute(program: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with null, and the strings they point to outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    std::io::Error::last_os_error().into()
}

/// CLOCK_REALTIME in nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    clock(libc::CLOCK_REALTIME)
}

/// CLOCK_MONOTONIC in nanoseconds: for spans of time, whatever is done to the machine's clock.
pub(crate) fn uptime() -> i64 {
    clock(libc::CLOCK_MONOTONIC)
}

fn clock(clock: libc::clockid_t) -> i64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: both clocks always exist, so the kernel fills `time`.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
