//! Debian's SELinux policy with the reference policy's module for containers, which Debian builds no package of: compiled from
//! Debian's source of it. Nothing of it is installed on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{cache, packages};

const RECIPE: &str = include_str!("selinux.rs");
/// What compiles policies, with all that it depends on.
const COMPILER: &[&str] = &[
    "checkpolicy",
    "coreutils",
    "dash",
    "findutils",
    "gawk",
    "grep",
    "m4",
    "make",
    "policycoreutils",
    "sed",
    "semodule-utils",
    "tar",
    "zstd",
];
/// The policy: its modules, the interfaces between them, and the source. What these depend on is for people who write policies.
const POLICY: &[&str] = &[
    "selinux-policy-default",
    "selinux-policy-dev",
    "selinux-policy-src",
];
/// See selinux_config(5).
const CONFIG: &str = "SELINUX=enforcing\nSELINUXTYPE=default\n";
/// The machine's own processes and the daemon with its tests may do what they like, as Debian's policy is not made for
/// either; containers may not.
const DOMAINS: &str = "(typepermissive kernel_t)\n(typepermissive container_engine_t)\n";
/// Run in the root that all packages are unpacked into.
const BUILD: &str = r"
set -e
mkdir -p /build /var/lib/selinux/default/active/modules
cd /build
tar --zstd -xf /usr/src/selinux-policy-src.tar.zst --strip-components=4 --wildcards '*/modules/services/container.te' '*/modules/services/container.fc'
make -f /usr/share/selinux/devel/Makefile AWK=gawk container.pp
set -- -i container.pp -i domains.cil
for module in $(cat /usr/share/selinux/default/.modules); do
    set -- -i /usr/share/selinux/default/$module.pp.bz2 $@
done
semodule -X 100 -n -s default $@
";

/// A directory to mount on /etc/selinux: from the cache, or made in a minute.
///
/// # Errors
/// When packages cannot be fetched, or the policy does not compile.
pub(super) fn policy() -> Result<PathBuf> {
    let directory = cache::directory_of("vm-selinux", RECIPE, |fresh| {
        let scratch = tempfile::tempdir()?;
        let root = scratch.path().join("root");
        let mut needed = packages::closure(COMPILER)?;
        needed.extend(POLICY.iter().map(ToString::to_string));
        packages::unpack(&needed, &root, scratch.path())?;
        build(&root)?;
        let built = root.join("etc/selinux");
        packages::run(Command::new("cp").arg("-a").arg(&built).arg(fresh))?;
        // busybox has none.
        fs::copy(root.join("usr/bin/chcon"), fresh.join("selinux/chcon"))?;
        Ok(())
    })?;
    Ok(directory.join("selinux"))
}

fn build(root: &Path) -> Result<()> {
    for directory in ["build", "dev", "etc", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for (path, content) in [
        ("build/domains.cil", DOMAINS),
        // A plain file is enough for who throws words away.
        ("dev/null", ""),
        ("etc/selinux/config", CONFIG),
    ] {
        fs::write(root.join(path), content).with_context(|| format!("writing {path}"))?;
    }
    packages::run(
        Command::new("chroot")
            .arg(root)
            .args(["/bin/dash", "-c", BUILD])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    )
    .context("compiling the SELinux policy")?;
    Ok(())
}
