//! Files and mounts.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};

use super::{Machine, Scratch, Seen, apart};
use crate::sys::{self, MountDepth};

pub(super) fn mount_setattr(_: &Machine) -> Seen {
    let tried = "mount_setattr with an impossible descriptor";
    match sys::has_mount_setattr() {
        true => Seen::there(tried, "refused as invalid: known"),
        false => Seen::missing(tried, "not known, or forbidden to this process"),
    }
}

/// A container's root as the runtime makes it, in a mount namespace that ends with the trial.
pub(super) fn overlay(machine: &Machine) -> Seen {
    let tried = format!(
        "an overlay with its upper directory below {}, and a file in it",
        machine.state_dir.display()
    );
    let result = Scratch::below(&machine.state_dir).and_then(|scratch| {
        let directory = &scratch.0;
        for name in ["lower", "upper", "work", "root"] {
            fs::create_dir(directory.join(name))?;
        }
        fs::write(directory.join("lower/below"), "below")?;
        apart(|| mount_overlay(directory))
    });
    Seen::tried(tried, result)
}

fn mount_overlay(directory: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let path = |name: &str| directory.join(name).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        path("lower"),
        path("upper"),
        path("work")
    );
    let root = directory.join("root");
    mount(
        Some("overlay"),
        &root,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )?;
    // A change of a lower file copies it up; removing it takes a whiteout.
    fs::write(root.join("below"), "above")?;
    fs::remove_file(root.join("below"))?;
    fs::write(root.join("new"), "new")
}

/// How the daemon mounts a container's root.
pub(super) fn overlay_by_descriptor(_: &Machine) -> Seen {
    let result = crate::container::try_layer();
    Seen::tried("fsconfig lowerdir+ of an overlay".to_owned(), result)
}

/// What memory volumes and secrets are on.
pub(super) fn idmapped_tmpfs(_: &Machine) -> Seen {
    let is_tmpfs = |path: &&str| {
        statfs(*path).is_ok_and(|stat| {
            let FsType(number) = stat.filesystem_type();
            number == TMPFS_MAGIC.0
        })
    };
    let Some(path) = ["/run", "/dev/shm", "/tmp"].into_iter().find(is_tmpfs) else {
        return Seen::unknown(
            "an idmapped mount of a tmpfs",
            "no tmpfs is mounted to try it",
        );
    };
    let result = sys::user_namespace().and_then(|namespace| {
        sys::try_idmapped_mount(Path::new(path), namespace.as_fd(), MountDepth::This)
    });
    Seen::tried(format!("an idmapped mount of the tmpfs {path}"), result)
}
