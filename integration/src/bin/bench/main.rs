//! Measures a private Podwright through its CRI socket, and in the same run a private containerd or any other runtime's socket:
//! the same calls, the same images, the same machine. The figures hold for a quiet machine.

mod crowd;
mod figure;
mod latency;
mod logs;
mod machine;
mod numbered;
mod probes;
mod pull;
mod scale;
mod streams;
mod target;
mod throughput;
mod writers;

use std::{path::PathBuf, process::ExitCode, str::FromStr};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use podwright_integration::{
    images,
    node::{enter_private_disk, enter_private_network},
    peer::Programs,
    registry::Registry,
};
use tokio::signal::unix::{SignalKind, signal};

use figure::{Figure, Measured};
use target::Target;

/// The figures of Podwright, and of another CRI runtime beside it
#[derive(Debug, Parser)]
struct Cli {
    /// Another CRI runtime: `containerd`, which is built and started for it, or a socket, unix:///run/crio/crio.sock
    #[arg(long, value_name = "RUNTIME")]
    against: Option<Peer>,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these rows; may be repeated [default: all but probes, scale and writers]
    #[arg(long, value_name = "ROWS")]
    only: Vec<Rows>,
}

/// What is measured beside Podwright.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Peer {
    /// One that is started and ended here.
    Containerd,
    /// One that runs, by its socket.
    Running(PathBuf),
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("unix://")) {
            ("containerd", _) => Ok(Self::Containerd),
            (_, Some(path)) => Ok(Self::Running(path.into())),
            _ => Err("neither `containerd` nor unix://SOCKET".to_owned()),
        }
    }
}

/// Rows that are measured together, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rows {
    /// The daemon without pods
    Idle,
    /// An image of many layers; before others remove thousands of files, whose inodes ext4 then passes over for minutes
    Pull,
    /// One call after the other
    Latency,
    /// Pods up and down, several at once
    Throughput,
    /// A container's log
    Logs,
    /// Exec and port-forward, gigabytes each way
    Streams,
    /// Lists, statistics and memory with many pods, and a restart
    Crowd,
    /// A thousand exec probes a second
    Probes,
    /// A thousand pods
    Scale,
    /// A hundred containers that write their logs
    Writers,
}

impl Rows {
    /// Those that take minutes, or more of a machine than it may have, are asked for.
    fn by_default(self) -> bool {
        !matches!(self, Self::Probes | Self::Scale | Self::Writers)
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    println!("opening the test images; building them takes a minute, once");
    images::Store::open()?;
    // Before there are other threads, as the network below.
    enter_private_disk()?;
    let mut programs = None;
    if cli.against == Some(Peer::Containerd) {
        println!(
            "opening containerd, runc and CNI plugins; building them takes some minutes, once"
        );
        programs = Some(Programs::open()?);
        // Both runtimes are in it, with nobody else's links and rules.
        enter_private_network()?;
    }
    let runtime = tokio::runtime::Runtime::new().context("starting the threads")?;
    let missed = runtime.block_on(async {
        tokio::select! {
            missed = measure_all(cli, programs) => missed,
            // Dropping the measurement ends what it has started.
            ended = end() => bail!("ended by {}", ended?),
        }
    })?;
    if missed > 0 {
        bail!("{missed} goals are missed: the rows with **no**");
    }
    Ok(())
}

/// Waits for a signal that asks for the end, and names it.
async fn end() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// All columns. The answer is how many goals are missed.
async fn measure_all(cli: &Cli, programs: Option<Programs>) -> Result<usize> {
    let registry = Registry::with_test_images().await?;
    let own = Target::private(&registry).await?;
    let mut columns = vec![measure(own, &registry, &cli.only).await?];
    let peer = match (&cli.against, programs) {
        (Some(Peer::Running(path)), _) => {
            let target = Target::running(path).await;
            Some(target.with_context(|| format!("connecting to {}", path.display()))?)
        }
        (_, Some(programs)) => Some(Target::containerd(programs, &registry).await?),
        _ => None,
    };
    if let Some(peer) = peer {
        columns.push(measure(peer, &registry, &cli.only).await?);
    }
    figure::add_ratios(&mut columns);
    println!("\n{}", figure::table(&columns));
    if let Some(path) = &cli.json {
        std::fs::write(path, figure::json(&columns).to_string())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(figure::missed(&columns))
}

/// The rows of one runtime, from an idle daemon to a full node.
async fn measure(mut target: Target, registry: &Registry, only: &[Rows]) -> Result<Measured> {
    let mut measured = Measured::new(target.name());
    println!("\n{}", target.name());
    machine::measure(&mut measured);
    for &rows in Rows::value_variants() {
        let wanted = match only {
            [] => rows.by_default(),
            only => only.contains(&rows),
        };
        if !wanted {
            continue;
        }
        target.settle().await?;
        match rows {
            Rows::Idle => crowd::idle(&target, &mut measured).await?,
            Rows::Latency => latency::measure(&target, &mut measured).await?,
            Rows::Throughput => throughput::measure(&target, &mut measured).await?,
            Rows::Logs => {
                machine::measure_file(target.logs(), &mut measured)?;
                target.settle().await?;
                logs::measure(&target, &mut measured).await?;
            }
            Rows::Streams => match streams::measure(&target, &mut measured).await {
                // A peer that breaks a session off has no figure for it, and others for the rows that follow.
                Err(error) if !target.is_own() => println!("  streams: {error:#}"),
                done => done?,
            },
            Rows::Pull => pull::measure(&target, registry, &mut measured).await?,
            Rows::Crowd => crowd::measure(&mut target, &mut measured).await?,
            Rows::Probes => probes::measure(&target, &mut measured).await?,
            Rows::Scale => scale::measure(&target, &mut measured).await?,
            Rows::Writers => writers::measure(&target, &mut measured).await?,
        }
    }
    target.close().await?;
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_named_or_found_by_their_socket() {
        assert_eq!("containerd".parse(), Ok(Peer::Containerd));
        let running = Peer::Running("/run/x.sock".into());
        assert_eq!("unix:///run/x.sock".parse(), Ok(running));
        assert!("crio".parse::<Peer>().is_err());
    }
}
