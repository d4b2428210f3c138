//! Debian's packages, unpacked without installing them.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

/// Runs a program to its end; its output becomes part of the error when it fails.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{command:?} failed with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Downloads `packages` and unpacks them all into the new directory `root`.
///
/// # Errors
/// When apt or dpkg is missing or fails, which is also how a wrong name or a missing network shows.
pub(crate) fn unpack<S: AsRef<str>>(packages: &[S], root: &Path, scratch: &Path) -> Result<()> {
    for package in download(packages, scratch)? {
        fs::create_dir_all(root).with_context(|| format!("creating {}", root.display()))?;
        run(Command::new("dpkg").arg("-x").arg(&package).arg(root))?;
    }
    Ok(())
}

/// The names of all packages that a machine needs for `packages` when it has nothing yet, `packages`
/// among them. What this machine has installed does not matter.
///
/// # Errors
/// When apt is missing or knows no such package.
pub(crate) fn closure(packages: &[&str]) -> Result<Vec<String>> {
    let listed = with_lists(|| {
        run(Command::new("apt-get")
            .args(["install", "--simulate", "-qq", "--no-install-recommends"])
            .args(["-o", "Dir::State::status=/dev/null"])
            .args(packages))
    })
    .with_context(|| format!("asking apt what {} depends on", packages.join(" ")))?;
    Ok(installed(&listed).map(ToOwned::to_owned).collect())
}

/// The names in `apt-get --simulate`'s lines, such as `Inst libc6 (2.36-9 Debian:12 [amd64])`.
fn installed(simulated: &str) -> impl Iterator<Item = &str> {
    let names = simulated
        .lines()
        .filter_map(|line| line.strip_prefix("Inst "));
    names.filter_map(|rest| rest.split(' ').next())
}

fn download<S: AsRef<str>>(packages: &[S], scratch: &Path) -> Result<Vec<PathBuf>> {
    let directory = scratch.join("packages");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let names: Vec<_> = packages.iter().map(AsRef::as_ref).collect();
    with_lists(|| {
        run(Command::new("apt-get")
            .args(["download", "--quiet"])
            .args(&names)
            .current_dir(&directory))
    })
    .with_context(|| format!("downloading {}", names.join(" ")))?;
    let mut files = Vec::new();
    for name in names {
        files.push(downloaded(&directory, name)?);
    }
    Ok(files)
}

/// What `get` makes of the package lists; they are fetched when it fails without them, as on a fresh
/// machine.
fn with_lists(get: impl Fn() -> Result<String>) -> Result<String> {
    get().or_else(|first| {
        run(Command::new("apt-get").args(["update", "--quiet"])).context(first)?;
        get()
    })
}

/// Files are named `package_version_architecture.deb`.
fn downloaded(directory: &Path, package: &str) -> Result<PathBuf> {
    let prefix = format!("{package}_");
    for file in fs::read_dir(directory)? {
        let file = file?;
        let is_package = file.path().extension() == Some(OsStr::new("deb"));
        if is_package && file.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(file.path());
        }
    }
    bail!(
        "apt-get download left no {prefix}*.deb in {}",
        directory.display()
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn packages_to_install_are_read() {
        let simulated = "NOTE: a simulation\nInst libc6 (2.36-9 Debian:12 [amd64]) []\n\
            Inst busybox (1.35 Debian:12 [amd64])\nConf libc6 (2.36-9 Debian:12 [amd64])\n";
        assert_eq!(
            installed(simulated).collect::<Vec<_>>(),
            ["libc6", "busybox"]
        );
    }
}
