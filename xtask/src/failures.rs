//! What tests say of those that failed, found in their output: a long run is often seen from its end only.

use std::collections::VecDeque;

/// So many of the last lines of a failed test are kept: the reason comes last.
const LINES: usize = 20;

/// The failures among the lines of an output.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    done: Vec<String>,
    open: Option<Failure>,
}

/// One whose lines are being read.
#[derive(Debug)]
struct Failure {
    name: String,
    kind: Kind,
    lines: VecDeque<String>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A test of libtest: `---- NAME stdout ----`, and then its output up to that of the next one or the list of names.
    Test,
    /// A spec of our conformance: `FAIL NAME`, and then the reason, indented.
    Spec,
}

impl Failures {
    /// Reads the next line.
    pub(crate) fn take(&mut self, line: &str) {
        let test = line.strip_prefix("---- ");
        let test = test.and_then(|line| line.strip_suffix(" stdout ----"));
        if let Some(name) = test {
            self.open(name, Kind::Test);
        } else if let Some(name) = line.strip_prefix("FAIL ") {
            self.open(name, Kind::Spec);
        } else if let Some(open) = &mut self.open {
            let ends = match open.kind {
                Kind::Test => line == "failures:" || line.starts_with("test result: "),
                Kind::Spec => !line.starts_with(' '),
            };
            if ends {
                self.close();
            } else {
                open.lines.push_back(line.to_owned());
                if open.lines.len() > LINES {
                    open.lines.pop_front();
                }
            }
        }
    }

    /// What was found: of each failure its name and its last lines.
    pub(crate) fn told(mut self) -> Vec<String> {
        self.close();
        self.done
    }

    fn open(&mut self, name: &str, kind: Kind) {
        self.close();
        self.open = Some(Failure {
            name: name.trim().to_owned(),
            kind,
            lines: VecDeque::new(),
        });
    }

    fn close(&mut self) {
        let Some(Failure { name, lines, .. }) = self.open.take() else {
            return;
        };
        let lines = lines.iter().map(|line| line.trim_end());
        let lines = lines.filter(|line| !line.is_empty());
        let lines: String = lines.map(|line| format!("\n{line}")).collect();
        self.done.push(name + &lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(output: &str) -> Vec<String> {
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.take(line));
        failures.told()
    }

    #[test]
    fn tests_are_told_with_their_output() {
        let output = "test a::b ... FAILED\ntest c ... ok\n\nfailures:\n\n---- a::b stdout ----\nan answer\nError: late\n\n\
                      ---- d stdout ----\nthread 'd' panicked at x.rs:1:2:\n\nfailures:\n    a::b\n    d\n\n\
                      test result: FAILED. 1 passed; 2 failed";
        let expected = [
            "a::b\nan answer\nError: late",
            "d\nthread 'd' panicked at x.rs:1:2:",
        ];
        assert_eq!(told(output), expected);
    }

    #[test]
    fn specs_are_told_with_their_reason() {
        let output =
            "ok   one\nFAIL two\n       it failed\nok   three\n       not of two\nFAIL four";
        assert_eq!(told(output), ["two\n       it failed", "four"]);
    }

    #[test]
    fn the_end_of_a_long_output_is_kept() {
        let lines: String = (0..100).map(|n| format!("{n}\n")).collect();
        let told = told(&format!("---- a stdout ----\n{lines}"));
        assert!(told[0].starts_with("a\n80\n81"), "{told:?}");
        assert!(told[0].ends_with("\n99"), "{told:?}");
    }

    #[test]
    fn what_passes_is_not_told() {
        assert_eq!(told("test a ... ok\n\nFAILURE\n    \nfailures:\n"), [""; 0]);
    }
}
