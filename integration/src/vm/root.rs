//! The machine's root file system: Debian packages of the same distribution as this machine's, so that
//! programs which were linked here find the C library that they were linked with.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{image, programs::Programs};
use crate::{cache, packages};

const RECIPE: &str = concat!(include_str!("root.rs"), include_str!("image.rs"));
/// With all that they depend on; no maintainer's script is run.
const PACKAGES: &[&str] = &[
    "apparmor",
    "busybox",
    "e2fsprogs",
    "iproute2",
    "kmod",
    "libgcc-s1",
    "mount",
    "nftables",
    "procps",
    "util-linux",
    "xfsprogs",
];
/// Where file systems are mounted, beside the directories that packages bring.
const DIRECTORIES: &[&str] = &[
    "dev",
    "disk",
    "etc",
    "job",
    "lib/modules",
    "out",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/sbin",
    "var/lib/podwright",
    "var/log",
];
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/hostname", "podwright-vm\n"),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    ),
    ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
    // critest loads its AppArmor profiles by it; everybody is root here.
    ("usr/bin/sudo", "#!/bin/sh\nexec \"$@\"\n"),
];

/// The image of the root: from the cache, or made of some 30 MB of packages. It takes root, as making
/// pods does.
pub(super) fn open(programs: &Programs) -> Result<PathBuf> {
    let directory = cache::directory_of("vm-root", RECIPE, |fresh| {
        let scratch = tempfile::tempdir()?;
        let root = scratch.path().join("root");
        packages::unpack(&packages::closure(PACKAGES)?, &root, scratch.path())?;
        complete(&root)?;
        image::image_of(&root, &fresh.join("root"), programs)
    })?;
    Ok(directory.join("root"))
}

fn complete(root: &Path) -> Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))
            .with_context(|| format!("creating {directory} of the machine's root"))?;
    }
    for (path, content) in FILES {
        fs::write(root.join(path), content).with_context(|| format!("writing {path}"))?;
    }
    let sudo = root.join("usr/bin/sudo");
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable", sudo.display()))?;
    // Applets only where no package has the program: busybox leaves alone what is there.
    packages::run(
        Command::new("chroot")
            .arg(root)
            .args(["/bin/busybox", "--install", "-s"]),
    )?;
    Ok(())
}
