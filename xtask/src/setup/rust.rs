//! The toolchain that `rust-toolchain.toml` names, with its components and targets.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{programs, workspace};

/// Has rustup install the toolchain of the workspace. rustup does so by itself unless RUSTUP_AUTO_INSTALL=0, and then
/// adds neither targets nor components to a toolchain that is there already.
pub(super) fn install() -> Result<()> {
    let toolchain_file = workspace::root().join("rust-toolchain.toml");
    let text = std::fs::read_to_string(&toolchain_file)
        .with_context(|| format!("cannot read {}", toolchain_file.display()))?;
    let wanted = Toolchain::parse(&text)
        .with_context(|| format!("{} has no channel", toolchain_file.display()))?;
    if wanted.is_installed() {
        return Ok(());
    }
    println!(
        "installing Rust {} with {}",
        wanted.channel,
        [&wanted.components[..], &wanted.targets[..]]
            .concat()
            .join(", ")
    );
    let mut rustup = Command::new("rustup");
    rustup.args([
        "toolchain",
        "install",
        &wanted.channel,
        "--profile",
        "minimal",
        "--no-self-update",
    ]);
    for component in &wanted.components {
        rustup.args(["--component", component]);
    }
    for target in &wanted.targets {
        rustup.args(["--target", target]);
    }
    programs::run(&mut rustup).context("is rustup installed? see https://rustup.rs")
}

#[derive(Debug, PartialEq, Eq)]
struct Toolchain {
    channel: String,
    components: Vec<String>,
    targets: Vec<String>,
}

impl Toolchain {
    /// Reads the file's few lines `key = "value"` and `key = ["value", …]`.
    fn parse(text: &str) -> Option<Self> {
        let values = |key: &str| -> Vec<String> {
            let line = text
                .lines()
                .find(|line| line.split('=').next().is_some_and(|k| k.trim() == key));
            let quoted = line.unwrap_or_default().split('"').skip(1).step_by(2);
            quoted.map(str::to_owned).collect()
        };
        Some(Self {
            channel: values("channel").into_iter().next()?,
            components: values("components"),
            targets: values("targets"),
        })
    }

    fn is_installed(&self) -> bool {
        let listed = |what: &str| {
            let mut rustup = Command::new("rustup");
            rustup.args([what, "list", "--installed", "--toolchain", &self.channel]);
            let output = rustup
                .output()
                .ok()
                .filter(|output| output.status.success());
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (Some(components), Some(targets)) = (listed("component"), listed("target")) else {
            return false;
        };
        // Components are listed with the host's name behind: `clippy-x86_64-unknown-linux-gnu`.
        self.components.iter().all(|c| {
            components
                .lines()
                .any(|l| l == c || l.starts_with(&format!("{c}-")))
        }) && self.targets.iter().all(|t| targets.lines().any(|l| l == t))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspaces_toolchain_file_is_read() {
        let toolchain = Toolchain::parse(include_str!("../../../rust-toolchain.toml"));
        assert_eq!(
            toolchain,
            Some(Toolchain {
                channel: env!("CARGO_PKG_RUST_VERSION").to_owned() + ".0",
                components: vec!["clippy".to_owned(), "rustfmt".to_owned()],
                targets: vec!["x86_64-unknown-linux-musl".to_owned()],
            })
        );
        assert_eq!(Toolchain::parse("[toolchain]\n"), None);
    }
}
