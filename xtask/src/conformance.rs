//! `cargo xtask conformance`: critest against a private daemon.

use std::process::Command;

use anyhow::{Result, bail};

use crate::phase::Counts;
use crate::test::{counted, parse_sum};
use crate::workspace::{self, Profile};
use crate::{programs, setup};

/// Which specs run, and in which order.
#[derive(Debug, clap::Args)]
pub(crate) struct Conformance {
    /// Only the specs whose full name matches this regular expression (Go's syntax)
    #[arg(long, value_name = "RE")]
    focus: Option<String>,
    /// The seed of the specs' random order, to repeat a run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Conformance {
    pub(crate) fn run(self) -> Result<()> {
        setup::run(setup::Need::Everything)?;
        programs::run(&mut workspace::build(Profile::Release))?;
        let mut arguments = Vec::new();
        if let Some(focus) = self.focus {
            arguments.extend(["--focus".to_owned(), focus]);
        }
        if let Some(seed) = self.seed {
            arguments.extend(["--seed".to_owned(), seed.to_string()]);
        }
        let counts = suite(Profile::Release, &arguments)?;
        if counts.failed > 0 || counts.passed == 0 {
            bail!("conformance: {counts}");
        }
        Ok(())
    }
}

/// Runs the suite with programs that are built already.
pub(crate) fn suite(profile: Profile, arguments: &[String]) -> Result<Counts> {
    let mut conformance = Command::new(workspace::program(profile, "conformance"));
    conformance.args(arguments).current_dir(workspace::root());
    conformance.env("PODWRIGHT_BINARY", workspace::program(profile, "podwright"));
    counted(&mut conformance, parse_sum)
}
