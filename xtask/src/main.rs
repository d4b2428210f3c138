//! `cargo xtask COMMAND`: set a machine up, try Podwright, test it, measure it.
//!
//! Only cargo, rustup, git, apt-get and this workspace's own programs are run; what a command needs and a machine lacks is
//! installed by `setup` or named with the reason.

mod bench;
mod conformance;
mod failures;
mod flamegraph;
mod instructions;
mod lint;
mod phase;
mod power_cuts;
mod programs;
mod results;
mod setup;
mod soak;
mod svg;
mod test;
mod tidy;
mod up;
mod vm;
mod vm_test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Podwright's development commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what building and running need: Rust parts, a C compiler, Go for crictl
    Setup,
    /// Build, start a node in the foreground, and make a first pod; Ctrl-C stops it and cleans up
    Up(up::Up),
    /// Run all tests: unit, integration, conformance
    Test,
    /// Check formatting, clippy, house rules, licences, documentation
    Lint,
    /// Check the house rules alone
    Tidy,
    /// Run Kubernetes' CRI conformance suite (critest) against a release build
    Conformance(conformance::Conformance),
    /// Measure a release build, and any other CRI runtime beside it
    Bench(bench::Bench),
    /// Draw the chart of all figures that are recorded
    Chart,
    /// Draw where the machine's time goes while benchmarks run
    Flamegraph(flamegraph::Flamegraph),
    /// Have very many pods come and go, and compare what is held before and after
    Soak(soak::Soak),
    /// Count the instructions of pure code, and compare them with those that are committed
    Instructions(instructions::Instructions),
    /// Run a command in a virtual machine with pure cgroup v2 and AppArmor
    Vm(vm::Vm),
    /// Cut the power of a node in a virtual machine again and again, and check what is left
    PowerCuts(power_cuts::PowerCuts),
    /// Run critest and the tests that a kernel can fail in virtual machines
    VmTest(vm_test::VmTest),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup => setup::run(setup::Need::Everything),
        Command::Up(up) => up.run(),
        Command::Test => test::run(),
        Command::Lint => lint::run(),
        Command::Tidy => tidy::run(),
        Command::Conformance(conformance) => conformance.run(),
        Command::Bench(bench) => bench.run(),
        Command::Chart => results::draw(),
        Command::Flamegraph(flamegraph) => flamegraph.run(),
        Command::Soak(soak) => soak.run(),
        Command::Instructions(instructions) => instructions.run(),
        Command::Vm(vm) => vm.run(),
        Command::PowerCuts(cuts) => cuts.run(),
        Command::VmTest(vm_test) => vm_test.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
