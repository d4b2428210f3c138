//! The first process of a PID namespace that a pod's containers share. The kernel kills all of the namespace with it, and
//! gives it the orphans. Containers can see it, so it has nothing worth having: an empty root, no capabilities, a
//! filter that allows it to sleep, and no memory that could be looked into.

use super::{PidInit, own_root};
use crate::fault::{Fault, OrFault};
use crate::sys::process::{self, CapabilitySets, Forked};
use crate::sys::{event, file, mount};
use std::os::fd::AsFd;

/// Starts it.
pub(super) fn start() -> Result<PidInit, Fault> {
    match process::fork((libc::CLONE_NEWPID | libc::CLONE_NEWNS) as u64)
        .or_fault("clone3", b"init")?
    {
        Forked::Parent { pid, pidfd } => Ok(PidInit { pid, pidfd }),
        Forked::Child => become_init(),
    }
}

/// What the first process of the namespace does.
pub(super) fn become_init() -> ! {
    // Without its confinement it must not live: the pod's next start tells that its namespace is gone.
    if confine().is_ok() {
        event::sleep_for_ever()
    } else {
        process::exit(1)
    }
}

fn confine() -> Result<(), Fault> {
    file::close_range(0, u32::MAX, file::CloseRange::Now).or_fault("close_range", b"")?;
    process::set_name(c"pod-init").or_fault("prctl NAME", b"")?;
    process::new_session().or_fault("setsid", b"")?;
    event::ignore_child_exits();
    empty_root()?;
    for capability in 0..64 {
        if process::drop_bounding(capability).is_err() {
            break;
        }
    }
    let none = CapabilitySets {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    };
    process::set_capabilities(none).or_fault("capset", b"")?;
    process::die_with_parent().or_fault("prctl PDEATHSIG", b"")?;
    process::deny_new_privileges().or_fault("prctl NO_NEW_PRIVS", b"")?;
    process::filter_system_calls(&sleep_only()).or_fault("seccomp", b"")
}

/// Leaves the host's tree, mounts and all.
fn empty_root() -> Result<(), Fault> {
    use mount::attributes::{NODEV, NOEXEC, NOSUID, RDONLY};
    let options = [("size", "4096"), ("nr_inodes", "1"), ("mode", "0555")];
    let empty = mount::detached_tmpfs(&options, RDONLY | NODEV | NOEXEC | NOSUID)
        .or_fault("fsmount", b"")?;
    own_root::leave_for(empty.as_fd())
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// A classic BPF program (seccomp(2)) that kills on everything but sleeping and ending.
fn sleep_only() -> Vec<u8> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NUMBER_AT: u32 = 0;
    const ARCHITECTURE_AT: u32 = 4;
    const ALLOW: u32 = 0x7fff_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    let allowed = [
        libc::SYS_ppoll,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit_group,
    ];
    let mut program = Vec::new();
    let mut instruction = |code: u16, if_true: u8, if_false: u8, operand: u32| {
        program.extend_from_slice(&code.to_ne_bytes());
        program.extend_from_slice(&[if_true, if_false]);
        program.extend_from_slice(&operand.to_ne_bytes());
    };
    instruction(LOAD_WORD, 0, 0, ARCHITECTURE_AT);
    instruction(JUMP_IF_EQUAL, 1, 0, ARCHITECTURE);
    instruction(RETURN, 0, 0, KILL_PROCESS);
    instruction(LOAD_WORD, 0, 0, NUMBER_AT);
    for number in allowed {
        instruction(JUMP_IF_EQUAL, 0, 1, number as u32);
        instruction(RETURN, 0, 0, ALLOW);
    }
    instruction(RETURN, 0, 0, KILL_PROCESS);
    program
}
