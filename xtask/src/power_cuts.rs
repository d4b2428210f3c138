//! `cargo xtask power-cuts`: a node in a virtual machine whose power fails again and again.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::workspace::{self, Profile};
use crate::{programs, setup};

/// How often, on which file systems, with which seed: `cargo xtask power-cuts -- --help` prints it.
#[derive(Debug, clap::Args)]
pub(crate) struct PowerCuts {
    /// Options, such as `--count 4 --filesystem xfs`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    arguments: Vec<OsString>,
}

impl PowerCuts {
    /// Builds everything, then leaves the rest to the program that holds the plug.
    pub(crate) fn run(self) -> Result<()> {
        setup::run(setup::Need::Everything)?;
        programs::run(&mut workspace::build_all())?;
        let mut cuts = Command::new(workspace::program(Profile::Dev, "power_cuts"));
        cuts.args(self.arguments);
        // In place of this process, so that Ctrl-C and signals reach the one that switches the machine off.
        let error = cuts.exec();
        Err(anyhow!(error).context(format!("cannot run {}", programs::line(&cuts))))
    }
}
