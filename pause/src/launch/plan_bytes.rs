//! Where a plan's bytes come from.

use crate::fault::{Fault, OrFault};
use crate::sys::file;
use podwright_pause::plan::LaunchPlan;
use podwright_pause::protocol::{MAX_PLAN, PlanBytes};
use podwright_pause::version::Version;
use podwright_pause::wire::Wire;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Decodes a plan in the version that is spoken with who sent it; a memfd is taken from the front of `fds`.
pub(crate) fn decode(
    bytes: &PlanBytes,
    version: Version,
    fds: &mut Vec<OwnedFd>,
) -> Result<LaunchPlan, Fault> {
    let plan = match bytes {
        PlanBytes::Inline { plan } => LaunchPlan::from_bytes_of(&plan.0, version),
        PlanBytes::Memfd { length } => {
            if fds.is_empty() {
                return Err(Fault::new("descriptor of the plan", b"", libc::EBADF));
            }
            LaunchPlan::from_bytes_of(&read(fds.remove(0), *length as usize)?, version)
        }
    };
    let plan = plan
        .map_err(|error| Fault::new("decode plan", error.to_string().as_bytes(), libc::EBADMSG))?;
    #[cfg(feature = "next-protocol")]
    if version >= Version(3) && plan.rehearsal != podwright_pause::protocol::REHEARSAL.into() {
        return Err(Fault::new("rehearsal", b"plan", libc::EBADMSG));
    }
    Ok(plan)
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
