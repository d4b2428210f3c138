//! Where a plan's bytes come from.

use crate::fault::{Fault, OrFault};
use crate::sys::file;
use podwright_pause::plan::LaunchPlan;
use podwright_pause::protocol::{MAX_PLAN, PlanBytes};
use podwright_pause::wire::Wire;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Decodes a plan; a memfd is taken from the front of `fds`.
pub(crate) fn decode(bytes: &PlanBytes, fds: &mut Vec<OwnedFd>) -> Result<LaunchPlan, Fault> {
    let plan = match bytes {
        PlanBytes::Inline { plan } => LaunchPlan::from_bytes(&plan.0),
        PlanBytes::Memfd { length } => {
            if fds.is_empty() {
                return Err(Fault::new("descriptor of the plan", b"", libc::EBADF));
            }
            LaunchPlan::from_bytes(&read(fds.remove(0), *length as usize)?)
        }
    };
    plan.map_err(|error| Fault::new("decode plan", error.to_string().as_bytes(), libc::EBADMSG))
}

/// Reads a memfd that nobody can change meanwhile.
fn read(memfd: OwnedFd, length: usize) -> Result<Vec<u8>, Fault> {
    let sealed = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK;
    let seals = file::seals(memfd.as_fd()).or_fault("fcntl F_GET_SEALS", b"plan")?;
    if seals & sealed != sealed {
        return Err(Fault::new("seals of the plan", b"", libc::EPERM));
    }
    if length > MAX_PLAN {
        return Err(Fault::new("length of the plan", b"", libc::E2BIG));
    }
    let mut bytes = vec![0; length];
    File::from(memfd)
        .read_exact_at(&mut bytes, 0)
        .or_fault("pread", b"plan")?;
    Ok(bytes)
}
