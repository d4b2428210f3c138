//! A file system for this process alone, as nodes have them.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::slot;

/// Room for a thousand pods, or for the logs of a hundred that write for a minute. The file has holes, and takes what is written.
const BYTES: u64 = 16 << 30;

/// Puts the calling thread, and all that it starts from now on, into a new mount namespace, where the directories of slots are on a new
/// ext4 with a journal. Many test machines' disks have none: there each new inode passes over all that were removed within the last
/// minutes (`recently_deleted` in the kernel's fs/ext4/ialloc.c), and how long anything takes depends on what ran before.
/// The file system is gone with its last process.
///
/// # Errors
/// When there are no loop devices, or no `mkfs.ext4`, or the caller is not root.
pub fn enter_private_disk() -> Result<()> {
    let place = slot::locks().join("disk");
    fs::create_dir_all(&place).with_context(|| format!("creating {}", place.display()))?;
    let image = place.with_extension(std::process::id().to_string());
    File::create(&image).with_context(|| format!("creating {}", image.display()))?;
    let mounted = make(&image).and_then(|()| enter(&image, &place));
    // A mounted one is kept by its loop device.
    fs::remove_file(&image).with_context(|| format!("deleting {}", image.display()))?;
    mounted.with_context(|| format!("making a file system on {}", place.display()))?;
    slot::keep_in(place)
}

/// Nothing is left to be made in the background, which would be measured with whatever is.
fn make(image: &Path) -> Result<()> {
    File::options().write(true).open(image)?.set_len(BYTES)?;
    let options = "lazy_itable_init=0,lazy_journal_init=0";
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-E", options])
        .arg(image))
}

fn enter(image: &Path, place: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
    let (none, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, flags, none).context("making all mounts private")?;
    // mount(8) has the kernel give the loop device up with the mount.
    run(Command::new("mount")
        .args(["-t", "ext4", "-o", "loop"])
        .args([image, place]))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let context = || format!("running {}", program.display());
    let done = command.output().with_context(context)?;
    ensure!(
        done.status.success(),
        "{} ended with {}: {}",
        program.display(),
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}
