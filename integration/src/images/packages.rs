//! Debian's packages, unpacked without installing them.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

/// Runs a program to its end; its output becomes part of the error when it fails.
pub(super) fn run(command: &mut Command) -> Result<String> {
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
pub(super) fn unpack(packages: &[&str], root: &Path, scratch: &Path) -> Result<()> {
    for package in download(packages, scratch)? {
        fs::create_dir_all(root).with_context(|| format!("creating {}", root.display()))?;
        run(Command::new("dpkg").arg("-x").arg(&package).arg(root))?;
    }
    Ok(())
}

fn download(packages: &[&str], scratch: &Path) -> Result<Vec<PathBuf>> {
    let directory = scratch.join("packages");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let get = || {
        run(Command::new("apt-get")
            .args(["download", "--quiet"])
            .args(packages)
            .current_dir(&directory))
    };
    if let Err(first) = get() {
        // A fresh machine has no package lists yet.
        run(Command::new("apt-get").args(["update", "--quiet"])).context(first)?;
        get().with_context(|| format!("downloading {}", packages.join(" ")))?;
    }
    let mut files = Vec::new();
    for package in packages {
        files.push(downloaded(&directory, package)?);
    }
    Ok(files)
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
