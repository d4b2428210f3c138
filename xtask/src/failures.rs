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
    place: Place,
}

/// Where in a failure's output a line is.
#[derive(Debug, Clone, Copy)]
enum Place {
    Said,
    /// Within the frames of a backtrace, each of them indented, which would push out what was said before them.
    Backtrace,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A test of libtest: `---- NAME stdout ----`, and then its output up to that of the next one or the list of names.
    Test,
    /// A spec of our conformance: `FAIL NAME`, and then the reason, indented.
    Spec,
}

impl Failure {
    fn keep(&mut self, line: &str) {
        self.place = match (self.place, line) {
            (_, "stack backtrace:" | "Stack backtrace:") => Place::Backtrace,
            (Place::Backtrace, frame) if frame.starts_with(' ') => Place::Backtrace,
            _ => Place::Said,
        };
        if matches!(self.place, Place::Backtrace) {
            return;
        }
        self.lines.push_back(line.to_owned());
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }
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
                open.keep(line);
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
            place: Place::Said,
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
    fn backtraces_do_not_push_out_the_reason() {
        let frames: String = (0..60)
            .map(|n| format!("  {n}: a::frame\n             at ./x.rs:{n}:1\n"))
            .collect();
        let output = format!(
            "---- a stdout ----\nError: late\n\nCaused by:\n    why\n\nStack backtrace:\n{frames}\n\
             ---- b stdout ----\nthread 'b' panicked\nstack backtrace:\n{frames}note: more\n"
        );
        let expected = [
            "a\nError: late\nCaused by:\n    why",
            "b\nthread 'b' panicked\nnote: more",
        ];
        assert_eq!(told(&output), expected);
    }

    #[test]
    fn what_passes_is_not_told() {
        assert_eq!(told("test a ... ok\n\nFAILURE\n    \nfailures:\n"), [""; 0]);
    }
}
