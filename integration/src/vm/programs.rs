//! QEMU and the few other programs that making a machine takes, run from the cache: nothing is installed.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{cache, packages};

const RECIPE: &str = include_str!("programs.rs");
const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "e2fsprogs",
    "xfsprogs",
    "kmod",
    "xz-utils",
];
/// Not taken: the C library, since the loader and it have to be one version and the loader is this
/// machine's, and some megabytes of translated country names.
const LEFT_OUT: &[&str] = &["libc6", "iso-codes"];
/// Where shared libraries are in Debian's packages.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
/// Where programs are.
const PROGRAMS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];

/// A directory of programs with their libraries and data.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    root: PathBuf,
}

impl Programs {
    /// Finds them in the cache, or fetches them with apt, some 40 MB.
    pub(super) fn open() -> Result<Self> {
        ensure!(
            env::consts::ARCH == "x86_64",
            "the virtual machine is made for x86_64 only, and this is {}",
            env::consts::ARCH
        );
        let root = cache::directory_of("vm-programs", RECIPE, |fresh| {
            let scratch = tempfile::tempdir()?;
            let mut needed = packages::closure(PACKAGES)?;
            needed.retain(|name| !LEFT_OUT.contains(&name.as_str()));
            packages::unpack(&needed, fresh, scratch.path())?;
            let programs = Self {
                root: fresh.to_owned(),
            };
            programs.join_firmware()?;
            programs.link_depmod()?;
            programs.try_them()
        })?;
        Ok(Self { root })
    }

    /// One of them by name, with an environment in which it finds its libraries and data.
    pub(super) fn command(&self, name: &str) -> Result<Command> {
        let mut candidates = PROGRAMS
            .map(|directory| self.root.join(directory).join(name))
            .into_iter();
        let program = candidates
            .find(|path| path.is_file())
            .with_context(|| format!("no package of {} has {name}", PACKAGES.join(", ")))?;
        let mut command = Command::new(program);
        command
            .env("LD_LIBRARY_PATH", self.libraries())
            .env("QEMU_MODULE_DIR", self.root.join(LIBRARIES[0]).join("qemu"))
            .env("MKE2FS_CONFIG", self.root.join("etc/mke2fs.conf"));
        Ok(command)
    }

    /// QEMU with its firmware.
    pub(super) fn qemu(&self) -> Result<Command> {
        let mut qemu = self.command("qemu-system-x86_64")?;
        qemu.arg("-L").arg(self.firmware());
        Ok(qemu)
    }

    fn firmware(&self) -> PathBuf {
        self.root.join("usr/share/qemu")
    }

    fn libraries(&self) -> OsString {
        let directories = LIBRARIES.map(|directory| self.root.join(directory));
        env::join_paths(directories).unwrap_or_default()
    }

    /// QEMU looks in one directory; Debian has the BIOS in another one, and links to it by absolute path.
    fn join_firmware(&self) -> Result<()> {
        let bios = self.root.join("usr/share/seabios");
        let files = fs::read_dir(&bios).with_context(|| format!("reading {}", bios.display()))?;
        for file in files {
            let file = file?;
            let joined = self.firmware().join(file.file_name());
            let _ = fs::remove_file(&joined);
            fs::copy(file.path(), &joined)
                .with_context(|| format!("copying to {}", joined.display()))?;
        }
        Ok(())
    }

    /// kmod is depmod when it is called so; Debian links to it by absolute path.
    fn link_depmod(&self) -> Result<()> {
        let depmod = self.root.join("sbin/depmod");
        fs::remove_file(&depmod)
            .and_then(|()| fs::hard_link(self.root.join("bin/kmod"), &depmod))
            .with_context(|| format!("linking {}", depmod.display()))
    }

    /// A library that does not fit this machine's loader shows now, with its name.
    fn try_them(&self) -> Result<()> {
        for (program, flag) in [
            ("qemu-system-x86_64", "--version"),
            ("mke2fs", "-V"),
            ("mkfs.xfs", "-V"),
            ("depmod", "--version"),
            ("xz", "--version"),
        ] {
            packages::run(self.command(program)?.arg(flag))?;
        }
        Ok(())
    }
}

/// Makes a file of `size` bytes, all holes.
pub(super) fn sparse(path: &Path, size: u64) -> Result<()> {
    let file = fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    file.set_len(size)
        .with_context(|| format!("making {} {size} bytes long", path.display()))
}
