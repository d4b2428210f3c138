//! pause: the one process that Podwright keeps per pod.
//!
//! The daemon starts it with descriptor 0 a listening SOCK_SEQPACKET socket on the pod's path, and descriptor 1 the directory of
//! pause's group in the unified cgroup hierarchy, where there is one; nothing else steers it.
//! It has one thread, so that its children may run any code after fork, and sleeps until something happens.

mod attach;
mod child;
mod fault;
mod launch;
mod log;
mod procfs;
mod report;
mod sandbox;
mod supervise;
mod sys;

use crate::fault::{Fault, OrFault};
use crate::supervise::Supervisor;
use crate::sys::{event, file, process};

fn main() {
    if let Err(fault) = start().and_then(Supervisor::run) {
        // Descriptor 2 is the daemon's log file, if it keeps one.
        eprintln!(
            "pause: {} {}: errno {}",
            fault.call,
            String::from_utf8_lossy(&fault.subject),
            fault.errno.0
        );
        process::exit(1);
    }
    process::exit(0)
}

/// Cuts the ties to the daemon that started it, and readies the loop.
fn start() -> Result<Supervisor, Fault> {
    file::close_range(3, u32::MAX, file::CloseRange::Now).or_fault("close_range", b"")?;
    let place = child::settle_pause(file::standard(1));
    file::duplicate_onto(file::standard(2), 1).or_fault("dup2", b"")?;
    // EPERM: it leads a process group already, and so nobody's signals to a group reach it.
    let _ = process::new_session();
    event::default_signals();
    // Blocked: a terminal's Ctrl-C, a hang-up or a polite SIGTERM must not take the pod down, unless it is systemd's.
    let signals = event::block_signals().or_fault("signalfd4", b"")?;
    process::set_name(c"pause").or_fault("prctl NAME", b"")?;
    process::become_subreaper().or_fault("prctl SUBREAPER", b"")?;
    process::forbid_dumps().or_fault("prctl DUMPABLE", b"")?;
    file::enter_path(b"/").or_fault("chdir", b"/")?;
    file::set_umask(0);
    Supervisor::new(file::inherited(0), signals, place)
}
