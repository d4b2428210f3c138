//! `cargo xtask bench`: the figures of a release build, side by side with another runtime's.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::workspace::{self, Profile};
use crate::{programs, setup};

/// What is measured, and where the figures go.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Another CRI runtime, measured in the same run: `containerd`, which is built and started for it, or the socket of one
    /// that runs, unix:///run/crio/crio.sock
    #[arg(long, value_name = "RUNTIME")]
    against: Option<String>,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these rows: idle, latency, throughput, logs, streams, pull, crowd; and, which are asked for by name alone:
    /// probes, scale, writers; may be repeated
    #[arg(long, value_name = "ROWS")]
    only: Vec<String>,
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        setup::run(setup::Need::Everything)?;
        programs::run(&mut workspace::build(Profile::Release))?;
        let mut bench = Command::new(workspace::program(Profile::Release, "bench"));
        bench.env(
            "PODWRIGHT_BINARY",
            workspace::program(Profile::Release, "podwright"),
        );
        if let Some(against) = self.against {
            bench.args(["--against", &against]);
        }
        if let Some(json) = self.json {
            bench.arg("--json").arg(json);
        }
        for rows in self.only {
            bench.args(["--only", &rows]);
        }
        programs::run(&mut bench)
    }
}
