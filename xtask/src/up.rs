//! `cargo xtask up`: from a clone to a running pod.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::workspace::{self, Profile};
use crate::{programs, setup};

/// How long the node stays.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// Make the pod, show it, clean up, and end
    #[arg(long)]
    once: bool,
}

impl Up {
    /// Builds, then leaves the rest to the `demo` program, which speaks CRI.
    pub(crate) fn run(self) -> Result<()> {
        println!("[1/3] checking what this machine has");
        setup::run(setup::Need::Build)?;
        println!("[2/3] building podwright (release)");
        programs::run(&mut workspace::build(Profile::Release))?;
        println!("[3/3] starting the node");
        let mut demo = Command::new(workspace::program(Profile::Release, "demo"));
        demo.env(
            "PODWRIGHT_BINARY",
            workspace::program(Profile::Release, "podwright"),
        );
        if self.once {
            demo.arg("--once");
        }
        // In place of this process, so that Ctrl-C and signals reach the one that cleans up.
        let error = demo.exec();
        Err(anyhow!(error).context(format!("cannot run {}", programs::line(&demo))))
    }
}
