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
use clap::Parser;
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
    let mut columns = vec![measure(Target::private(&registry).await?, &registry).await?];
    if let Some(socket) = &cli.against {
        let target = Target::other(socket).await;
        let target = target.with_context(|| format!("connecting to {socket}"))?;
        columns.push(measure(target, &registry).await?);
    }
    println!("\n{}", figure::table(&columns));
    if let Some(path) = &cli.json {
        std::fs::write(path, figure::json(&columns).to_string())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// All rows of one runtime, from an idle daemon to a full node.
async fn measure(mut target: Target, registry: &Registry) -> Result<Measured> {
    let mut measured = Measured::new(target.name());
    println!("\n{}", target.name());
    crowd::idle(&target, &mut measured)?;
    latency::measure(&target, &mut measured).await?;
    throughput::measure(&target, &mut measured).await?;
    logs::measure(&target, &mut measured).await?;
    streams::measure(&target, &mut measured).await?;
    pull::measure(&target, registry, &mut measured).await?;
    crowd::measure(&mut target, &mut measured).await?;
    target.close().await?;
    Ok(measured)
}
