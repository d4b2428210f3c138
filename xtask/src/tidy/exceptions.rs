//! The lists of exceptions: `path: reason` a line, `#` before a remark.

use super::{Finding, SourceFile};

/// One list.
pub(super) struct Exceptions {
    path: &'static str,
    entries: Vec<(usize, &'static str)>,
    findings: Vec<Finding>,
}

impl Exceptions {
    /// Reads the list that the file at `path` holds.
    pub(super) fn parse(path: &'static str, text: &'static str) -> Self {
        let mut exceptions = Self {
            path,
            entries: Vec::new(),
            findings: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once(": ") {
                Some((file, reason)) if !reason.trim().is_empty() => {
                    exceptions.entries.push((index + 1, file))
                }
                _ => exceptions.findings.push(Finding {
                    path: path.to_owned(),
                    line: index + 1,
                    what: format!("the exception {line:?} has no reason; write `path: reason`"),
                }),
            }
        }
        exceptions
    }

    pub(super) fn holds(&self, file: &SourceFile) -> bool {
        self.entries.iter().any(|(_, path)| *path == file.path)
    }

    /// What is wrong with the list itself: entries without reason, and those that `needed` does not find needed.
    pub(super) fn check(
        self,
        files: &[SourceFile],
        needed: impl Fn(&SourceFile) -> bool,
    ) -> Vec<Finding> {
        let mut findings = self.findings;
        for (line, path) in self.entries {
            if !files.iter().any(|file| file.path == path && needed(file)) {
                let what = format!("{path} needs no exception any more; remove the line");
                findings.push(Finding {
                    path: self.path.to_owned(),
                    line,
                    what,
                });
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_reasons_and_are_needed() {
        let files = [
            SourceFile::new("a.rs", "unsafe".to_owned()),
            SourceFile::new("b.rs", String::new()),
        ];
        let list =
            "# remark\n\na.rs: talks to the kernel\nb.rs: does no more\nc.rs: is gone\nd.rs\n";
        let exceptions = Exceptions::parse("list.txt", list);
        assert!(exceptions.holds(&files[0]));
        let lines: Vec<_> = exceptions
            .check(&files, |file| file.text == "unsafe")
            .iter()
            .map(|f| f.line)
            .collect();
        assert_eq!(lines, [6, 4, 5]);
    }
}
