//! Runs Kubernetes' CRI conformance suite, critest, against a private daemon with a registry of its
//! own, and prints a line per spec and a sum. What a whole run has to come to is in [`expected`].

mod expected;
mod target;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use podwright_integration::{
    patience::patience,
    tools::{Critest, Tools},
};

use expected::{Expected, Verdict};
use target::Target;

/// A suite that hangs is ended after this time; a whole run takes about two minutes.
const TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// The specs of exec, attach and port-forward.
const STREAMING: &str = "Streaming";
/// They use SPDY unless told otherwise.
const WEBSOCKET: &[&str] = &[
    "-websocket-exec",
    "-websocket-attach",
    "-websocket-portforward",
];

/// Kubernetes' CRI conformance suite against a private Podwright: all specs, and those of streaming over WebSocket too
#[derive(Debug, Parser)]
struct Cli {
    /// Only the specs whose full name matches this regular expression (Go's syntax)
    #[arg(long, value_name = "RE")]
    focus: Option<String>,
    /// How many times, each in a random order of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    seeds: u32,
    /// A run in this order, to repeat one; may be repeated
    #[arg(long = "seed", value_name = "N", conflicts_with = "seeds")]
    chosen: Vec<u32>,
    /// Another runtime's socket, which has to find the images' registries by itself
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// A flag for critest itself, such as -websocket-exec; may be repeated
    #[arg(long = "flag", value_name = "FLAG", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// One run of critest.
#[derive(Debug)]
struct Run {
    seed: u32,
    focus: Option<String>,
    flags: Vec<String>,
    expected: Expected,
}

/// What several runs came to.
#[derive(Debug, Default)]
struct Sum {
    passed: usize,
    failed: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run_all(Cli::parse()).await {
        Ok(sum) => {
            println!("{} passed, {} failed", sum.passed, sum.failed);
            if sum.failed == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run_all(cli: Cli) -> Result<Sum> {
    println!("opening critest and the test images; building them takes minutes, once");
    let tools = tokio::task::spawn_blocking(Tools::open).await??;
    let target = Target::open(cli.socket.clone()).await?;
    let mut sum = Sum::default();
    for run in runs(&cli)? {
        one(&run, &tools, &target, &mut sum).await?;
    }
    if sum.failed == 0 {
        // Failed specs leave behind what they made; all others have to clean up.
        target.finish().await?;
    } else if let Some(text) = target.log() {
        let log = log_file("podwright-")?;
        std::fs::write(&log, text)?;
        println!("the daemon's log: {}", log.display());
    }
    Ok(sum)
}

/// The whole suite once per seed, then streaming over WebSocket; or what was chosen.
fn runs(cli: &Cli) -> Result<Vec<Run>> {
    let seeds = match cli.chosen.as_slice() {
        [] => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let first = now.subsec_nanos();
            (0..cli.seeds).map(|more| first + more).collect()
        }
        chosen => chosen.to_vec(),
    };
    let run = |seed: &u32| Run {
        seed: *seed,
        focus: cli.focus.clone(),
        flags: cli.flags.clone(),
        expected: match cli.focus {
            Some(_) => Expected::Some,
            None => Expected::All,
        },
    };
    let mut runs: Vec<_> = seeds.iter().map(run).collect();
    if cli.focus.is_none() {
        let flags = cli.flags.iter().cloned();
        let websocket = WEBSOCKET.iter().map(ToString::to_string);
        runs.push(Run {
            seed: *seeds.first().context("no seed")?,
            focus: Some(STREAMING.to_owned()),
            flags: flags.chain(websocket).collect(),
            expected: Expected::Streaming,
        });
    }
    Ok(runs)
}

async fn one(run: &Run, tools: &Tools, target: &Target, sum: &mut Sum) -> Result<()> {
    let log = log_file("critest-")?;
    let (critest, tools) = (critest(run, target.socket()), tools.clone());
    println!(
        "running critest with {run}; its output goes to {}",
        log.display()
    );
    let report = {
        let log = log.clone();
        tokio::task::spawn_blocking(move || critest.run(&tools, &log)).await??
    };
    let judged = run.expected.judge(&report);
    for (spec, verdict) in &judged.specs {
        match verdict {
            Verdict::NotChosen => {}
            Verdict::Passed | Verdict::CannotRun => println!("{spec}"),
            Verdict::Failed(why) => println!("{spec}\n       {why}"),
        }
    }
    for fault in &judged.faults {
        println!("FAIL {fault}");
    }
    let (passed, failed) = (judged.passed(), judged.failed());
    println!(
        "{run}: {passed} passed, {failed} failed, {} not run",
        judged.not_run()
    );
    if failed == 0 {
        std::fs::remove_file(&log)?;
    } else {
        println!("critest's output: {}", log.display());
    }
    sum.passed += passed;
    sum.failed += failed;
    Ok(())
}

/// A new file that stays.
fn log_file(prefix: &str) -> Result<PathBuf> {
    let mut name = tempfile::Builder::new();
    let file = name.prefix(prefix).suffix(".log").tempfile()?;
    let (_, path) = file.keep().context("keeping a log")?;
    Ok(path)
}

fn critest(run: &Run, socket: &Path) -> Critest {
    let focus: Vec<_> = run.focus.iter().map(String::as_str).collect();
    let seed = format!("--ginkgo.seed={}", run.seed);
    let timeout = format!("--ginkgo.timeout={}s", patience(TIMEOUT).as_secs());
    let mut flags: Vec<_> = run.flags.iter().map(String::as_str).collect();
    flags.extend([&*timeout, &seed]);
    Critest::new(socket)
        .focus(&focus)
        .skip(&[expected::UNREACHABLE])
        .flags(&flags)
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}", self.seed)?;
        self.flags.iter().try_for_each(|flag| write!(f, " {flag}"))
    }
}
