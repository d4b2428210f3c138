//! What `cargo xtask power-cuts` runs: a node in a virtual machine whose power fails again and again while it pulls and
//! removes images and makes pods, on a disk that loses what was not flushed. After each cut the machine is booted
//! again, and what is there is compared with what must be.
//!
//! The same program runs outside, where it holds the power plug, and inside, where it starts the daemon, checks, and works
//! until the power fails. What the inside has told is all that the outside knows of what must have lasted.

mod chain;
mod check;
mod damage;
mod images;
mod layer;
mod ledger;
mod message;
mod node;
mod records;
mod work;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use podwright_integration::{random::Random, vm::FileSystem};

use chain::{Chain, Verbosity};

/// Cuts the power of a node again and again, and checks what is left each time
#[derive(Debug, Parser)]
struct Cli {
    /// How often the power is cut, on each file system
    #[arg(long, value_name = "TIMES", default_value_t = 20)]
    count: u32,
    /// The file system of the node's disk; both, one after the other, when none is named
    #[arg(long, value_name = "NAME")]
    filesystem: Option<FileSystem>,
    /// What decides when the power is cut, and what is lost then [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// No cut begins after so many seconds; what was cut by then is checked
    #[arg(long, value_name = "SECONDS", default_value_t = 24 * 60 * 60)]
    time: u64,
    /// Print what the node tells, with the seconds since its machine was started
    #[arg(long)]
    verbose: bool,
    /// Runs inside the machine, with its order in the environment
    #[arg(long, hide = true)]
    inside: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.inside {
        true => node::run().await,
        false => outside(&cli).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("power-cuts: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    fn verbosity(&self) -> Verbosity {
        match self.verbose {
            true => Verbosity::EveryLine,
            false => Verbosity::EveryBoot,
        }
    }
}

async fn outside(cli: &Cli) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "making the machine's root file system takes root: run `sudo -E env PATH=\"$PATH\" cargo xtask power-cuts`"
    );
    let seed = cli.seed.unwrap_or_else(fresh_seed);
    let file_systems = match cli.filesystem {
        Some(one) => vec![one],
        None => vec![FileSystem::Ext4, FileSystem::Xfs],
    };
    // Each file system gets its share.
    let each = Duration::from_secs(cli.time) / u32::try_from(file_systems.len())?;
    let mut cuts = 0;
    for file_system in file_systems {
        println!("{file_system}: {} power cuts, seed {seed}", cli.count);
        let mut chain = Chain::new(file_system, Random::new(seed), cli.verbosity())?;
        let end = std::time::Instant::now() + each;
        let done = chain.run(cli.count, end).await.with_context(|| {
            format!("on {file_system}, with --filesystem {file_system} --seed {seed}")
        });
        chain.keep_disk_of(&done);
        cuts += done?;
    }
    println!("{cuts} passed, 0 failed");
    Ok(())
}

/// The time: seeds need only differ.
fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
