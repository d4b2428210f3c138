//! `cargo xtask instructions`: how many instructions pure code takes, against the counts that are committed.
//!
//! Times tell little on a shared machine; instructions under valgrind are the same on every machine with the compiler of
//! `rust-toolchain.toml`. Counted is what `podwright_instructions::counted` marks in tests named `instructions_of_…`: the
//! instructions of our own program, not those of the machine's C library, and the calls to its allocator.

mod callgrind;
mod counts;
mod programs;

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::phase::Counts as Results;
use crate::{setup, workspace};
use counts::{Count, Counts, Verdict};

/// Where the counts are, below the workspace's root.
const COMMITTED: &str = "xtask/src/instructions/counts.txt";

/// What is done with the counts.
#[derive(Debug, clap::Args)]
pub(crate) struct Instructions {
    /// Write the counts to the committed file, instead of comparing them with it
    #[arg(long)]
    update: bool,
}

impl Instructions {
    pub(crate) fn run(self) -> Result<()> {
        setup::run(setup::Need::Everything)?;
        if self.update {
            let path = workspace::root().join(COMMITTED);
            return std::fs::write(&path, count()?.to_string())
                .with_context(|| format!("cannot write {}", path.display()));
        }
        let results = compare()?;
        println!("{results}");
        if results.failed > 0 {
            bail!("{} failed", results.failed);
        }
        Ok(())
    }
}

/// Counts, and says of each work whether its counts are the committed ones.
pub(crate) fn compare() -> Result<Results> {
    if !is_comparable() {
        println!(
            "xtask: not counted: the committed counts are those of an x86_64 processor with AVX2"
        );
        return Ok(Results {
            skipped: 1,
            ..Results::default()
        });
    }
    let path = workspace::root().join(COMMITTED);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let committed = Counts::parse(&text)?;
    let mut results = Results::default();
    for (work, verdict) in committed.compare(&count()?) {
        println!("{work:<76} {verdict}");
        match verdict {
            Verdict::Same(_) | Verdict::Less { .. } => results.passed += 1,
            Verdict::More { .. } | Verdict::New(_) | Verdict::Gone => results.failed += 1,
        }
    }
    if results.failed > 0 {
        println!("where this is meant: cargo xtask instructions --update");
    }
    Ok(results)
}

/// Libraries choose code by what the processor can do; valgrind shows programs the processor that it is on up to AVX2.
fn is_comparable() -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags"));
    cfg!(target_arch = "x86_64")
        && flags.is_some_and(|line| line.split_whitespace().any(|flag| flag == "avx2"))
}

/// Builds the programs and counts each work of theirs.
fn count() -> Result<Counts> {
    let mut counts = Counts::default();
    let scratch = workspace::target().join("instructions");
    std::fs::create_dir_all(&scratch)?;
    for program in programs::build()? {
        for work in program.works()? {
            let profile = scratch.join("callgrind.out");
            let mut valgrind = Command::new("valgrind");
            valgrind
                .args([
                    "--tool=callgrind",
                    "--quiet",
                    "--toggle-collect=*podwright_instructions::counted*",
                ])
                .args([
                    "--dump-instr=yes",
                    "--compress-strings=no",
                    "--compress-pos=no",
                ])
                .arg(format!("--callgrind-out-file={}", profile.display()))
                .arg(&program.path)
                .args(["--exact", &work, "--test-threads=1", "--quiet"]);
            let output = valgrind.output().context("cannot run valgrind")?;
            if !output.status.success() {
                bail!(
                    "{work} of {} fails under valgrind:\n{}{}",
                    program.name,
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            let text = std::fs::read_to_string(&profile)
                .with_context(|| format!("cannot read {}", profile.display()))?;
            let count = callgrind::count(&text, &program.path)?;
            if count == Count::default() {
                bail!(
                    "{work} of {} counts nothing: where does it call counted()?",
                    program.name
                );
            }
            counts.add(format!("{} {work}", program.name), count);
        }
    }
    Ok(counts)
}
