//! What `cargo xtask soak` runs: very many pods come and go on a private Podwright, and in the end it and the machine hold what they
//! held in the beginning, and the calls take as long.

mod census;
mod cycle;
mod flat;
mod items;
mod kernel;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Parser;
use podwright_integration::{
    cri::Cri,
    images::{self, BUSYBOX},
    node::{Daemon, enter_private_disk},
    patience::amount,
    proc::Processors,
    registry::Registry,
};

use census::{Census, Company};
use cycle::Cycles;
use flat::{Line, Verdict};

/// What comes to be on first use is there after so many cycles.
const WARM_UP: usize = 1_000;
/// For how long a soak of [`FULL`] cycles warms up, and a shorter one in proportion. A daemon keeps events for a client of an earlier one for
/// five minutes.
const STEADY: Duration = Duration::from_secs(6 * 60);
/// See above.
const FULL: usize = 100_000;
/// Cycles at each end whose times are compared; fewer when there are not twice as many.
const SAMPLE: usize = 1_000;
/// For how long the machine is watched before it is used.
const WATCH: Duration = Duration::from_secs(3);

/// Has very many pods come and go, and compares what is held afterwards with what was before
#[derive(Debug, Parser)]
struct Cli {
    /// How many pods, after those that warm everything up
    #[arg(long, value_name = "NUMBER", default_value_t = FULL)]
    cycles: usize,
    /// Also write the table to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Judge what the whole machine holds though it seems that others use it too
    #[arg(long)]
    alone: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    println!("opening the test images; building them takes a minute, once");
    images::Store::open()?;
    // Before there are other threads.
    enter_private_disk()?;
    kernel::show_debug();
    let runtime = tokio::runtime::Runtime::new().context("starting the threads")?;
    runtime.block_on(async {
        tokio::select! {
            done = judge(cli) => done,
            // Dropping the run ends what it has started.
            _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        }
    })
}

async fn judge(cli: &Cli) -> Result<()> {
    let registry = Registry::with_test_images().await?;
    let mut daemon = Daemon::start(&registry).await?;
    let cri = Cri::new(daemon.client(), &daemon.slot().path("logs"));
    cri.pull(BUSYBOX)
        .await
        .with_context(|| format!("pulling {BUSYBOX}"))?;
    // One that has pulled keeps connections to the registry for a while, and memory.
    daemon.terminate().await?;
    daemon.restart().await?;
    let lines = soak(&daemon, &cri, cli).await?;
    daemon.terminate().await?;

    println!("\n{}", flat::table(&lines));
    if let Some(path) = &cli.json {
        std::fs::write(path, flat::json(cli.cycles, &lines).to_string())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    if count(Verdict::NotJudged) > 0 {
        println!(
            "{} counts of the whole machine are not judged, as others use it too: run it alone, or with --alone",
            count(Verdict::NotJudged)
        );
    }
    match count(Verdict::Changed) {
        0 => Ok(()),
        changed => bail!("{changed} of {} lines are not as they were", lines.len()),
    }
}

async fn soak(daemon: &Daemon, cri: &Cri, cli: &Cli) -> Result<Vec<Line>> {
    let company = |busy| match cli.alone {
        true => Company::Alone,
        false => Company::of(busy),
    };
    let processors = Processors::now()?;
    tokio::time::sleep(WATCH).await;
    let mut seen = company(processors.busy()?);
    let cycles = Cycles { daemon, cri };
    let warm_up = amount(WARM_UP);
    let steady = STEADY.mul_f64(cli.cycles as f64 / FULL as f64);
    println!("{warm_up} cycles and more warm everything up, for {steady:.0?}");
    let start = Instant::now();
    loop {
        cycles.run(warm_up, 0).await?;
        if start.elapsed() >= steady {
            break;
        }
    }
    let (before, busy) = Census::at_rest(daemon, seen).await?;
    seen = seen.or(company(busy));

    println!("{} cycles", cli.cycles);
    let mut ends = cycles.run(cli.cycles, SAMPLE.min(cli.cycles / 2)).await?;
    if let Err(error) = before.wait_reclaimed(daemon).await {
        // The table says how much it is.
        println!("{error:#}");
    }
    let (after, busy) = Census::at_rest(daemon, seen).await?;
    seen = seen.or(company(busy));

    let other = after.other_descriptors(&before);
    if !other.is_empty() {
        println!("other descriptors of the daemon's:\n{other}");
    }
    if seen == Company::Alone {
        println!(
            "slab caches, KiB of objects:\n{}",
            after.other_caches(&before)
        );
    }
    let mut lines = flat::compare(&before, &after, seen);
    let ([up, exec], [last_up, last_exec]) = (ends.first.slowest(), ends.last.slowest());
    lines.push(Line::time("pod up, p99", up, last_up));
    lines.push(Line::time("ExecSync true, p99", exec, last_exec));
    Ok(lines)
}
