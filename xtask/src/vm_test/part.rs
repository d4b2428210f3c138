//! The parts of the run, each a command in a machine of its own.

use anyhow::{Result, ensure};

use super::Plan;
use crate::phase::Counts;
use crate::test::{Sight, counted, parse_sum, parse_test_result};
use crate::vm::{self, TestProgram};

/// The test program of integration/tests/runtime.
const INTEGRATION: &str = "runtime";
/// Tests of single crates that the kernel answers, not only our own code. pause's compile a program for their containers, and
/// the machine has no compiler: there, pause is tested by the integration tests.
const KERNEL: [&str; 2] = ["netns-", "runtime-unit"];
/// Tests that need a machine with another security module or another first process: `cargo xtask vm -- --help`.
const ELSEWHERE: [&str; 2] = ["selinux::", "systemd::"];
/// Pods wait for each other, so a few more than the machine has processors.
const THREADS: &str = "3";

/// What one machine runs. The longest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Part {
    /// integration/tests/runtime
    Integration,
    /// critest, the whole suite
    Conformance,
    /// Tests of the crates that call the kernel: netns, runtime
    Kernel,
}

impl Part {
    pub(super) const ALL: [Self; 3] = [Self::Integration, Self::Conformance, Self::Kernel];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Integration => "integration tests",
            Self::Conformance => "conformance",
            Self::Kernel => "tests of the kernel's calls",
        }
    }

    /// Before each line of its output, as the machines run side by side.
    const fn label(self) -> &'static str {
        match self {
            Self::Integration => "integration",
            Self::Conformance => "conformance",
            Self::Kernel => "kernel",
        }
    }

    /// The test programs that it runs.
    pub(super) fn runs(self, program: &str) -> bool {
        match self {
            Self::Integration => program == INTEGRATION,
            Self::Conformance => false,
            Self::Kernel => KERNEL.iter().any(|start| program.starts_with(start)),
        }
    }

    /// Boots a machine and counts what passes in it.
    pub(super) fn run(self, plan: &Plan) -> Result<Counts> {
        let mut machine = vm::machine(&plan.test_programs);
        let limit = plan.limit.as_secs().to_string();
        machine.args(["--timeout", &limit]);
        if let Some(kernel) = &plan.kernel {
            machine.args(["--kernel", kernel]);
        }
        machine.args(["sh", "-c", &self.script(plan)?]);
        let mut skipped = 0;
        for program in self.programs(plan) {
            let of_other_machines = elsewhere(&program.tests()?).len();
            if of_other_machines > 0 {
                println!(
                    "xtask: not run: {of_other_machines} tests of {} ({}), which need another machine",
                    program.name,
                    ELSEWHERE.join(", ")
                );
            }
            skipped += plan.left_out.of(&program.name).count() + of_other_machines;
        }
        let mut filtered = 0;
        let counts = counted(&mut machine, Sight::Labelled(self.label()), |line| {
            filtered += parse_filtered(line).unwrap_or_default();
            parse_test_result(line).or_else(|| parse_sum(line))
        })?;
        ensure!(
            filtered == skipped,
            "{filtered} tests were left out, not {skipped}: does left_out.txt name one that is no more?"
        );
        Ok(counts)
    }

    fn programs(self, plan: &Plan) -> impl Iterator<Item = &TestProgram> {
        let programs = plan.test_programs.iter();
        programs.filter(move |program| self.runs(&program.name))
    }

    /// What the machine's shell runs.
    fn script(self, plan: &Plan) -> Result<String> {
        if self == Self::Conformance {
            let seed = plan.seed.map(|seed| format!(" --seed {seed}"));
            return Ok(format!("exec conformance{}", seed.unwrap_or_default()));
        }
        let mut programs: Vec<_> = self.programs(plan).collect();
        programs.sort_unstable_by_key(|program| &program.name);
        ensure!(!programs.is_empty(), "no test program of its is built");
        // All of them run, whichever fails.
        let mut script = String::from("status=0\n");
        for program in programs {
            let (name, tests) = (&program.name, program.tests()?);
            let mut skip = String::new();
            for test in elsewhere(&tests) {
                skip.push_str(&format!(" --skip {test}"));
            }
            for test in plan.left_out.of(name) {
                skip.push_str(&format!(" --skip {test}"));
            }
            script.push_str(&format!(
                "echo '{name}:'\n{name} --test-threads {THREADS} --exact{skip} || status=1\n"
            ));
        }
        Ok(script + "exit $status")
    }
}

fn elsewhere(tests: &[String]) -> Vec<&str> {
    let tests = tests.iter().map(String::as_str);
    tests
        .filter(|test| ELSEWHERE.iter().any(|start| test.starts_with(start)))
        .collect()
}

/// How many tests a program's `test result:` line says were not chosen.
fn parse_filtered(line: &str) -> Option<usize> {
    let figures = line.strip_prefix("test result: ")?.split(';');
    let figure = |part: &str| part.trim().strip_suffix(" filtered out")?.parse().ok();
    figures.filter_map(figure).next()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vm_test::left_out::LeftOut;

    fn plan(names: &[&str]) -> Plan {
        // A program that has no tests, whatever its arguments.
        let program = |name: &&str| TestProgram::new(name, "/bin/true");
        Plan {
            test_programs: names.iter().map(program).collect(),
            seed: Some(7),
            kernel: None,
            left_out: LeftOut::nothing(),
            limit: std::time::Duration::ZERO,
        }
    }

    #[test]
    fn a_part_runs_its_programs_and_all_of_them() {
        let plan = plan(&["runtime", "runtime-unit", "netns-exec", "image-unit"]);
        let script = Part::Kernel.script(&plan).unwrap();
        assert_eq!(
            script,
            "status=0\n\
             echo 'netns-exec:'\nnetns-exec --test-threads 3 --exact || status=1\n\
             echo 'runtime-unit:'\nruntime-unit --test-threads 3 --exact || status=1\n\
             exit $status"
        );
        let script = Part::Integration.script(&plan).unwrap();
        assert!(script.contains("\nruntime --test"), "{script}");
        assert!(!script.contains("unit"), "{script}");
        let script = Part::Conformance.script(&plan).unwrap();
        assert_eq!(script, "exec conformance --seed 7");
    }

    #[test]
    fn tests_of_other_machines_are_found_by_their_module() {
        let tests = ["selinux::a", "exec::systemd::b", "systemd::c"].map(str::to_owned);
        assert_eq!(elsewhere(&tests), ["selinux::a", "systemd::c"]);
    }

    #[test]
    fn a_part_without_a_program_is_no_success() {
        assert!(Part::Kernel.script(&plan(&["runtime"])).is_err());
    }

    #[test]
    fn left_out_tests_are_counted() {
        let line = "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 12 filtered out; finished in 0.23s";
        assert_eq!(parse_filtered(line), Some(12));
        assert_eq!(parse_filtered("12 filtered out"), None);
    }
}
