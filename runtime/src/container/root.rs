//! A container's root as a detached mount, made by the daemon.
//!
//! pause's child could do it, but is in the pod's cgroups: the blocks of the disk that overlayfs touches on the way (its work directory, inode
//! tables) would be charged to the pod, and its memory cgroup would stay in the kernel, dying, until they are written and reclaimed. Thousands of
//! those make every operation on cgroups slower.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::LazyLock;

use podwright_pause::overlay::{LONGEST_VALUE, Setting, settings};
use podwright_pause::plan::{LaunchPlan, Step};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// Whether this kernel can.
static IS_POSSIBLE: LazyLock<bool> = LazyLock::new(|| try_layer().is_ok());

/// Gives overlayfs a layer by itself, which it takes since Linux 6.7.
///
/// # Errors
/// EINVAL or EOPNOTSUPP: an older kernel.
pub(crate) fn try_layer() -> io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "lowerdir+", "/")?;
    // Before Linux 6.5, overlayfs is told of its options when it is mounted, so that any are taken until then.
    match fsconfig_set_string(&context, "podwright", "none") {
        Ok(()) => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        Err(_) => Ok(()),
    }
}

/// Makes the root of a plan. None where that does not work: pause's child does it then, or fails with the reason.
pub(super) fn make(plan: &LaunchPlan) -> Option<OwnedFd> {
    if !*IS_POSSIBLE {
        leave(plan);
        return None;
    }
    let (layers, settings) = overlay(plan)?;
    let made = match mount(layers, &settings) {
        // An earlier daemon made it, and died before the container was started.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && forget(&settings) => {
            mount(layers, &settings)
        }
        made => made,
    };
    match made {
        Ok(Some(root)) => Some(root),
        Ok(None) => {
            forget(&settings);
            None
        }
        Err(error) => {
            tracing::debug!(%error, "a root is left to the container's own process");
            forget(&settings);
            None
        }
    }
}

/// Leaves the root of a plan to pause's child, for whom nothing of an earlier start may be in the way.
pub(super) fn leave(plan: &LaunchPlan) {
    if let Some((_, settings)) = overlay(plan) {
        forget(&settings);
    }
}

/// The directory of the layers, and the options by name.
type Overlay<'a> = (&'a [u8], Vec<Setting<'a>>);

fn overlay(plan: &LaunchPlan) -> Option<Overlay<'_>> {
    plan.steps.iter().find_map(|step| match step {
        Step::OverlayRoot {
            layers, options, ..
        } => Some((&layers.0[..], settings(&options.0)?)),
        _ => None,
    })
}

/// Removes the mark of a volatile overlay, which keeps another one from having its directories (filesystems/overlayfs.rst, "Volatile
/// mount"). Whether it was there. The container has not been started: nothing of it is in them, and pause ends a start whose daemon has gone.
fn forget(settings: &[Setting<'_>]) -> bool {
    let work = settings.iter().find(|(key, _)| *key == b"workdir");
    work.and_then(|(_, work)| *work).is_some_and(|work| {
        let mark = Path::new(OsStr::from_bytes(work)).join("work/incompat");
        std::fs::remove_dir_all(mark).is_ok()
    })
}

/// None when the overlay is read-only, for its work directory could not be made, or takes what is longer than fsconfig(2) does.
fn mount(layers: &[u8], settings: &[Setting<'_>]) -> io::Result<Option<OwnedFd>> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for (key, value) in settings {
        match value {
            // mount(2) takes names from the layers' directory on; this process has its working directory elsewhere.
            Some(name) if *key == b"lowerdir+" && !name.starts_with(b"/") => {
                let path = [layers, b"/", name].concat();
                if path.len() > LONGEST_VALUE {
                    return Ok(None);
                }
                fsconfig_set_string(&context, *key, &path[..])?;
            }
            Some(value) => fsconfig_set_string(&context, *key, *value)?,
            None => fsconfig_set_flag(&context, *key)?,
        }
    }
    fsconfig_create(&context)?;
    let root = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let is_read_only = nix::sys::statvfs::fstatvfs(&root)?
        .flags()
        .contains(nix::sys::statvfs::FsFlags::ST_RDONLY);
    Ok((!is_read_only).then_some(root))
}
