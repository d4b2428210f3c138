//! `cargo xtask conformance`: critest against a private daemon.

use std::process::Command;

use anyhow::{Result, bail};

use crate::phase::Counts;
use crate::test::{Sight, counted, parse_sum};
use crate::workspace::{self, Profile};
use crate::{programs, setup};

/// Which specs run, how often, and in which order.
#[derive(Debug, clap::Args)]
pub(crate) struct Conformance {
    /// Only the specs whose full name matches this regular expression (Go's syntax)
    #[arg(long, value_name = "RE")]
    focus: Option<String>,
    /// How many times, each in a random order of its own
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    seeds: u32,
    /// A run in this order, to repeat one; may be repeated
    #[arg(long = "seed", value_name = "N", conflicts_with = "seeds")]
    chosen: Vec<u32>,
}

impl Conformance {
    pub(crate) fn run(self) -> Result<()> {
        setup::run(setup::Need::Everything)?;
        programs::run(&mut workspace::build(Profile::Release))?;
        let mut arguments = Vec::new();
        if let Some(focus) = self.focus {
            arguments.extend(["--focus".to_owned(), focus]);
        }
        if self.chosen.is_empty() {
            arguments.extend(["--seeds".to_owned(), self.seeds.to_string()]);
        }
        for seed in self.chosen {
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
    counted(&mut conformance, Sight::Plain, parse_sum)
}
