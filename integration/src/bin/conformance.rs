//! Runs Kubernetes' CRI conformance suite, critest, against a private daemon with a registry of its
//! own, and prints a line per spec and a sum.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use podwright_integration::{
    node::Daemon,
    registry::Registry,
    tools::{Critest, Report, Spec, State, Tools},
};

/// The groups that Podwright passes whole, by the beginning of their specs' names.
const GROUPS: &[&str] = &[
    "[k8s.io] Runtime info",
    "[k8s.io] PodSandbox runtime",
    "[k8s.io] Container runtime",
    "[k8s.io] Container OOM",
    "[k8s.io] Idempotence",
    "[k8s.io] Image Manager",
    "[k8s.io] Image Consistency",
    "[k8s.io] Image Identifier Consistency",
    "[k8s.io] Multiple Containers",
    "[k8s.io] Networking",
    "[k8s.io] Security Context NamespaceOption",
    "[k8s.io] Security Context NoNewPrivs",
    "[k8s.io] Security Context SupplementalGroupsPolicy",
    "[k8s.io] Security Context UserNamespaces",
    "[k8s.io] Security Context bucket",
];

/// It pulls an upstream image by its digest, which cannot be made here; our own tests pull by digest.
const UNREACHABLE: &str = "public image with digest should be pulled and removed";

/// Kubernetes' CRI conformance suite against a private Podwright
#[derive(Debug, Parser)]
struct Cli {
    /// Only the specs whose full name matches this regular expression (Go's syntax)
    #[arg(long, value_name = "RE")]
    focus: Option<String>,
    /// The seed of the specs' random order, to repeat a run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Another runtime's socket, which has to find the images' registries by itself
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// A flag for critest itself, such as -websocket-exec; may be repeated
    #[arg(long = "flag", value_name = "FLAG", allow_hyphen_values = true)]
    flags: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The number of failures.
async fn run(cli: Cli) -> Result<usize> {
    println!("opening critest and the test images; building them takes minutes, once");
    let tools = tokio::task::spawn_blocking(Tools::open).await??;
    let (daemon, _registry) = match &cli.socket {
        Some(_) => (None, None),
        None => {
            let registry = Registry::with_test_images().await?;
            (Some(Daemon::start(&registry).await?), Some(registry))
        }
    };
    let socket = cli
        .socket
        .clone()
        .or_else(|| daemon.as_ref().map(Daemon::socket));
    let socket = socket.context("neither a socket nor a daemon")?;
    let (_, log) = tempfile::Builder::new()
        .prefix("critest-")
        .suffix(".log")
        .tempfile()?
        .keep()?;
    println!("running critest; its output goes to {}", log.display());
    let critest = critest(&cli, &socket);
    let report = {
        let log = log.clone();
        tokio::task::spawn_blocking(move || critest.run(&tools, &log)).await??
    };
    let failed = print(&report, cli.focus.is_none());
    if failed == 0 {
        std::fs::remove_file(&log)?;
    } else if let Some(daemon) = &daemon {
        println!(
            "critest's output: {}\nthe daemon's log:\n{}",
            log.display(),
            daemon.log()
        );
    }
    println!("{}", sum(&report, failed));
    Ok(failed)
}

fn critest(cli: &Cli, socket: &std::path::Path) -> Critest {
    let groups: Vec<_> = match &cli.focus {
        Some(pattern) => vec![pattern.clone()],
        None => GROUPS.iter().map(|group| escape(group)).collect(),
    };
    let seed = cli.seed.map(|seed| format!("--ginkgo.seed={seed}"));
    let flags: Vec<_> = seed.iter().chain(&cli.flags).map(String::as_str).collect();
    let groups: Vec<_> = groups.iter().map(String::as_str).collect();
    Critest::new(socket)
        .focus(&groups)
        .skip(&[UNREACHABLE])
        .flags(&flags)
}

/// A pattern for the beginning of a name. Ginkgo matches it anywhere, but `[k8s.io]` is at the start only.
fn escape(text: &str) -> String {
    text.replace('[', r"\[")
        .replace(']', r"\]")
        .replace('.', r"\.")
}

/// Prints what ran; the number of failures, to which a group counts that no spec belongs to.
fn print(report: &Report, groups: bool) -> usize {
    for spec in report.specs.iter().filter(|spec| ran(spec)) {
        println!("{spec}");
    }
    let mut failed = report.count(State::Failed);
    for group in GROUPS.iter().filter(|_| groups) {
        if !report
            .specs
            .iter()
            .any(|spec| ran(spec) && spec.name.starts_with(group))
        {
            println!("FAIL no spec is named {group}");
            failed += 1;
        }
    }
    failed
}

/// What was not chosen is skipped without a reason.
fn ran(spec: &Spec) -> bool {
    spec.state != State::Skipped || !spec.message.is_empty()
}

fn sum(report: &Report, failed: usize) -> String {
    let passed = report.count(State::Passed);
    let skipped = report
        .specs
        .iter()
        .filter(|spec| ran(spec) && spec.state == State::Skipped);
    match skipped.count() {
        0 => format!("{passed} passed, {failed} failed"),
        skipped => format!("{passed} passed, {failed} failed, {skipped} skipped"),
    }
}
