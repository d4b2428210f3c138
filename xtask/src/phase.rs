//! Long commands in phases: each is announced, timed, and counted; a failed one does not hide the later ones' results, and
//! what failed is told again at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What a phase's tests came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Not run: this machine lacks something.
    pub(crate) skipped: u64,
    /// What was said of those that failed.
    pub(crate) told: Vec<String>,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.told.extend(other.told);
    }
}

impl Counts {
    /// One check that did or did not hold.
    pub(crate) fn of(result: &Result<()>) -> Self {
        match result {
            Ok(()) => Self {
                passed: 1,
                ..Self::default()
            },
            Err(error) => Self::failure(format!("{error:#}")),
        }
    }

    /// One that failed, of which this is to be told.
    pub(crate) fn failure(told: String) -> Self {
        Self {
            failed: 1,
            told: vec![told],
            ..Self::default()
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Phases as they were run.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    done: Vec<(&'static str, Duration, Counts)>,
}

impl Phases {
    /// Runs a phase that counts for itself.
    pub(crate) fn count(&mut self, name: &'static str, phase: impl FnOnce() -> Result<Counts>) {
        println!("\n=== {name}");
        let start = Instant::now();
        let result = phase();
        self.record(name, start.elapsed(), result);
    }

    /// Takes in a phase that has run already.
    pub(crate) fn record(&mut self, name: &'static str, took: Duration, result: Result<Counts>) {
        let counts = match result {
            Ok(counts) if counts == Counts::default() => {
                Counts::failure("nothing was tested".to_owned())
            }
            Ok(counts) => counts,
            Err(error) => Counts::failure(format!("{error:#}")),
        };
        self.done.push((name, took, counts));
    }

    /// Runs a phase that is one check.
    pub(crate) fn check(&mut self, name: &'static str, phase: impl FnOnce() -> Result<()>) {
        self.count(name, || Ok(Counts::of(&phase())));
    }

    /// Prints what failed, every phase's duration and, as the last line, the sum.
    ///
    /// # Errors
    /// When anything failed, or was skipped where that counts.
    pub(crate) fn finish(self, skips_fail: bool) -> Result<()> {
        let mut sum = Counts::default();
        for (name, _, counts) in &self.done {
            for told in &counts.told {
                println!("\n=== failed in {name}: {told}");
            }
        }
        println!();
        for (name, duration, counts) in self.done {
            println!("{name:<28} {:>7.1} s   {counts}", duration.as_secs_f64());
            sum += counts;
        }
        println!("{sum}");
        if sum.failed > 0 {
            bail!("{} failed", sum.failed);
        }
        if sum.skipped > 0 && skips_fail {
            bail!("{} skipped, which is a failure in CI", sum.skipped);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_skips_in_ci_fail_the_whole() {
        let counted = |counts: Counts| {
            let mut phases = Phases::default();
            phases.count("a", || {
                Ok(Counts {
                    passed: 2,
                    ..Counts::default()
                })
            });
            phases.count("b", || Ok(counts));
            phases
        };
        let passed = Counts {
            passed: 1,
            ..Counts::default()
        };
        assert!(counted(passed).finish(true).is_ok());
        assert!(
            counted(Counts {
                failed: 1,
                ..Counts::default()
            })
            .finish(false)
            .is_err()
        );
        assert!(
            counted(Counts {
                skipped: 1,
                ..Counts::default()
            })
            .finish(false)
            .is_ok()
        );
        assert!(
            counted(Counts {
                skipped: 1,
                ..Counts::default()
            })
            .finish(true)
            .is_err()
        );
    }

    #[test]
    fn a_phase_that_cannot_run_has_failed() {
        let mut phases = Phases::default();
        phases.count("a", || bail!("no such program"));
        phases.check("b", || Ok(()));
        phases.count("c", || Ok(Counts::default()));
        let failed = |told: &str| Counts::failure(told.to_owned());
        assert_eq!(phases.done[0].2, failed("no such program"));
        assert_eq!(phases.done[2].2, failed("nothing was tested"));
        assert_eq!(
            phases.done[1].2,
            Counts {
                passed: 1,
                ..Counts::default()
            }
        );
        assert!(phases.finish(false).is_err());
    }
}
