//! Counts by work, as a file has them and as they differ from others.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};

/// What may differ in either direction, in percent: code elsewhere may change what the compiler inlines.
const TOLERANCE: u64 = 5;

/// What one work takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) instructions: u64,
    pub(super) allocations: u64,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.instructions, self.allocations)
    }
}

/// By program and work.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(BTreeMap<String, Count>);

/// What became of a work's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Within the tolerance.
    Same(Count),
    /// Better, so that the file is out of date.
    Less { before: Count, now: Count },
    /// Worse.
    More { before: Count, now: Count },
    /// It is not in the file.
    New(Count),
    /// It is only in the file.
    Gone,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(count) => write!(f, "{count}"),
            Self::Less { before, now } => {
                write!(f, "{now}, less than {before}: commit the new counts")
            }
            Self::More { before, now } => write!(f, "{now}, MORE than {before}"),
            Self::New(count) => write!(f, "{count}, NOT in {}", super::COMMITTED),
            Self::Gone => write!(f, "GONE, and still in {}", super::COMMITTED),
        }
    }
}

impl Counts {
    pub(super) fn add(&mut self, work: String, count: Count) {
        self.0.insert(work, count);
    }

    /// Reads lines of program, work, instructions and allocations; `#` begins a comment.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let counts = lines.map(|line| {
            let mut words = line.rsplitn(3, ' ');
            let mut number = || words.next()?.parse().ok();
            let (allocations, instructions) = (number(), number());
            let count = allocations.zip(instructions).zip(words.next());
            let ((allocations, instructions), work) =
                count.with_context(|| format!("no counts: {line}"))?;
            let count = Count {
                instructions,
                allocations,
            };
            Ok((work.to_owned(), count))
        });
        Ok(Self(counts.collect::<Result<_>>()?))
    }

    /// What became of each, against `self`.
    pub(super) fn compare(&self, now: &Self) -> Vec<(String, Verdict)> {
        let mut verdicts: Vec<_> = now
            .0
            .iter()
            .map(|(work, count)| {
                let before = self.0.get(work).copied();
                let verdict = before.map_or(Verdict::New(*count), |before| verdict(before, *count));
                (work.clone(), verdict)
            })
            .collect();
        let gone = self.0.keys().filter(|work| !now.0.contains_key(*work));
        verdicts.extend(gone.map(|work| (work.clone(), Verdict::Gone)));
        verdicts
    }
}

fn verdict(before: Count, now: Count) -> Verdict {
    let pairs = [
        (before.instructions, now.instructions),
        (before.allocations, now.allocations),
    ];
    let exceeds = |a: u64, b: u64| a * 100 > b * (100 + TOLERANCE);
    if pairs.iter().any(|(before, now)| exceeds(*now, *before)) {
        Verdict::More { before, now }
    } else if pairs.iter().any(|(before, now)| exceeds(*before, *now)) {
        Verdict::Less { before, now }
    } else {
        Verdict::Same(now)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Program, work, instructions and allocations. `cargo xtask instructions --update` writes this file."
        )?;
        for (work, count) in &self.0 {
            writeln!(f, "{work} {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(entries: &[(&str, u64, u64)]) -> Counts {
        let count = |&(work, instructions, allocations): &(&str, u64, u64)| {
            let count = Count {
                instructions,
                allocations,
            };
            (work.to_owned(), count)
        };
        Counts(entries.iter().map(count).collect())
    }

    #[test]
    fn the_file_is_read_as_it_is_written() {
        let counts = counts(&[("a tests::x", 12_345, 6), ("b tests::y", 1, 0)]);
        assert_eq!(Counts::parse(&counts.to_string()).ok(), Some(counts));
        for broken in ["a tests::x 12", "a x 1 -2", "x"] {
            assert!(Counts::parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn five_percent_are_the_same() {
        for (instructions, allocations, expected) in [
            (1050, 20, "1050 20"),
            (1051, 20, "1051 20, MORE than 1000 20"),
            (1000, 22, "1000 22, MORE than 1000 20"),
            (960, 20, "960 20"),
            (900, 20, "900 20, less than 1000 20: commit the new counts"),
            // One better and one worse is worse.
            (900, 25, "900 25, MORE than 1000 20"),
        ] {
            let before = counts(&[("a x", 1000, 20)]);
            let now = counts(&[("a x", instructions, allocations)]);
            let [(_, verdict)] = &before.compare(&now)[..] else {
                panic!("one verdict")
            };
            assert_eq!(verdict.to_string(), expected);
        }
    }

    #[test]
    fn a_work_without_counts_and_counts_without_a_work_are_named() {
        let before = counts(&[("a old", 10, 1)]);
        let verdicts = before.compare(&counts(&[("a new", 10, 1)]));
        let [(new, Verdict::New(_)), (old, Verdict::Gone)] = &verdicts[..] else {
            panic!("{verdicts:?}")
        };
        assert_eq!((new.as_str(), old.as_str()), ("a new", "a old"));
    }
}
