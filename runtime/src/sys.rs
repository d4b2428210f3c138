//! The few system calls that neither std nor nix has, as safe functions.
#![allow(unsafe_code)] // raw system calls

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path holds a NUL byte"))
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let raw = i32::try_from(check(result)?).map_err(io::Error::other)?;
    // SAFETY: the system call has just returned this descriptor; it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// An `O_PATH` descriptor of a directory.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let path = c_string(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    owned(
        unsafe {
            libc::open(
                path.as_ptr(),
                libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
            )
        }
        .into(),
    )
}

/// An `O_PATH` descriptor of what a path names.
pub(crate) fn open_place(path: &Path) -> io::Result<OwnedFd> {
    let path = c_string(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    owned(unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) }.into())
}

/// The file on a detached clone of its mount that is read-only (open_tree(2), mount_setattr(2), Linux 5.12). The clone is in no
/// mount namespace and ends with the last descriptor of it.
pub(crate) fn open_read_only_view(path: &Path) -> io::Result<OwnedFd> {
    let path = c_string(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    let view =
        owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the empty path is NUL-terminated, `attributes` is a whole `struct mount_attr` of the length given; both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            view.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(view)
}

/// Whether the kernel has mount_setattr(2), and lets this process call it.
pub(crate) fn has_mount_setattr() -> bool {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the empty path is NUL-terminated, `attributes` is a whole `struct mount_attr` of the length given; both outlive the call.
    // There is no descriptor -1: nothing is changed, and the error says whether the call is known.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            -1,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

/// By its descriptor's name, which O_PATH descriptors of all kinds of files have.
fn by_descriptor(file: BorrowedFd<'_>) -> io::Result<CString> {
    c_string(format!("/proc/self/fd/{}", file.as_raw_fd()).as_bytes())
}

/// setxattr(2).
pub(crate) fn set_attribute(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = (by_descriptor(file)?, c_string(name.as_bytes())?);
    // SAFETY: both strings are NUL-terminated and `value` has the length given; all outlive the call.
    check(
        unsafe {
            libc::setxattr(
                path.as_ptr(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        }
        .into(),
    )
    .map(|_| ())
}

/// getxattr(2) of a short value.
pub(crate) fn attribute(file: BorrowedFd<'_>, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (by_descriptor(file)?, c_string(name.as_bytes())?);
    let mut value = vec![0; 256];
    // SAFETY: both strings are NUL-terminated; the kernel writes at most the length given. All outlive the call.
    let length = check(unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    } as libc::c_long)?;
    value.truncate(length as usize);
    Ok(value)
}

/// What of a tree of mounts is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MountDepth {
    /// The mount that a path is on.
    This,
    /// Those below it too.
    Tree,
}

/// Makes an idmapped mount of `path` that nobody sees, and drops it (mount_setattr(2)). EINVAL: the file system has none.
pub(crate) fn try_idmapped_mount(
    path: &Path,
    user_namespace: BorrowedFd<'_>,
    depth: MountDepth,
) -> io::Result<()> {
    let recursive = match depth {
        MountDepth::This => 0,
        MountDepth::Tree => libc::AT_RECURSIVE,
    };
    let path = c_string(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive.unsigned_abs();
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    let copy =
        owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd().unsigned_abs().into(),
    };
    // SAFETY: the empty path is NUL-terminated, `attributes` is a whole `struct mount_attr` of the length given; both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            copy.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(|_| ())
}

/// A user namespace that no process is in, to try idmapped mounts with. What it maps does not matter.
pub(crate) fn user_namespace() -> io::Result<OwnedFd> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is a valid `struct clone_args`: plain numbers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_NEWUSER | libc::CLONE_PIDFD) as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM the child has a copy of all memory. Other threads may have held locks when it was taken, so the
    // child makes nothing but system calls, which are async-signal-safe (fork(2)). The kernel writes `pidfd` before it returns.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        // SAFETY: neither call takes pointers. The process ends when its parent kills it, or dies.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            loop {
                libc::pause();
            }
        }
    }
    let pidfd = owned(pidfd.into())?;
    let namespace = (|| {
        for file in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{pid}/{file}"), "0 65536 1\n")?;
        }
        std::fs::File::open(format!("/proc/{pid}/ns/user"))
    })();
    // SAFETY: a null siginfo asks for the one that kill(2) would send; P_PIDFD takes the descriptor's number, and the answer is
    // not asked for.
    unsafe {
        let null = std::ptr::null_mut::<libc::siginfo_t>();
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            null,
            0,
        );
        let number = pidfd.as_raw_fd().unsigned_abs();
        libc::waitid(libc::P_PIDFD, number, null, libc::WEXITED);
    }
    namespace.map(OwnedFd::from)
}

/// Removes a file by its name in a directory.
pub(crate) fn unlink_at(directory: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let name = c_string(name.as_bytes())?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call; the descriptor is borrowed for as long.
    check(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) }.into()).map(|_| ())
}

/// Opens a path below `directory` as openat2(2) does with `resolve` (`RESOLVE_*`).
pub(crate) fn open_beneath(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    let path = c_string(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid `struct open_how`: plain numbers.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = mode.into();
    how.resolve = resolve;
    // SAFETY: `path` is NUL-terminated and `how` is a whole `struct open_how` of the length given; both outlive the call.
    owned(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    })
}

/// A memfd that holds `bytes` and can be changed by nobody, for what is too big for a packet.
pub(crate) fn sealed_memfd(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let name = c_string(name.as_bytes())?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let fd = owned(
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) }
            .into(),
    )?;
    let mut file = std::fs::File::from(fd);
    io::Write::write_all(&mut file, bytes)?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes a number (fcntl(2)); the file is open.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }.into())?;
    Ok(file.into())
}
