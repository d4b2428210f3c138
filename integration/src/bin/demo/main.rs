//! What `cargo xtask up` runs: a node in the foreground with a first pod of two containers, a web server and a client that
//! fetches from it on localhost. Everything is made through the CRI socket; Ctrl-C removes all of it.

mod images;
mod pod;
mod progress;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use podwright_integration::node::Daemon;
use podwright_integration::tools::Tools;
use tokio::signal::unix::{SignalKind, signal};

use images::Source;
use pod::DemoPod;
use progress::step;

/// A Podwright node with a first pod
#[derive(Debug, Parser)]
struct Cli {
    /// Make the pod, show it, clean up, and end
    #[arg(long)]
    once: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = tokio::runtime::Runtime::new()
        .context("starting the async runtime")
        .and_then(|runtime| {
            let done = runtime.block_on(run(cli));
            // Ctrl-C does not wait for images or tools that are being built.
            runtime.shutdown_background();
            done
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "making pods takes root: run `sudo -E env PATH=\"$PATH\" cargo xtask up`"
    );
    let mut terminate = signal(SignalKind::terminate())?;
    let mut stop = std::pin::pin!(async {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C"),
            _ = terminate.recv() => Ok(()),
        }
    });

    // Whatever ends this block, dropping the daemon kills and removes what is left.
    let source = tokio::select! {
        source = Source::choose() => source?,
        stopped = &mut stop => return stopped,
    };
    let mut daemon = step("starting the runtime", Daemon::start(source.registry())).await?;
    source.configure(&daemon.slot().path("hosts"))?;
    println!("      log: {}", daemon.slot().path("daemon.log").display());
    let shown = tokio::select! {
        pod = show(&daemon) => Some(pod?),
        stopped = &mut stop => { stopped?; None }
    };
    if let Some(pod) = shown {
        if cli.once {
            pod.remove(&daemon).await?;
        } else {
            next_steps(&daemon.socket(), &pod, &mut stop).await?;
            println!("\nstopping: pod, runtime, network, cgroups, files");
            if let Err(error) = pod.remove(&daemon).await {
                // In a terminal, Ctrl-C reaches the runtime too, which may be gone before the pod. Its processes are killed below.
                println!("      the runtime answers no more ({error:#}); the pod is killed");
            }
        }
    }
    let ended = daemon.terminate().await;
    if cli.once {
        ended?;
    }
    // Otherwise it may have got the terminal's SIGINT itself, and have ended before it was asked.
    drop(daemon);
    println!(
        "nothing is left but the cache of test images and tools in {}",
        podwright_integration::cache::directory().display()
    );
    Ok(())
}

/// Makes the pod and shows what it does.
async fn show(daemon: &Daemon) -> Result<DemoPod> {
    let pod = DemoPod::make(daemon).await?;
    let fetched = step("waiting until the client has fetched a page", pod.fetched()).await?;
    println!("\npod {} has the address {}", pod.short_id(), pod.ip());
    println!("\nclient's log, fetched from http://localhost:80/ in the pod:\n{fetched}");
    println!("server's log:\n{}", pod.server_log());
    Ok(pod)
}

/// Says what to type, and waits for Ctrl-C.
async fn next_steps(
    socket: &Path,
    pod: &DemoPod,
    stop: &mut (impl Future<Output = Result<()>> + Unpin),
) -> Result<()> {
    let crictl = tokio::select! {
        crictl = find_crictl() => crictl,
        stopped = &mut *stop => return stopped,
    };
    let endpoint = format!("unix://{}", socket.display());
    println!("The node serves CRI on {endpoint}. In another terminal:\n");
    match crictl {
        Ok(crictl) => {
            println!("  alias crictl='{crictl} --config /dev/null -r {endpoint} -i {endpoint}'")
        }
        Err(error) => println!(
            "  # crictl is Kubernetes' command line for CRI; it could not be built here: {error:#}"
        ),
    }
    println!(
        "  crictl pods\n  crictl ps\n  crictl logs {}",
        pod.client_id()
    );
    println!(
        "  crictl exec -s {} wget -qO- http://localhost/",
        pod.client_id()
    );
    println!(
        "  crictl inspectp {}\n  curl http://{}/\n",
        pod.short_id(),
        pod.host()
    );
    println!("Ctrl-C stops the node and removes everything.");
    stop.await
}

/// crictl on PATH, or the one that the conformance tests use.
async fn find_crictl() -> Result<String> {
    let on_path = std::env::var_os("PATH").and_then(|path| {
        let mut candidates = std::env::split_paths(&path).map(|directory| directory.join("crictl"));
        candidates.find(|candidate| candidate.is_file())
    });
    if let Some(path) = on_path {
        return Ok(path.display().to_string());
    }
    let tools = tokio::task::spawn_blocking(Tools::open);
    let tools = step("building crictl, once", async { tools.await? }).await?;
    Ok(tools.crictl().display().to_string())
}
