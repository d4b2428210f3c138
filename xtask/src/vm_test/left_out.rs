//! What CI leaves out: tests that take an emulated machine minutes and show nothing there that the run outside does not.

use anyhow::{Context, Result};

use super::part::Part;

const LIST: &str = include_str!("left_out.txt");

/// The tests of a list, each with its program and the reason.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    tests: Vec<Test>,
}

#[derive(Debug, PartialEq, Eq)]
struct Test {
    program: &'static str,
    name: &'static str,
    reason: &'static str,
}

impl LeftOut {
    pub(super) fn nothing() -> Self {
        Self::default()
    }

    pub(super) fn in_ci() -> Result<Self> {
        Self::parse(LIST)
    }

    /// A line each, `program test: reason`; `#` is before a remark.
    fn parse(text: &'static str) -> Result<Self> {
        let lines = text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let test = |line: &'static str| {
            let (test, reason) = line.split_once(": ")?;
            let (program, name) = test.split_once(' ')?;
            let reason = reason.trim();
            (!reason.is_empty()).then_some(Test {
                program,
                name,
                reason,
            })
        };
        let tests = lines.map(|line| {
            test(line)
                .with_context(|| format!("left_out.txt: {line:?} is not `program test: reason`"))
        });
        Ok(Self {
            tests: tests.collect::<Result<_>>()?,
        })
    }

    /// Those of one program.
    pub(super) fn of(&self, program: &str) -> impl Iterator<Item = &'static str> {
        let tests = self.tests.iter();
        tests
            .filter(move |test| test.program == program)
            .map(|test| test.name)
    }

    /// Names what these parts have not run.
    pub(super) fn tell(&self, parts: &[Part]) {
        let tests = self.tests.iter();
        let tests: Vec<_> = tests
            .filter(|test| parts.iter().any(|part| part.runs(test.program)))
            .collect();
        if !tests.is_empty() {
            println!("\n{} tests are left out; --whole runs them:", tests.len());
        }
        for Test {
            program,
            name,
            reason,
        } in tests
        {
            println!("  {program} {name}: {reason}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_a_test_and_a_reason() {
        let left_out =
            LeftOut::parse("# a remark\n\nruntime a::b: slow\npause-exec c: slow, too\n").unwrap();
        assert_eq!(left_out.of("runtime").collect::<Vec<_>>(), ["a::b"]);
        assert_eq!(left_out.of("pause-exec").collect::<Vec<_>>(), ["c"]);
        assert_eq!(left_out.of("pause").count(), 0);
        for wrong in ["runtime a::b", "runtime a::b: ", "a::b: slow"] {
            assert!(LeftOut::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_list_is_of_programs_that_run() {
        for test in LeftOut::in_ci().unwrap().tests {
            assert!(
                Part::ALL.iter().any(|part| part.runs(test.program)),
                "{test:?}"
            );
        }
    }
}
