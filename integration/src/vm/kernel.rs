//! A kernel of Debian's: the image, a first root that finds the real one, and the modules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{cpio::Archive, image, modules, programs::Programs};
use crate::{cache, packages};

/// Debian 12's own, Linux 6.1.
pub const DEFAULT_KERNEL: &str = "linux-image-amd64";

const INIT: &str = include_str!("init.sh");
const RECIPE: &str = concat!(
    include_str!("kernel.rs"),
    include_str!("modules.rs"),
    include_str!("cpio.rs"),
    include_str!("image.rs"),
    include_str!("init.sh"),
);
/// What is needed before the real root is there; the rest is loaded from it by modprobe.
const EARLY: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    // ext4 asks for it by its algorithm, which `depends=` does not tell.
    "crc32c_generic",
    "ext4",
    "9pnet_virtio",
    "9p",
    "overlay",
];
/// The parts of a kernel's modules that pods and their tests can need: no drivers of hardware.
const KEPT: &[&str] = &[
    "arch/",
    "crypto/",
    "drivers/block/",
    "drivers/char/virtio_console",
    "drivers/net/bonding/",
    "drivers/net/dummy",
    "drivers/net/geneve",
    "drivers/net/ifb",
    "drivers/net/ipvlan/",
    "drivers/net/macvlan",
    "drivers/net/tun",
    "drivers/net/veth",
    "drivers/net/vrf",
    "drivers/net/vxlan",
    "drivers/net/wireguard/",
    "drivers/virtio/",
    "fs/",
    "lib/",
    "net/",
    "security/",
];

/// A kernel that is ready to be started.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    directory: PathBuf,
}

impl Kernel {
    /// The kernel that `package` stands for, such as [`DEFAULT_KERNEL`]: from the cache, or fetched and
    /// prepared, which takes half a minute.
    pub(super) fn open(package: &str, programs: &Programs) -> Result<Self> {
        let name = format!("vm-{package}");
        let directory =
            cache::directory_of(&name, RECIPE, |fresh| build(package, fresh, programs))?;
        Ok(Self { directory })
    }

    /// The compressed image.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// The archive of the first root.
    pub(super) fn initramfs(&self) -> PathBuf {
        self.directory.join("initramfs")
    }

    /// A disk image to mount on /lib/modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.directory.join("modules")
    }
}

fn build(package: &str, fresh: &Path, programs: &Programs) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let needed = packages::closure(&[package])?;
    // The packages without a version in their name only depend on the others.
    let versioned = needed.iter().find(|name| {
        let rest = name.strip_prefix("linux-image-");
        rest.is_some_and(|rest| rest.matches('.').count() >= 2)
    });
    let versioned = versioned.with_context(|| format!("{package} depends on no kernel"))?;
    let root = scratch.path().join("kernel");
    packages::unpack(&[versioned], &root, scratch.path())?;

    let release = only_entry(&root.join("lib/modules"))?;
    let image = root.join(format!("boot/vmlinuz-{release}"));
    fs::copy(&image, fresh.join("vmlinuz"))
        .with_context(|| format!("copying {}", image.display()))?;
    let initramfs = initramfs(
        &root.join("lib/modules").join(&release),
        scratch.path(),
        programs,
    )?;
    fs::write(fresh.join("initramfs"), initramfs)?;

    prune(&root.join("lib/modules").join(&release).join("kernel"))?;
    let mut depmod = programs.command("depmod")?;
    packages::run(depmod.arg("-b").arg(&root).arg(&release))?;
    image::image_of(&root.join("lib/modules"), &fresh.join("modules"), programs)
}

fn only_entry(directory: &Path) -> Result<String> {
    let mut entries =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let entry = entries
        .next()
        .with_context(|| format!("{} is empty", directory.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

/// busybox, the early modules in their order, and [`INIT`].
fn initramfs(tree: &Path, scratch: &Path, programs: &Programs) -> Result<Vec<u8>> {
    let shell = scratch.join("shell");
    packages::unpack(&["busybox-static"], &shell, scratch)?;
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "modules", "proc", "sys"] {
        archive.directory(directory);
    }
    archive.program("bin/busybox", &fs::read(shell.join("bin/busybox"))?);
    archive.program("init", INIT.as_bytes());

    let files = modules::find(&tree.join("kernel"))?;
    let inside = fs::read_to_string(tree.join("modules.builtin"))?;
    let read = |name: &str| match files.get(name) {
        Some(path) => uncompressed(path, programs),
        None if inside.contains(&format!("/{name}.ko")) => Ok(Vec::new()),
        None => bail!("the kernel has no module {name}"),
    };
    let order = modules::order(EARLY, &|name| Ok(modules::dependencies(&read(name)?)))?;
    let mut list = String::new();
    for name in order.iter().filter(|name| files.contains_key(*name)) {
        archive.file(&format!("modules/{name}.ko"), &read(name)?);
        list.push_str(name);
        list.push('\n');
    }
    archive.file("modules/order", list.as_bytes());
    Ok(archive.finish())
}

fn uncompressed(module: &Path, programs: &Programs) -> Result<Vec<u8>> {
    if !modules::is_compressed(module) {
        return fs::read(module).with_context(|| format!("reading {}", module.display()));
    }
    let output = programs.command("xz")?.arg("-dc").arg(module).output()?;
    ensure!(
        output.status.success(),
        "xz cannot unpack {}: {}",
        module.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

/// Removes the modules that are not [`KEPT`].
fn prune(tree: &Path) -> Result<()> {
    for path in modules::find(tree)?.values() {
        let below = path.strip_prefix(tree)?.to_string_lossy();
        if !KEPT.iter().any(|kept| below.starts_with(kept)) {
            fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}
