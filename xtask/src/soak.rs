//! `cargo xtask soak`: very many pods on a release build, and what is held afterwards.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::workspace::{self, Profile};
use crate::{programs, setup};

/// How many pods, and where the table goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Soak {
    /// Options, such as `--cycles 100000 --json FILE`; `cargo xtask soak -- --help` prints them
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    arguments: Vec<OsString>,
}

impl Soak {
    pub(crate) fn run(self) -> Result<()> {
        setup::run(setup::Need::Everything)?;
        programs::run(&mut workspace::build(Profile::Release))?;
        let mut soak = Command::new(workspace::program(Profile::Release, "soak"));
        soak.args(self.arguments).env(
            "PODWRIGHT_BINARY",
            workspace::program(Profile::Release, "podwright"),
        );
        // In place of this process, so that signals reach the one that clears up.
        let error = soak.exec();
        Err(anyhow!(error).context(format!("cannot run {}", programs::line(&soak))))
    }
}
