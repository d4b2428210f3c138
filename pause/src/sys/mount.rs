//! Mounts by descriptors: fsopen(2), open_tree(2), move_mount(2), mount_setattr(2), and the classic calls where they still do more.
#![allow(unsafe_code)] // raw system calls

use super::file::CWD;
use super::{Argument, Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Attributes of a mount (mount_setattr(2)).
pub(crate) mod attributes {
    pub(crate) const RDONLY: u64 = 0x1;
    pub(crate) const NOSUID: u64 = 0x2;
    pub(crate) const NODEV: u64 = 0x4;
    pub(crate) const NOEXEC: u64 = 0x8;
    /// Owners are mapped.
    pub(super) const IDMAP: u64 = 0x0010_0000;
    /// The field that says how access times are kept.
    pub(crate) const ATIME: u64 = 0x70;
}

const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// Whether a call covers what is mounted below.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    This,
    Tree,
}

impl Depth {
    fn flag(self) -> u32 {
        match self {
            Self::This => 0,
            Self::Tree => AT_RECURSIVE,
        }
    }
}

/// A file system that is being configured (fsopen(2)).
pub(crate) struct FsContext(OwnedFd);

impl FsContext {
    pub(crate) fn open(fstype: &[u8]) -> Result<Self> {
        let fstype = Argument::new(fstype)?;
        // SAFETY: the string is read during the call only; the descriptor is new.
        unsafe {
            let fd = check(libc::syscall(
                libc::SYS_fsopen,
                fstype.as_ptr(),
                FSOPEN_CLOEXEC,
            ))?;
            Ok(Self(OwnedFd::from_raw_fd(fd as i32)))
        }
    }

    /// fsconfig(2): a key with its value, or a flag.
    pub(crate) fn set(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let key = Argument::new(key)?;
        let value = value.map(Argument::new).transpose()?;
        let (command, value) = match &value {
            Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
            None => (FSCONFIG_SET_FLAG, ptr::null()),
        };
        // SAFETY: both strings live until the end of this function; a flag's value must be null.
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                key.as_ptr(),
                value,
                0,
            )
        })?;
        Ok(())
    }

    /// Makes the file system.
    pub(crate) fn create(&self) -> Result<()> {
        let null = ptr::null::<libc::c_char>();
        // SAFETY: this command takes neither key nor value.
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                FSCONFIG_CMD_CREATE,
                null,
                null,
                0,
            )
        })?;
        Ok(())
    }

    /// fsmount(2): a detached mount of it.
    pub(crate) fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        // SAFETY: takes no pointers; the descriptor is new.
        unsafe {
            let fd = check(libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes as u32,
            ))?;
            Ok(OwnedFd::from_raw_fd(fd as i32))
        }
    }
}

/// open_tree(2): a detached copy of the mount that `fd` is on, from `fd` downwards.
pub(crate) fn clone_tree(fd: BorrowedFd<'_>, depth: Depth) -> Result<OwnedFd> {
    let flags =
        OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32 | depth.flag();
    // SAFETY: the empty path is static; the descriptor is new.
    unsafe {
        let fd = check(libc::syscall(
            libc::SYS_open_tree,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// move_mount(2): attaches a detached mount at what `target` names.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let (empty, flags) = (
        c"".as_ptr(),
        MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
    );
    // SAFETY: the empty paths are static.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            empty,
            target.as_raw_fd(),
            empty,
            flags,
        )
    })?;
    Ok(())
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn set_attr(fd: BorrowedFd<'_>, depth: Depth, attr: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH as u32 | depth.flag();
    // SAFETY: the path is static; `attr` has the size that is told and is read during the call only.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Adds attributes to the mount that `fd` is the root of.
pub(crate) fn add_attributes(fd: BorrowedFd<'_>, attributes: u64, depth: Depth) -> Result<()> {
    change(fd, attributes, 0, depth)
}

/// The same, and sets its propagation type (`MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`); 0 leaves that.
pub(crate) fn change(
    fd: BorrowedFd<'_>,
    attributes: u64,
    propagation: u64,
    depth: Depth,
) -> Result<()> {
    // "the atime mode is a field, not bits: MOUNT_ATTR__ATIME must be cleared to set one" (mount_setattr(2)).
    let clear = if attributes & attributes::ATIME == 0 {
        0
    } else {
        attributes::ATIME
    };
    set_attr(
        fd,
        depth,
        &MountAttr {
            set: attributes,
            clear,
            propagation,
            userns_fd: 0,
        },
    )
}

/// Shows the owners of a detached mount's files as a user namespace maps them: on-disk id 0 is its root's. EINVAL: the
/// file system has no idmapped mounts (mount_setattr(2)).
pub(crate) fn map_owners(
    fd: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    depth: Depth,
) -> Result<()> {
    let attr = MountAttr {
        set: attributes::IDMAP,
        clear: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd() as u64,
    };
    set_attr(fd, depth, &attr)
}

/// mount(2) that changes the propagation of the mount at `path`.
pub(crate) fn change_propagation(path: &[u8], flags: u64) -> Result<()> {
    let path = Argument::new(path)?;
    // SAFETY: the path is read during the call only; the other pointers may be null for a change of propagation.
    let returned =
        unsafe { libc::mount(ptr::null(), path.as_ptr(), ptr::null(), flags, ptr::null()) };
    check(returned.into())?;
    Ok(())
}

/// mount(2) of an overlay: its layer names are relative to the working directory, which fsconfig(2) allows only since 6.7.
pub(crate) fn mount_overlay(at: &[u8], options: &[u8]) -> Result<()> {
    let (at, options) = (Argument::new(at)?, Argument::new(options)?);
    let overlay = c"overlay".as_ptr();
    // SAFETY: all strings live until the end of this function.
    let returned =
        unsafe { libc::mount(overlay, at.as_ptr(), overlay, 0, options.as_ptr().cast()) };
    check(returned.into())?;
    Ok(())
}

/// pivot_root(2) with the working directory as both arguments: the old root ends up mounted over the new one.
pub(crate) fn pivot_here() -> Result<()> {
    let here = c".".as_ptr();
    // SAFETY: the path is static.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, here, here) })?;
    Ok(())
}

/// umount2(2) of the topmost mount at `path`; what still uses it keeps it.
pub(crate) fn detach(path: &[u8]) -> Result<()> {
    let path = Argument::new(path)?;
    let flags = libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW;
    // SAFETY: the path is read during the call only.
    check(unsafe { libc::umount2(path.as_ptr(), flags) }.into())?;
    Ok(())
}

/// umount2(2) of the working directory's mount and all below it.
pub(crate) fn detach_here() -> Result<()> {
    // SAFETY: the path is static.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
    Ok(())
}

/// A detached tmpfs of its own.
pub(crate) fn detached_tmpfs(options: &[(&str, &str)], attributes: u64) -> Result<OwnedFd> {
    let context = FsContext::open(b"tmpfs")?;
    context.set(b"source", Some(b"tmpfs"))?;
    for (key, value) in options {
        context.set(key.as_bytes(), Some(value.as_bytes()))?;
    }
    context.create()?;
    context.mount(attributes)
}

/// What an absolute path names, for mounting there.
pub(crate) fn mount_point(path: &[u8]) -> Result<OwnedFd> {
    super::file::openat2(CWD, path, libc::O_PATH | libc::O_DIRECTORY, 0, 0)
}
