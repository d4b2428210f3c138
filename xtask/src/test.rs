//! `cargo xtask test`: everything, in the one profile that unit tests and daemon share, so that dependencies are compiled once.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::failures::Failures;
use crate::phase::{Counts, Phases};
use crate::workspace::{self, Profile};
use crate::{conformance, instructions, programs, setup};

/// Runs all tests and prints the sum as the last line.
///
/// Every command names the whole workspace and with its tests: cargo unifies the features of what it is asked to build, and
/// would compile dependencies again for another selection of packages.
pub(crate) fn run() -> Result<()> {
    let mut phases = Phases::default();
    phases.check("set up", || setup::run(setup::Need::Everything));
    phases.check("build", || {
        programs::run(&mut workspace::build_all())?;
        programs::run(&mut workspace::build_next())
    });
    phases.count("unit tests", || {
        let mut counts = cargo_test(&["--lib", "--bins"])?;
        counts += cargo_test(&["--doc"])?;
        Ok(counts)
    });
    phases.count("instructions", instructions::compare);
    phases.count("integration tests", || {
        let mut arguments = vec!["--test", "*", "--"];
        for Machine { has, tests, here } in &MACHINES {
            if !here() {
                println!("xtask: not run: {tests} needs a machine with {has}; `cargo xtask vm -- --help` says how to get one");
                arguments.extend(["--skip", tests]);
            }
        }
        cargo_test(&arguments)
    });
    phases.count("conformance", || conformance::suite(Profile::Dev, &[]));
    phases.finish(workspace::is_ci())
}

/// What a machine may lack, and the tests that need it.
struct Machine {
    has: &'static str,
    tests: &'static str,
    /// Whether this machine has it, and its tests may run beside others.
    here: fn() -> bool,
}

const MACHINES: [Machine; 3] = [
    Machine {
        has: "AppArmor",
        tests: "apparmor::",
        here: || {
            std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with('Y'))
        },
    },
    Machine {
        has: "SELinux",
        tests: "selinux::",
        here: || false,
    },
    Machine {
        has: "systemd",
        tests: "systemd::",
        here: || false,
    },
];

/// Runs `cargo test` on these targets and sums up its `test result:` lines.
fn cargo_test(targets: &[&str]) -> Result<Counts> {
    let mut cargo = workspace::cargo(["test", "--locked", "--workspace", "--no-fail-fast"]);
    cargo.args(targets);
    // The daemon under test, for those tests that start one.
    cargo.env(
        "PODWRIGHT_BINARY",
        workspace::program(Profile::Dev, "podwright"),
    );
    counted(&mut cargo, Sight::Plain, parse_test_result)
}

/// How a command's output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// As it is.
    Plain,
    /// With this before each line, as several commands run at once.
    Labelled(&'static str),
}

/// Runs a command in sight of the user and adds up the counts that `parse` finds in its lines. A command that fails
/// without having counted a failure (a test that does not compile, a crash) is one.
pub(crate) fn counted(
    command: &mut Command,
    sight: Sight,
    mut parse: impl FnMut(&str) -> Option<Counts>,
) -> Result<Counts> {
    let line = programs::line(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    let output = child.stdout.take().context("standard output is piped")?;
    let mut counts = Counts::default();
    let mut failures = Failures::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read the output")?;
        match sight {
            Sight::Plain => println!("{line}"),
            Sight::Labelled(label) => println!("{label:<12}| {line}"),
        }
        if let Some(more) = parse(&line) {
            counts += more;
        }
        failures.take(&line);
    }
    counts.told = failures.told();
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {line}"))?;
    if !status.success() && counts.failed == 0 {
        counts += Counts::failure(format!("{line} ({status})"));
    }
    Ok(counts)
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
pub(crate) fn parse_test_result(line: &str) -> Option<Counts> {
    let (_, figures) = line.strip_prefix("test result: ")?.split_once(". ")?;
    parse_figures(figures, ';')
}

/// `12 passed, 0 failed, 1 skipped`: the last line of our own programs.
pub(crate) fn parse_sum(line: &str) -> Option<Counts> {
    parse_figures(line, ',')
}

fn parse_figures(text: &str, separator: char) -> Option<Counts> {
    let mut counts = Counts::default();
    let mut both = (false, false);
    for part in text.split(separator) {
        let Some((figure, what)) = part.trim().split_once(' ') else {
            continue;
        };
        let Ok(figure) = figure.parse::<u64>() else {
            continue;
        };
        match what {
            "passed" => (counts.passed, both.0) = (figure, true),
            "failed" => (counts.failed, both.1) = (figure, true),
            "ignored" | "skipped" => counts.skipped = figure,
            _ => {}
        }
    }
    (both == (true, true)).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_results_are_counted() {
        let line = "test result: FAILED. 24 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.23s";
        assert_eq!(
            parse_test_result(line),
            Some(Counts {
                passed: 24,
                failed: 2,
                skipped: 1,
                ..Counts::default()
            })
        );
        for other in [
            "running 3 tests",
            "test a::b ... ok",
            "test result: nonsense",
            "1 passed, 0 failed",
        ] {
            assert_eq!(parse_test_result(other), None, "{other}");
        }
    }

    #[test]
    fn our_programs_sums_are_counted() {
        assert_eq!(
            parse_sum("107 passed, 0 failed"),
            Some(Counts {
                passed: 107,
                ..Counts::default()
            })
        );
        assert_eq!(
            parse_sum("1 passed, 2 failed, 3 skipped"),
            Some(Counts {
                passed: 1,
                failed: 2,
                skipped: 3,
                ..Counts::default()
            })
        );
        assert_eq!(parse_sum("it passed, none failed"), None);
        assert_eq!(parse_sum("7 passed"), None);
    }

    #[test]
    fn a_command_that_fails_without_a_count_has_failed() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            counted(&mut command, Sight::Plain, parse_sum).ok()
        };
        let failed = |passed, told: &[&str]| {
            let told: Vec<_> = told.iter().map(ToString::to_string).collect();
            Some(Counts {
                passed,
                failed: 1,
                told,
                ..Counts::default()
            })
        };
        let status = |script: &str| format!("sh -c {script} (exit status: 3)");
        assert_eq!(shell("exit 3"), failed(0, &[&status("exit 3")]));
        assert_eq!(shell("echo nothing"), Some(Counts::default()));
        assert_eq!(
            shell("echo 2 passed, 0 failed"),
            Some(Counts {
                passed: 2,
                ..Counts::default()
            })
        );
        let script = "echo 2 passed, 0 failed; exit 3";
        assert_eq!(shell(script), failed(2, &[&status(script)]));
        let script = "echo FAIL one; echo 2 passed, 1 failed; exit 3";
        assert_eq!(shell(script), failed(2, &["one"]));
    }
}
