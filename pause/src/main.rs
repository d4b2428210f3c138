//! pause: the one process that Podwright keeps per pod.
//!
//! The daemon executes it once, with descriptor 0 a SOCK_SEQPACKET socket, and orders the pods' pauses by that; each serves its
//! pod by the pod's own socket, whatever becomes of the daemon.
//! It has one thread, so that its children may run any code after fork, and sleeps until something happens.

mod attach;
mod base;
mod child;
mod fault;
mod launch;
mod log;
mod procfs;
mod report;
mod sandbox;
mod supervise;
mod sys;
mod zygote;

use crate::fault::{Fault, OrFault};
use crate::supervise::Supervisor;
use crate::sys::{event, file, process, title};
use crate::zygote::Newborn;

/// musl's allocator gives its pages back as soon as they are free, and so maps, faults in and unmaps a dozen for each message.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() {
    if let Err(fault) = run() {
        fault.tell();
        process::exit(1);
    }
    process::exit(0)
}

fn run() -> Result<(), Fault> {
    cut_ties()?;
    match zygote::serve()? {
        Some(newborn) => start(newborn)?.run(),
        None => Ok(()),
    }
}

/// Cuts the ties to the daemon, but for the orders, for all that are born from here.
fn cut_ties() -> Result<(), Fault> {
    file::close_range(3, u32::MAX, file::CloseRange::Now).or_fault("close_range", b"")?;
    // EPERM: it leads a process group already, and so nobody's signals to a group reach it.
    let _ = process::new_session();
    event::default_signals();
    process::set_name(c"pause").or_fault("prctl NAME", b"")?;
    process::forbid_dumps().or_fault("prctl DUMPABLE", b"")?;
    file::enter_path(b"/").or_fault("chdir", b"/")?;
    file::set_umask(0);
    Ok(())
}

/// Readies the loop of a pod's pause, which has nothing of the zygote's but its memory.
fn start(newborn: Newborn) -> Result<Supervisor, Fault> {
    let Newborn {
        listener,
        born,
        pod,
        base,
    } = newborn;
    // The zygote's orders end here. The listener stays where children close it: what holds it makes the pod seem to live.
    file::duplicate_onto(file::standard(1), 0).or_fault("dup2", b"")?;
    // It was born into the zygote's session; EPERM cannot be.
    process::new_session().or_fault("setsid", b"")?;
    // Blocked: a terminal's Ctrl-C, a hang-up or a polite SIGTERM must not take the pod down, unless it is systemd's.
    let signals = event::block_signals().or_fault("signalfd4", b"")?;
    process::become_subreaper().or_fault("prctl SUBREAPER", b"")?;
    title::set(&[b"podwright-pause ", &pod[..]].concat());
    Supervisor::new(listener, signals, born, base)
}
