//! The instances of procfs by which pods' kernel settings are written.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs::File, io};

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// As many pods have their settings written by one instance: none looks long for its own then, and few wait for an instance to be made.
const PODS_OF_ONE: u32 = 32;

/// The kernel keeps the settings of all network namespaces that were looked up by an instance as entries of one directory of its
/// cache, and passes over all of them to find another namespace's (`proc_sys_compare` in fs/proc/proc_sysctl.c): 0.6 ms with a
/// thousand pods.
#[derive(Debug, Default)]
pub(crate) struct Procfs(Mutex<Shared>);

#[derive(Debug, Default)]
struct Shared {
    instance: Option<Arc<OwnedFd>>,
    /// That it serves yet.
    pods: u32,
}

impl Procfs {
    /// The instance for one more pod.
    pub(crate) fn instance(&self) -> io::Result<Arc<OwnedFd>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = match shared.instance.take() {
            Some(instance) if shared.pods > 0 => instance,
            _ => {
                shared.pods = PODS_OF_ONE;
                Arc::new(make()?)
            }
        };
        shared.pods -= 1;
        shared.instance = Some(Arc::clone(&instance));
        Ok(instance)
    }
}

/// An instance in no tree, so that nothing can be mounted over it; the host's where none can be made, which takes longer.
fn make() -> io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC);
    let mounted = context.and_then(|context| {
        fsconfig_create(&context)?;
        let plain = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, plain)
    });
    let host = |_| {
        openat(
            CWD,
            "/proc",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    Ok(mounted.or_else(host)?)
}

/// Writes a setting of the calling thread's namespaces.
///
/// - `path`: relative to `sys`, with slashes.
///
/// # Errors
/// ENOENT when the kernel has no such setting; EXDEV when something else is mounted there (CVE-2019-16884).
pub(crate) fn write(instance: impl AsFd, path: &str, value: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(
        instance,
        format!("sys/{path}"),
        flags,
        Mode::empty(),
    )?);
    if fstatfs(&file)?.f_type != PROC_SUPER_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::EXDEV));
    }
    file.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_serves_some_pods() {
        let procfs = Procfs::default();
        let first = procfs.instance().expect("these tests need root");
        for _ in 1..PODS_OF_ONE {
            assert!(Arc::ptr_eq(&first, &procfs.instance().unwrap()));
        }
        assert!(!Arc::ptr_eq(&first, &procfs.instance().unwrap()));
    }

    #[test]
    fn what_the_kernel_does_not_know_is_told() {
        let instance = make().expect("these tests need root");
        let error = write(&instance, "net/ipv6/conf/default/podwright", "0").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
