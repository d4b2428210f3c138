//! `cargo xtask bench`: the figures of a release build, side by side with another runtime's.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::results::{self, Commit};
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
    /// Keep the figures as those of the commit that is checked out, in docs/performance
    #[arg(long)]
    record: bool,
    /// Only these rows: idle, latency, throughput, logs, streams, pull, crowd; and, which are asked for by name alone:
    /// probes, scale, writers; may be repeated
    #[arg(long, value_name = "ROWS")]
    only: Vec<String>,
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        let commit = self.record.then(Commit::checked_out).transpose()?;
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
        for rows in self.only {
            bench.args(["--only", &rows]);
        }
        let Some(commit) = commit else {
            if let Some(json) = self.json {
                bench.arg("--json").arg(json);
            }
            return programs::run(&mut bench);
        };
        let json = self
            .json
            .unwrap_or_else(|| workspace::target().join("figures.json"));
        // Another run's figures are none of this commit.
        let _ = std::fs::remove_file(&json);
        let measured = programs::run(bench.arg("--json").arg(&json));
        // A missed goal fails the run, and is a figure all the same.
        match std::fs::read_to_string(&json) {
            Ok(rows) => results::record(&commit, &rows).and(measured),
            Err(error) => measured.and(Err(error).context("the benchmark has written no figures")),
        }
    }
}
