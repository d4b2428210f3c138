//! `cargo xtask flamegraph`: where the whole machine's time goes while the benchmark runs.

mod draw;
mod fold;

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{self, Profile};
use crate::{programs, setup};
use fold::Stacks;

/// Samples per second on each processor: no divisor of a timer's rate, so that it does not beat with one.
const FREQUENCY: &str = "499";
/// How much of a stack is kept of each sample, to be unwound by what the compiler says of its frames.
const CALL_GRAPH: &str = "dwarf,16384";

/// Which rows run meanwhile.
#[derive(Debug, clap::Args)]
pub(crate) struct Flamegraph {
    /// Rows of the benchmark, as `cargo xtask bench --only`; may be repeated
    #[arg(long, value_name = "ROWS", default_values_t = ["latency".to_owned()])]
    only: Vec<String>,
}

impl Flamegraph {
    pub(crate) fn run(self) -> Result<()> {
        setup::run(setup::Need::Profiling)?;
        programs::run(&mut workspace::build(Profile::Release))?;
        let data = workspace::target().join("perf.data");
        let mut perf = Command::new("perf");
        // The processor's counters are not there in every virtual machine; a timer is.
        perf.args(["record", "--quiet", "--all-cpus", "--event=cpu-clock"])
            .args(["--freq", FREQUENCY, "--call-graph", CALL_GRAPH, "--output"])
            .arg(&data)
            .stdin(Stdio::null());
        let perf = perf.spawn().context("cannot run perf")?;
        let mut bench = Command::new(workspace::program(Profile::Release, "bench"));
        bench.env(
            "PODWRIGHT_BINARY",
            workspace::program(Profile::Release, "podwright"),
        );
        for rows in &self.only {
            bench.args(["--only", rows]);
        }
        // It fails when a goal is missed, and under perf some are.
        let measured = bench.status().context("cannot run the benchmark");
        end(perf)?;
        measured?;
        let mut script = Command::new("perf");
        script
            .args(["script", "--no-inline", "--show-task-events"])
            .args(["--fields", "comm,pid,tid,ip,sym,dso", "--input"])
            .arg(&data)
            .stderr(Stdio::null());
        let stacks = Stacks::parse(&programs::output(&mut script)?);
        if stacks.is_empty() {
            bail!("perf has taken no samples");
        }
        for (name, text) in [
            ("flamegraph.svg", draw::svg(&stacks)),
            ("flamegraph.folded", stacks.folded()),
        ] {
            let path = workspace::target().join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            println!("written: {}", path.display());
        }
        Ok(())
    }
}

/// Has perf write what it has, by the signal of a terminal's Ctrl-C, and waits for that. It ends as one whom a signal has ended.
fn end(mut perf: Child) -> Result<()> {
    programs::run(Command::new("kill").args(["-INT", &perf.id().to_string()]))?;
    perf.wait().context("waiting for perf")?;
    Ok(())
}
