//! The parts of the run, each a command in a machine of its own.

use std::process::Command;

use anyhow::{Result, ensure};

use super::Plan;
use crate::phase::Counts;
use crate::test::{Sight, counted, parse_sum, parse_test_result};
use crate::vm::{self, TestProgram};
use crate::workspace::{self, Profile};

/// The test program of integration/tests/runtime.
const INTEGRATION: &str = "runtime";
/// Tests of single crates that the kernel answers, not only our own code. pause's compile a program for their containers, and
/// the machine has no compiler: there, pause is tested by the integration tests.
const KERNEL: [&str; 2] = ["netns-", "runtime-unit"];
/// Tests that need a machine with another security module, and those that need another first process: `cargo xtask vm -- --help`.
const SELINUX: &str = "selinux::";
const SYSTEMD: &str = "systemd::";
/// How long a file system's cuts may take, until no new one is made.
const POWER_SECONDS: &str = "240";
/// As many as the machine has processors. More are slower, as two machines share this one's.
const THREADS: &str = "2";

/// Where the modules of integration/tests/runtime are divided: they take as long as all else together, and one machine longer than
/// two.
const SECOND_HALF: &str = "m";

/// What one machine runs. The longest come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Part {
    /// integration/tests/runtime, modules a to l
    IntegrationA,
    /// integration/tests/runtime, modules m to z
    IntegrationM,
    /// With systemd and its cgroup driver: critest, the whole suite, and its own tests
    Systemd,
    /// critest, the whole suite
    Conformance,
    /// Tests of the crates that call the kernel: netns, runtime
    Kernel,
    /// Two power cuts on each file system
    Power,
    /// Tests with SELinux
    Selinux,
}

impl Part {
    pub(super) const ALL: [Self; 7] = [
        Self::IntegrationA,
        Self::IntegrationM,
        Self::Systemd,
        Self::Conformance,
        Self::Kernel,
        Self::Power,
        Self::Selinux,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::IntegrationA => "integration tests, a to l",
            Self::IntegrationM => "integration tests, m to z",
            Self::Systemd => "systemd",
            Self::Conformance => "conformance",
            Self::Kernel => "tests of the kernel's calls",
            Self::Power => "power cuts",
            Self::Selinux => "SELinux",
        }
    }

    /// Before each line of its output, as the machines run side by side.
    const fn label(self) -> &'static str {
        match self {
            Self::IntegrationA => "tests a-l",
            Self::IntegrationM => "tests m-z",
            Self::Systemd => "systemd",
            Self::Conformance => "conformance",
            Self::Kernel => "kernel",
            Self::Power => "power",
            Self::Selinux => "selinux",
        }
    }

    /// The test programs that it runs.
    pub(super) fn runs(self, program: &str) -> bool {
        match self {
            Self::IntegrationA | Self::IntegrationM | Self::Systemd | Self::Selinux => {
                program == INTEGRATION
            }
            Self::Conformance | Self::Power => false,
            Self::Kernel => KERNEL.iter().any(|start| program.starts_with(start)),
        }
    }

    /// What its machine has that others have not.
    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Systemd => &["--systemd"],
            Self::Selinux => &["--selinux"],
            _ => &[],
        }
    }

    /// Boots a machine and counts what passes in it.
    pub(super) fn run(self, plan: &Plan) -> Result<Counts> {
        let mut unchosen = 0;
        for program in self.programs(plan) {
            let tests = program.tests()?;
            unchosen += tests.len() - self.chosen(plan, program, &tests).len();
        }
        let mut filtered = 0;
        let mut command = self.command(plan)?;
        let counts = counted(&mut command, Sight::Labelled(self.label()), |line| {
            filtered += parse_filtered(line).unwrap_or_default();
            parse_test_result(line).or_else(|| parse_sum(line))
        })?;
        ensure!(
            filtered == unchosen,
            "{filtered} tests were left out, not {unchosen}: does left_out.txt name one that is no more?"
        );
        Ok(counts)
    }

    fn command(self, plan: &Plan) -> Result<Command> {
        if self == Self::Power {
            let mut cuts = Command::new(workspace::program(Profile::Dev, "power_cuts"));
            cuts.args(["--count", "2", "--time", POWER_SECONDS]);
            return Ok(cuts);
        }
        let mut machine = vm::machine(&plan.test_programs);
        machine.args(self.options());
        machine.args(["--timeout", &plan.limit.as_secs().to_string()]);
        if let Some(kernel) = &plan.kernel {
            machine.args(["--kernel", kernel]);
        }
        machine.args(["sh", "-c", &self.script(plan)?]);
        Ok(machine)
    }

    fn programs(self, plan: &Plan) -> impl Iterator<Item = &TestProgram> {
        let programs = plan.test_programs.iter();
        programs.filter(move |program| self.runs(&program.name))
    }

    /// Those of a program's tests that it runs.
    fn chosen<'a>(self, plan: &Plan, program: &TestProgram, tests: &'a [String]) -> Vec<&'a str> {
        let is_left_out = |test: &str| plan.left_out.of(&program.name).any(|name| name == test);
        let is_chosen = |test: &str| match self {
            Self::Systemd => test.starts_with(SYSTEMD),
            Self::Selinux => test.starts_with(SELINUX),
            _ if test.starts_with(SYSTEMD) || test.starts_with(SELINUX) || is_left_out(test) => {
                false
            }
            Self::IntegrationA => test < SECOND_HALF,
            Self::IntegrationM => test >= SECOND_HALF,
            _ => true,
        };
        let tests = tests.iter().map(String::as_str);
        tests.filter(|test| is_chosen(test)).collect()
    }

    /// What the machine's shell runs.
    fn script(self, plan: &Plan) -> Result<String> {
        let seed = plan.seed.map(|seed| format!(" --seed {seed}"));
        let conformance = format!("conformance{}", seed.unwrap_or_default());
        if self == Self::Conformance {
            return Ok(format!("exec {conformance}"));
        }
        let mut programs: Vec<_> = self.programs(plan).collect();
        programs.sort_unstable_by_key(|program| &program.name);
        ensure!(!programs.is_empty(), "no test program of its is built");
        // All of them run, whichever fails.
        let mut script = String::from("status=0\n");
        for program in programs {
            let (name, tests) = (&program.name, program.tests()?);
            let chosen = self.chosen(plan, program, &tests);
            let run = match self {
                // They are ignored elsewhere, and change the machine that they have in common.
                Self::Systemd | Self::Selinux => {
                    format!(" --include-ignored --test-threads 1 {}", chosen.join(" "))
                }
                _ => {
                    let left = tests.iter().filter(|test| !chosen.contains(&test.as_str()));
                    let skip = left.map(|test| format!(" --skip {test}"));
                    format!(" --test-threads {THREADS}{}", skip.collect::<String>())
                }
            };
            script.push_str(&format!(
                "echo '{name}:'\n{name} --exact{run} || status=1\n"
            ));
        }
        if self == Self::Systemd {
            script.push_str(&format!("{conformance} || status=1\n"));
        }
        Ok(script + "exit $status")
    }
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
             echo 'netns-exec:'\nnetns-exec --exact --test-threads 2 || status=1\n\
             echo 'runtime-unit:'\nruntime-unit --exact --test-threads 2 || status=1\n\
             exit $status"
        );
        let script = Part::IntegrationA.script(&plan).unwrap();
        assert!(script.contains("\nruntime --exact --test"), "{script}");
        assert!(!script.contains("unit"), "{script}");
        let script = Part::Conformance.script(&plan).unwrap();
        assert_eq!(script, "exec conformance --seed 7");
        let script = Part::Systemd.script(&plan).unwrap();
        assert!(
            script.contains("\nruntime --exact --include-ignored"),
            "{script}"
        );
        assert!(script.contains("\nconformance --seed 7 ||"), "{script}");
    }

    #[test]
    fn tests_of_other_machines_are_found_by_their_module() {
        let tests =
            ["selinux::a", "exec::systemd::b", "systemd::c", "mounts::d"].map(str::to_owned);
        let plan = plan(&["runtime"]);
        let chosen = |part: Part| part.chosen(&plan, &plan.test_programs[0], &tests);
        assert_eq!(chosen(Part::IntegrationA), ["exec::systemd::b"]);
        assert_eq!(chosen(Part::IntegrationM), ["mounts::d"]);
        assert_eq!(chosen(Part::Systemd), ["systemd::c"]);
        assert_eq!(chosen(Part::Selinux), ["selinux::a"]);
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
