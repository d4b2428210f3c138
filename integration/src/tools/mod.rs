//! Programs of others, built from the pinned Go modules in `integration/tools`: crictl and critest, and a plugin for NRI.

mod critest;
pub mod nri;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

pub use critest::{Critest, Report, Spec, State};

use crate::cache;

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools");
const RECIPE: &str = concat!(
    include_str!("../../tools/go.mod"),
    include_str!("../../tools/go.sum"),
    include_str!("mod.rs")
);
const CRICTL: &str = "sigs.k8s.io/cri-tools/cmd/crictl";
const CRITEST: &str = "sigs.k8s.io/cri-tools/cmd/critest";
/// What `crictl --version` says.
const VERSION_FLAG: &str = "-X sigs.k8s.io/cri-tools/pkg/version.Version=1.36.0 -s -w";

/// The programs of the CRI tools.
#[derive(Clone, Debug)]
pub struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// Finds the programs in the cache, or builds them, which takes Go 1.26 or later and, the first
    /// time, some minutes.
    ///
    /// # Errors
    /// When Go is missing, or the build fails.
    pub fn open() -> Result<Self> {
        let directory = cache::directory_of("cri-tools", RECIPE, |fresh| {
            go(fresh, &["build", "-o", "crictl"], CRICTL)?;
            go(fresh, &["test", "-c", "-o", "critest"], CRITEST)
        })?;
        Ok(Self { directory })
    }

    /// The program crictl.
    pub fn crictl(&self) -> PathBuf {
        self.directory.join("crictl")
    }

    /// The program critest.
    pub fn critest(&self) -> PathBuf {
        self.directory.join("critest")
    }

    /// `crictl` for the server at `socket`, without any configuration file.
    pub fn crictl_for(&self, socket: &Path) -> Command {
        let endpoint = format!("unix://{}", socket.display());
        let mut command = Command::new(self.crictl());
        // Named for both services, so that crictl neither looks for others nor warns.
        command.args(["--config", "/dev/null", "--runtime-endpoint", &endpoint]);
        command.args(["--image-endpoint", &endpoint]);
        command
    }
}

fn go(output: &Path, verb: &[&str], package: &str) -> Result<()> {
    let (program, rest) = verb.split_last().context("an empty command")?;
    let result = Command::new("go")
        .args(rest)
        .arg(output.join(program))
        .args([
            "-trimpath",
            "-mod=readonly",
            "-ldflags",
            VERSION_FLAG,
            package,
        ])
        .current_dir(MODULE)
        .output()
        .context("starting go (crictl and critest are built with Go 1.26.2 or later)")?;
    ensure!(
        result.status.success(),
        "building {package} failed: {}",
        String::from_utf8_lossy(&result.stderr).trim()
    );
    Ok(())
}
