//! procfs files that are checked to be such before they are written (CVE-2019-16884, CVE-2025-52881).

use crate::fault::{Fault, OrFault};
use crate::sys::file::{self, PROC_SUPER_MAGIC};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Opens a file of the host's procfs.
pub(crate) fn open(path: &[u8], flags: i32) -> Result<OwnedFd, Fault> {
    let file = file::open_host(path, flags).or_fault("openat2", path)?;
    verify(file.as_fd(), path)?;
    Ok(file)
}

/// Opens a file below a procfs directory, which nothing mounted over it may replace.
pub(crate) fn open_beneath(dir: BorrowedFd<'_>, path: &[u8], flags: i32) -> Result<OwnedFd, Fault> {
    let resolve = libc::RESOLVE_BENEATH
        | libc::RESOLVE_NO_SYMLINKS
        | libc::RESOLVE_NO_MAGICLINKS
        | libc::RESOLVE_NO_XDEV;
    let file = file::openat2(dir, path, flags, 0, resolve).or_fault("openat2", path)?;
    verify(file.as_fd(), path)?;
    Ok(file)
}

/// That an open file is procfs's own.
pub(crate) fn verify(file: BorrowedFd<'_>, path: &[u8]) -> Result<(), Fault> {
    if file::filesystem(file).or_fault("fstatfs", path)? == PROC_SUPER_MAGIC {
        Ok(())
    } else {
        Err(Fault::new("verify procfs", path, libc::EXDEV))
    }
}

/// Writes this process's /proc/self/oom_score_adj.
pub(crate) fn set_own_oom_score(score: i32) -> Result<(), Fault> {
    let path = b"/proc/self/oom_score_adj";
    let file = open(path, libc::O_WRONLY)?;
    file::write_value(file.as_fd(), score.to_string().as_bytes()).or_fault("write", path)
}
