//! Measures a private Podwright through its CRI socket, and any other runtime's socket in the same
//! run: the same calls, the same images, the same machine. The figures hold for a quiet machine.

mod crowd;
mod figure;
mod latency;
mod logs;
mod proc;
mod pull;
mod streams;
mod target;
mod throughput;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use podwright_integration::registry::Registry;

use figure::{Figure, Measured};
use target::Target;

/// The figures of Podwright, and of another CRI runtime beside it
#[derive(Debug, Parser)]
struct Cli {
    /// Another CRI runtime's socket: unix:///run/containerd/containerd.sock
    #[arg(long, value_name = "unix://SOCKET")]
    against: Option<String>,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these rows; may be repeated [default: all]
    #[arg(long, value_name = "ROWS")]
    only: Vec<Rows>,
}

/// Rows that are measured together, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rows {
    /// The daemon without pods
    Idle,
    /// One call after the other
    Latency,
    /// Pods up and down, several at once
    Throughput,
    /// A container's log
    Logs,
    /// Exec and port-forward, gigabytes each way
    Streams,
    /// An image of many layers
    Pull,
    /// Lists, statistics and memory with many pods, and a restart
    Crowd,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    println!("opening the test images; building them takes a minute, once");
    let registry = Registry::with_test_images().await?;
    let mut columns = vec![measure(Target::private(&registry).await?, &registry, &cli.only).await?];
    if let Some(socket) = &cli.against {
        let target = Target::other(socket).await;
        let target = target.with_context(|| format!("connecting to {socket}"))?;
        columns.push(measure(target, &registry, &cli.only).await?);
    }
    println!("\n{}", figure::table(&columns));
    if let Some(path) = &cli.json {
        std::fs::write(path, figure::json(&columns).to_string())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The rows of one runtime, from an idle daemon to a full node.
async fn measure(mut target: Target, registry: &Registry, only: &[Rows]) -> Result<Measured> {
    let mut measured = Measured::new(target.name());
    println!("\n{}", target.name());
    for &rows in Rows::value_variants() {
        if !only.is_empty() && !only.contains(&rows) {
            continue;
        }
        match rows {
            Rows::Idle => crowd::idle(&target, &mut measured)?,
            Rows::Latency => latency::measure(&target, &mut measured).await?,
            Rows::Throughput => throughput::measure(&target, &mut measured).await?,
            Rows::Logs => logs::measure(&target, &mut measured).await?,
            Rows::Streams => streams::measure(&target, &mut measured).await?,
            Rows::Pull => pull::measure(&target, registry, &mut measured).await?,
            Rows::Crowd => crowd::measure(&mut target, &mut measured).await?,
        }
    }
    target.close().await?;
    Ok(measured)
}
