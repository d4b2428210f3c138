//! Files and paths, by descriptors.
#![allow(unsafe_code)] // raw system calls

use super::{Argument, Errno, Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The working directory, where a system call takes a directory's descriptor.
// SAFETY: AT_FDCWD is no descriptor that could be closed, and is not -1.
pub(crate) const CWD: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };

/// procfs, as statfs(2) tells it.
pub(crate) const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// cgroup v2, as statfs(2) tells it.
pub(crate) const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
/// devpts, as statfs(2) tells it.
pub(crate) const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// openat2(2). `mode` counts when `flags` hold O_CREAT.
pub(crate) fn openat2(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<OwnedFd> {
    let path = Argument::new(path)?;
    // SAFETY: open_how is plain numbers, for which zero is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u32 as u64;
    how.mode = mode.into();
    how.resolve = resolve;
    // SAFETY: path and `how`, whose size is told, are read during the call only; the descriptor is new.
    unsafe {
        let fd = check(libc::syscall(
            libc::SYS_openat2,
            dir.as_raw_fd(),
            path.as_ptr(),
            &how,
            size_of::<libc::open_how>(),
        ))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// A host path, opened as the daemon would, but never through a magic link.
pub(crate) fn open_host(path: &[u8], flags: i32) -> Result<OwnedFd> {
    openat2(CWD, path, flags, 0, libc::RESOLVE_NO_MAGICLINKS)
}

/// One read(2).
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most the buffer's length into it.
    check(
        unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) }
            as libc::c_long,
    )
    .map(|n| n as usize)
}

/// One write(2) of a short value, as kernel files take it; less than all of it is an error.
pub(crate) fn write_value(fd: BorrowedFd<'_>, value: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads at most the value's length from it.
    let written = check(
        unsafe { libc::write(fd.as_raw_fd(), value.as_ptr().cast(), value.len()) } as libc::c_long,
    )?;
    if written as usize == value.len() {
        Ok(())
    } else {
        Err(Errno(libc::EIO))
    }
}

/// Makes `number` a copy of `fd` that stays open across exec.
pub(crate) fn duplicate_onto(fd: BorrowedFd<'_>, number: i32) -> Result<()> {
    // SAFETY: takes no pointers. The numbers are the standard streams 0 to 2, which no OwnedFd of the child holds.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into())?;
    Ok(())
}

/// A file's kind, permission bits and device numbers.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<libc::stat> {
    // SAFETY: stat is plain numbers, for which zero is valid, and the kernel fills it.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstatat(fd.as_raw_fd(), c"".as_ptr(), &mut stat, libc::AT_EMPTY_PATH).into())?;
        Ok(stat)
    }
}

/// As [`stat`], of a directory's entry; a symbolic link is told as itself.
pub(crate) fn stat_entry(dir: BorrowedFd<'_>, name: &[u8]) -> Result<libc::stat> {
    let name = Argument::new(name)?;
    // SAFETY: stat is plain numbers, for which zero is valid, and the kernel fills it; the name is read during the call only.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(
            libc::fstatat(
                dir.as_raw_fd(),
                name.as_ptr(),
                &mut stat,
                libc::AT_SYMLINK_NOFOLLOW,
            )
            .into(),
        )?;
        Ok(stat)
    }
}

/// The kind of file system that a file is on.
pub(crate) fn filesystem(fd: BorrowedFd<'_>) -> Result<i64> {
    // SAFETY: statfs is plain numbers, for which zero is valid, and the kernel fills it.
    unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(fd.as_raw_fd(), &mut stat).into())?;
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)] // musl's f_type is unsigned
        Ok(stat.f_type as i64)
    }
}

/// Whether nothing can be written to the mount that a file is on.
pub(crate) fn is_read_only(fd: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: statvfs is plain numbers, for which zero is valid, and the kernel fills it.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        check(libc::fstatvfs(fd.as_raw_fd(), &mut stat).into())?;
        Ok(stat.f_flag & libc::ST_RDONLY != 0)
    }
}

/// mkdirat(2).
pub(crate) fn make_directory(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<()> {
    let name = Argument::new(name)?;
    // SAFETY: the name is read during the call only.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) }.into())?;
    Ok(())
}

/// mknodat(2).
pub(crate) fn make_node(dir: BorrowedFd<'_>, name: &[u8], mode: u32, device: u64) -> Result<()> {
    let name = Argument::new(name)?;
    // SAFETY: the name is read during the call only.
    check(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, device) }.into())?;
    Ok(())
}

/// symlinkat(2).
pub(crate) fn make_link(text: &[u8], dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let (text, name) = (Argument::new(text)?, Argument::new(name)?);
    // SAFETY: both strings are read during the call only.
    check(unsafe { libc::symlinkat(text.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }.into())?;
    Ok(())
}

/// readlinkat(2): whether the link says exactly `text`.
pub(crate) fn link_says(dir: BorrowedFd<'_>, name: &[u8], text: &[u8]) -> Result<bool> {
    let name = Argument::new(name)?;
    let mut buffer = vec![0; text.len() + 1];
    // SAFETY: the name is read, and at most the buffer's length written, during the call only.
    let length = check(unsafe {
        libc::readlinkat(
            dir.as_raw_fd(),
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    } as libc::c_long)?;
    Ok(buffer.get(..length as usize) == Some(text))
}

/// fchown(2), by an AT_EMPTY_PATH that O_PATH descriptors allow too.
pub(crate) fn change_owner(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: the empty path is static.
    let returned =
        unsafe { libc::fchownat(fd.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) };
    check(returned.into())?;
    Ok(())
}

/// As [`change_owner`], of a directory's entry; a symbolic link is changed itself.
pub(crate) fn change_entry_owner(
    dir: BorrowedFd<'_>,
    name: &[u8],
    uid: u32,
    gid: u32,
) -> Result<()> {
    let name = Argument::new(name)?;
    // SAFETY: the name is read during the call only.
    let returned = unsafe {
        libc::fchownat(
            dir.as_raw_fd(),
            name.as_ptr(),
            uid,
            gid,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    check(returned.into())?;
    Ok(())
}

/// fchdir(2).
pub(crate) fn enter_directory(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fchdir(fd.as_raw_fd()) }.into())?;
    Ok(())
}

/// chdir(2).
pub(crate) fn enter_path(path: &[u8]) -> Result<()> {
    let path = Argument::new(path)?;
    // SAFETY: the path is read during the call only.
    check(unsafe { libc::chdir(path.as_ptr()) }.into())?;
    Ok(())
}

/// chroot(2) to the working directory.
pub(crate) fn change_root_here() -> Result<()> {
    // SAFETY: the path is static.
    check(unsafe { libc::chroot(c".".as_ptr()) }.into())?;
    Ok(())
}

/// Whether the working directory is below the root. The system call tells "(unreachable)…" when it is not
/// (getcwd(3), Linux 2.6.36); libc's function would hide that.
pub(crate) fn working_directory_is_inside() -> Result<bool> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the buffer's length into it.
    check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(buffer[0] == b'/')
}

/// Makes reads of this open file return EAGAIN instead of waiting.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointers.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL).into())? as i32;
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK).into())?;
    }
    Ok(())
}

/// Asks for a pipe's capacity in bytes.
pub(crate) fn set_pipe_capacity(fd: BorrowedFd<'_>, bytes: i32) -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) }.into())?;
    Ok(())
}

/// Seals of a memfd (F_GET_SEALS).
pub(crate) fn seals(fd: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) }.into())
        .map(|seals| seals as i32)
}

/// Sets the file mode creation mask.
pub(crate) fn set_umask(mask: u32) {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { libc::umask(mask) };
}

/// What close_range(2) does to a range.
#[derive(Clone, Copy)]
pub(crate) enum CloseRange {
    Now,
    AtExec,
}

/// close_range(2). Only for descriptors that no live OwnedFd of this process will close again: before the first is
/// made, in a fresh child that never drops its parent's, or at exec.
pub(crate) fn close_range(first: u32, last: u32, how: CloseRange) -> Result<()> {
    let flags = match how {
        CloseRange::Now => 0,
        CloseRange::AtExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: takes no pointers; ownership as the contract above says.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) })?;
    Ok(())
}

/// One of the standard streams, 0 to 2.
pub(crate) fn standard(number: i32) -> BorrowedFd<'static> {
    debug_assert!((0..=2).contains(&number));
    // SAFETY: std opens what is missing of the three before main, and nobody closes them.
    unsafe { BorrowedFd::borrow_raw(number) }
}
