//! The machine's root file system: Debian packages of the same distribution as this machine's, so that
//! programs which were linked here find the C library that they were linked with.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{Init, image, programs::Programs};
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
/// What systemd needs as the first process; the first process of the others is a script, and their image the smaller for it.
const SYSTEMD_PACKAGES: &[&str] = &["dbus", "systemd"];
/// What else systemd would start: a journal, terminals, time, and watching devices that do not come and go here.
const SYSTEMD_STARTS: &[&str] = &[
    "sysinit.target.wants",
    "sockets.target.wants",
    "timers.target.wants",
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
        "root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:100::/nonexistent:/bin/false\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    ),
    (
        "etc/group",
        "root:x:0:\nmessagebus:x:100:\nnogroup:x:65534:\n",
    ),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/hostname", "podwright-vm\n"),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    ),
    ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
    // critest loads its AppArmor profiles by it; everybody is root here.
    ("usr/bin/sudo", "#!/bin/sh\nexec \"$@\"\n"),
];

/// The image of the root: from the cache, or made of some 30 MB of packages. It takes root, as making
/// pods does.
pub(super) fn open(init: Init, programs: &Programs) -> Result<PathBuf> {
    let (name, more): (_, &[&str]) = match init {
        Init::Script => ("vm-root", &[]),
        Init::Systemd => ("vm-root-systemd", SYSTEMD_PACKAGES),
    };
    let directory = cache::directory_of(name, RECIPE, |fresh| {
        let scratch = tempfile::tempdir()?;
        let root = scratch.path().join("root");
        let wanted = [PACKAGES, more].concat();
        packages::unpack(&packages::closure(&wanted)?, &root, scratch.path())?;
        complete(&root)?;
        if init == Init::Systemd {
            start_little(&root)?;
        }
        image::image_of(&root, &fresh.join("root"), programs)
    })?;
    Ok(directory.join("root"))
}

/// Leaves systemd the units that somebody asks for.
fn start_little(root: &Path) -> Result<()> {
    for wants in SYSTEMD_STARTS {
        let directory = root.join("lib/systemd/system").join(wants);
        fs::remove_dir_all(&directory)
            .with_context(|| format!("removing {}", directory.display()))?;
    }
    Ok(())
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
