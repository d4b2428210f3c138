//! Where things are, and how cargo is asked to build them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's root directory.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The directory of what cargo and we build.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Tools and downloads that are not cargo's: cargo-deny, crictl, critest.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// Whether this is a CI run, where what is skipped counts as failed.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// How a program is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As the unit tests: dependencies are optimised, so the daemon is fast enough, and they are compiled once for all tests.
    Dev,
    /// As users get it, for everything that is measured or shown.
    Release,
}

impl Profile {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }

    /// Where cargo puts the programs of this profile.
    pub(crate) fn directory(self) -> PathBuf {
        target().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }
}

/// A `cargo` command in the workspace's root.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    // `cargo xtask` sets CARGO to the toolchain's own cargo.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    // What `cargo run` says of xtask itself: ring's build script looks at it, and would be run again, and all that depends on
    // ring, each time that cargo is called now by xtask and now by hand.
    for (name, _) in std::env::vars_os() {
        let of_xtask = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if of_xtask
            .iter()
            .any(|start| name.to_string_lossy().starts_with(start))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// The command that builds the daemon and the programs that drive it.
pub(crate) fn build(profile: Profile) -> Command {
    let mut command = cargo([
        "build",
        "--locked",
        "--package",
        "podwright",
        "--package",
        "podwright-integration",
        "--bins",
    ]);
    command.args(profile.flags());
    command
}

/// The path of a built program.
pub(crate) fn program(profile: Profile, name: &str) -> PathBuf {
    profile.directory().join(name)
}

/// The command that builds everything in the profile of the tests, the tests themselves too. Other selections of packages
/// compile dependencies again, with other features.
pub(crate) fn build_all() -> Command {
    cargo(["build", "--locked", "--workspace", "--all-targets"])
}

/// The command that builds `podwright-next`, against which upgrades are tested. A test that is not wanted is built with it:
/// with one, cargo chooses the features of dependencies as for [`build_all`], and compiles none of them again.
pub(crate) fn build_next() -> Command {
    cargo([
        "build",
        "--locked",
        "--workspace",
        "--features=podwright/next-protocol",
        "--bin=podwright-next",
        "--test=client",
    ])
}
