//! What a run of critest v1.36.0 has to come to: which specs there are, and which of them a machine cannot run.
//!
//! Everything else fails: a spec that skips itself for a reason that is not listed here, one that vanishes from
//! the suite or is filtered out by mistake, one too many.

use std::path::Path;

use podwright_integration::tools::{Report, Spec, State};

/// It pulls an upstream image by its digest, which cannot be made here; our own tests pull by digest.
pub(crate) const UNREACHABLE: &str = "public image with digest should be pulled and removed";

/// All specs of the suite. There are further ones where SELinux is enabled.
const SPECS: usize = 122;
/// critest leaves them out by itself.
const BENCHMARKS: usize = 5;
/// Those of [`UNREACHABLE`].
const UNREACHABLES: usize = 1;
/// They need AppArmor in the kernel, and skip themselves with [`NO_APPARMOR`].
const APPARMORS: usize = 9;
/// Exec with and without a terminal, attach, port-forward with the pod's and with the host's network.
const STREAMINGS: usize = 5;
/// Eight of a process or a mount for each of two kinds of pod, and one with two pods.
const SELINUXES: usize = 17;

/// The reason that AppArmor's specs give.
const NO_APPARMOR: &str = "AppArmor is disabled on this host";

/// What of the suite a run contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Everything that this machine can run.
    All,
    /// The specs of streaming alone.
    Streaming,
    /// Whatever matches a pattern, at least one.
    Some,
}

/// How a spec's end is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// With a reason where the spec itself gives none.
    Failed(String),
    /// Left out by a filter, which is counted where all are expected.
    NotChosen,
    /// This machine lacks what it tests.
    CannotRun,
}

/// A run's report against what was expected.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) specs: Vec<(Spec, Verdict)>,
    /// What is wrong with the run as a whole.
    pub(crate) faults: Vec<String>,
}

/// The security modules that this kernel has enabled, as critest finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    apparmor: Module,
    selinux: Module,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Module {
    Enabled,
    Absent,
}

impl Expected {
    /// Compares a report of this machine.
    pub(crate) fn judge(self, report: &Report) -> Judged {
        self.judge_on(Machine::detect(), report)
    }

    fn judge_on(self, machine: Machine, report: &Report) -> Judged {
        let specs = report.specs.iter();
        let specs: Vec<_> = specs
            .map(|spec| (spec.clone(), verdict(spec, machine)))
            .collect();
        let mut judged = Judged {
            specs,
            faults: Vec::new(),
        };
        let ran = judged.passed() + judged.failed();
        let wanted = self.wanted(machine);
        match self {
            Self::All => judged.expect("specs in the suite", report.specs.len(), machine.specs()),
            Self::Streaming => {}
            Self::Some if ran == 0 => judged.faults.push("no spec matches".to_owned()),
            Self::Some => {}
        }
        if let Some(wanted) = wanted {
            judged.expect("specs that ran", ran, wanted);
        }
        judged
    }

    /// How many specs run, where that is known.
    fn wanted(self, machine: Machine) -> Option<usize> {
        match self {
            Self::All => Some(machine.specs() - BENCHMARKS - UNREACHABLES - machine.cannot_run()),
            Self::Streaming => Some(STREAMINGS),
            Self::Some => None,
        }
    }
}

/// A spec that a filter left out is skipped without a reason.
fn verdict(spec: &Spec, machine: Machine) -> Verdict {
    match spec.state {
        State::Passed => Verdict::Passed,
        State::Failed => Verdict::Failed("it failed".to_owned()),
        State::Skipped if spec.message.is_empty() => Verdict::NotChosen,
        State::Skipped
            if machine.apparmor == Module::Absent && spec.message.trim() == NO_APPARMOR =>
        {
            Verdict::CannotRun
        }
        State::Skipped => {
            Verdict::Failed("it skipped itself, and this machine has what it needs".to_owned())
        }
    }
}

impl Judged {
    fn count(&self, wanted: impl Fn(&Verdict) -> bool) -> usize {
        let verdicts = self.specs.iter().map(|(_, verdict)| verdict);
        verdicts.filter(|verdict| wanted(verdict)).count()
    }

    pub(crate) fn passed(&self) -> usize {
        self.count(|verdict| *verdict == Verdict::Passed)
    }

    /// Specs and faults.
    pub(crate) fn failed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Failed(_))) + self.faults.len()
    }

    pub(crate) fn not_run(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::NotChosen | Verdict::CannotRun))
    }

    fn expect(&mut self, what: &str, found: usize, wanted: usize) {
        if found != wanted {
            self.faults.push(format!("{found} {what}, not {wanted}"));
        }
    }
}

impl Machine {
    fn detect() -> Self {
        let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        let selinux = Path::new("/sys/fs/selinux/enforce").exists();
        let module = |enabled| match enabled {
            true => Module::Enabled,
            false => Module::Absent,
        };
        Self {
            apparmor: module(apparmor.is_ok_and(|text| text.starts_with('Y'))),
            selinux: module(selinux),
        }
    }

    fn specs(self) -> usize {
        match self.selinux {
            Module::Enabled => SPECS + SELINUXES,
            Module::Absent => SPECS,
        }
    }

    fn cannot_run(self) -> usize {
        match self.apparmor {
            Module::Enabled => 0,
            Module::Absent => APPARMORS,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PLAIN: Machine = Machine {
        apparmor: Module::Absent,
        selinux: Module::Absent,
    };

    fn specs(count: usize, state: State, message: &str) -> Vec<Spec> {
        let spec = |number| Spec {
            name: format!("{state:?} {number} {message}"),
            state,
            time: Duration::ZERO,
            message: message.to_owned(),
        };
        (0..count).map(spec).collect()
    }

    fn report(passed: usize, failed: usize, left_out: usize, skips: &[(usize, &str)]) -> Report {
        let mut all = specs(passed, State::Passed, "");
        all.extend(specs(failed, State::Failed, "wrong"));
        all.extend(specs(left_out, State::Skipped, ""));
        for (count, reason) in skips {
            all.extend(specs(*count, State::Skipped, reason));
        }
        Report { specs: all }
    }

    #[test]
    fn a_whole_run_has_every_spec() {
        let without = [(9, NO_APPARMOR)];
        let with = Machine {
            apparmor: Module::Enabled,
            ..PLAIN
        };
        for (machine, report, failed) in [
            (PLAIN, report(107, 0, 6, &without), 0),
            // One failed.
            (PLAIN, report(106, 1, 6, &without), 1),
            // One was filtered out by mistake.
            (PLAIN, report(106, 0, 7, &without), 1),
            // One vanished: there are too few, and too few ran.
            (PLAIN, report(106, 0, 6, &without), 2),
            // One gave up for another reason.
            (
                PLAIN,
                report(106, 0, 6, &[(9, NO_APPARMOR), (1, "no handler")]),
                1,
            ),
            (with, report(116, 0, 6, &[]), 0),
            // Skipped although the kernel has it.
            (with, report(107, 0, 6, &without), 9),
        ] {
            let judged = Expected::All.judge_on(machine, &report);
            assert_eq!(judged.failed(), failed, "{machine:?} {:?}", judged.faults);
        }
    }

    #[test]
    fn a_part_has_to_run_something() {
        assert_eq!(
            Expected::Some
                .judge_on(PLAIN, &report(0, 0, 122, &[]))
                .failed(),
            1
        );
        assert_eq!(
            Expected::Some
                .judge_on(PLAIN, &report(2, 0, 120, &[]))
                .failed(),
            0
        );
        let streaming = |passed| Expected::Streaming.judge_on(PLAIN, &report(passed, 0, 117, &[]));
        assert_eq!(streaming(5).failed(), 0);
        assert_eq!(streaming(4).failed(), 1);
    }
}
