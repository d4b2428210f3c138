//! Debian packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::Need;
use crate::programs;

/// One thing that a machine must have, and the package that brings it.
struct Requirement {
    package: &'static str,
    need: Need,
    present: fn() -> bool,
    purpose: &'static str,
}

const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        package: "gcc",
        need: Need::Build,
        present: || programs::find("cc").is_some(),
        purpose: "the linker, and the C parts of dependencies",
    },
    Requirement {
        package: "libc6-dev",
        need: Need::Build,
        present: || programs::find("cc").is_some() && Path::new("/usr/include/stdlib.h").exists(),
        purpose: "the C library's headers",
    },
    Requirement {
        package: "make",
        need: Need::Build,
        present: || programs::find("make").is_some(),
        purpose: "the daemon's allocator, which is built by it",
    },
    Requirement {
        package: "ca-certificates",
        need: Need::Build,
        present: || Path::new("/etc/ssl/certs/ca-certificates.crt").exists(),
        purpose: "TLS to registries of packages and images",
    },
    Requirement {
        package: "golang-go",
        need: Need::Everything,
        present: || programs::find("go").is_some(),
        purpose: "crictl and critest, which are Go programs",
    },
    Requirement {
        package: "valgrind",
        need: Need::Everything,
        present: || programs::find("valgrind").is_some(),
        purpose: "counting instructions",
    },
    Requirement {
        package: "linux-perf",
        need: Need::Profiling,
        present: || programs::find("perf").is_some(),
        purpose: "samples of where time goes",
    },
    Requirement {
        package: "dpkg",
        need: Need::Everything,
        present: || programs::find("dpkg-deb").is_some(),
        purpose: "test images, which are made from Debian's packages",
    },
];

/// Installs the packages that bring what is missing.
///
/// # Errors
/// When something is missing that cannot be installed: no apt-get, no root, or apt-get failed.
pub(super) fn install(need: Need) -> Result<()> {
    let wanted = REQUIREMENTS.iter().filter(|r| r.need <= need);
    let missing: Vec<_> = wanted.filter(|r| !(r.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for requirement in &missing {
        println!("missing: {} ({})", requirement.package, requirement.purpose);
    }
    let packages: Vec<_> = missing.iter().map(|r| r.package).collect();
    if programs::find("apt-get").is_none() {
        bail!(
            "this machine has no apt-get; install by its own means what these Debian packages bring: {}",
            packages.join(" ")
        );
    }
    println!("installing {}", packages.join(" "));
    programs::run(&mut apt_get(&["update", "--quiet"]))?;
    programs::run(
        apt_get(&["install", "--yes", "--quiet", "--no-install-recommends"]).args(&packages),
    )?;
    match missing.iter().find(|r| !(r.present)()) {
        Some(still) => bail!(
            "{} is installed, and yet the machine lacks {}",
            still.package,
            still.purpose
        ),
        None => Ok(()),
    }
}

/// `apt-get`, as root.
fn apt_get(arguments: &[&str]) -> Command {
    let is_root = programs::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let mut command = if is_root {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    };
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
