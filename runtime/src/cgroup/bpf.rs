//! bpf(2): a device program, loaded, attached to a cgroup and detached again.
//!
//! A cgroup holds a reference to its programs and drops it when it is removed, so no descriptor is kept, and nothing
//! is left to clean up after a crash. A BPF link would be one more object to hold: it takes its program along when its last
//! descriptor is closed, and containers outlive the daemon.
#![allow(unsafe_code)] // libc has no safe call for this system call.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::device_program::Instruction;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: several programs on one cgroup, and programs on those below it; each of them has to allow.
const ALLOW_MULTI: u32 = 2;
/// `BPF_F_REPLACE`: in place of another, at once (Linux 5.6).
const REPLACE: u32 = 4;
/// The kernel takes no more on one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;
/// For the few calls that only GPL programs may make; ours makes none.
const LICENCE: &std::ffi::CStr = c"Apache-2.0";

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`. What follows in it counts as zero.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The same for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Attach {
    target_fd: RawFd,
    attach_bpf_fd: RawFd,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: RawFd,
}

/// The same for `BPF_PROG_QUERY`.
#[repr(C)]
struct Query {
    target_fd: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    reserved: u32,
}

/// The same for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Makes a program of `instructions`.
pub(super) fn load(instructions: &[Instruction]) -> Result<OwnedFd, Errno> {
    let mut prog_name = [0; 16];
    prog_name[..9].copy_from_slice(b"podwright");
    let mut load = Load {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?,
        insns: instructions.as_ptr() as u64,
        license: LICENCE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
    };
    // SAFETY: `load` is the attribute of this command; its two addresses are of `instructions`, as many as it says, and
    // of a NUL-terminated constant, which the kernel reads during the call.
    descriptor(unsafe { bpf(PROG_LOAD, &mut load) })
}

/// Adds a program to those of the cgroup, in place of `old` if there is one.
pub(super) fn attach(
    cgroup: BorrowedFd<'_>,
    program: &OwnedFd,
    old: Option<&OwnedFd>,
) -> Result<(), Errno> {
    let mut attach = attachment(cgroup, program, ALLOW_MULTI);
    if let Some(old) = old {
        attach.attach_flags |= REPLACE;
        attach.replace_bpf_fd = old.as_raw_fd();
    }
    // SAFETY: `attach` is the attribute of this command and holds no address.
    unsafe { bpf(PROG_ATTACH, &mut attach) }.map(drop)
}

/// Takes a program from the cgroup.
pub(super) fn detach(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> Result<(), Errno> {
    let mut attach = attachment(cgroup, program, 0);
    // SAFETY: as for `attach`.
    unsafe { bpf(PROG_DETACH, &mut attach) }.map(drop)
}

fn attachment(cgroup: BorrowedFd<'_>, program: &OwnedFd, attach_flags: u32) -> Attach {
    Attach {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: ATTACH_DEVICE,
        attach_flags,
        replace_bpf_fd: 0,
    }
}

/// The device programs that are attached to the cgroup itself, not to one above it.
pub(super) fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut query = Query {
        target_fd: cgroup.as_raw_fd(),
        attach_type: ATTACH_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: u32::try_from(ids.len()).map_err(|_| Errno::E2BIG)?,
        reserved: 0,
    };
    // SAFETY: `query` is the attribute of this command; its address is of `ids`, which has room for as many numbers as it
    // says and outlives the call.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    let count = usize::try_from(query.prog_cnt).map_err(|_| Errno::E2BIG)?;
    ids.iter().take(count).map(|id| by_id(*id)).collect()
}

fn by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut by_id = ById {
        id,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: `by_id` is the attribute of this command and holds no address.
    descriptor(unsafe { bpf(PROG_GET_FD_BY_ID, &mut by_id) })
}

fn descriptor(result: Result<libc::c_long, Errno>) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(result?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just made this descriptor for us, closed on exec, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// `attribute` is the beginning of `union bpf_attr` for `command`, and the addresses in it hold during the call.
unsafe fn bpf<T>(command: libc::c_int, attribute: &mut T) -> Result<libc::c_long, Errno> {
    let (address, size) = (std::ptr::from_mut(attribute), size_of::<T>());
    // SAFETY: the attribute is whole and of the size given; the rest is the caller's promise.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, address, size) })
}
