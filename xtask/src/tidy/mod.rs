//! `cargo xtask tidy`: the house rules that a program can check.
//!
//! Each rule is a function from a file to findings in `rules/`; exceptions stand in lists beside it, each with its reason, and
//! an exception that is no longer needed is a finding itself.

mod blank;
mod exceptions;
mod rules;

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{programs, workspace};

/// A text file of the project.
#[derive(Debug)]
struct SourceFile {
    /// Relative to the workspace's root, with `/`.
    path: String,
    text: String,
    /// For Rust: the text with comments and the insides of literals blanked out.
    code: String,
    /// Whether all of it is test code.
    is_test: bool,
}

impl SourceFile {
    fn new(path: &str, text: String) -> Self {
        let code = if path.ends_with(".rs") {
            blank::blank(&text)
        } else {
            String::new()
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_test = path.contains("/tests/")
            || name.ends_with("tests.rs")
            || path.starts_with("integration/");
        Self {
            path: path.to_owned(),
            text,
            code,
            is_test,
        }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Lines of text with the same lines of code, counted from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        self.text
            .lines()
            .zip(self.code.lines())
            .enumerate()
            .map(|(i, (text, code))| (i + 1, text, code))
    }

    /// The line at which test code begins, if any does.
    fn first_test_line(&self) -> usize {
        if self.is_test {
            return 1;
        }
        let test_module = self
            .lines()
            .find(|(_, _, code)| code.contains("#[cfg(test)]"));
        test_module.map_or(usize::MAX, |(line, _, _)| line)
    }

    /// The paths of the modules that this file declares as `#[cfg(test)] mod name;`.
    fn test_modules(&self) -> Vec<String> {
        let (directory, name) = self.path.rsplit_once('/').unwrap_or_default();
        let directory = match name {
            "mod.rs" | "lib.rs" | "main.rs" => directory.to_owned(),
            _ => format!("{directory}/{}", name.trim_end_matches(".rs")),
        };
        let declared = self.code.split("#[cfg(test)]").skip(1).filter_map(|after| {
            let name = after.trim_start().strip_prefix("mod ")?.split(';').next()?;
            (!name.contains('{')).then(|| format!("{directory}/{name}.rs"))
        });
        declared.collect()
    }
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Checks every file that git has or would take.
pub(crate) fn run() -> Result<()> {
    let files = files(workspace::root())?;
    let findings = rules::check(&files, workspace::root());
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} house rules broken"),
    }
}

fn files(root: &Path) -> Result<Vec<SourceFile>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root);
    let mut files = Vec::new();
    for path in programs::output(&mut git)?.lines() {
        let full = root.join(path);
        // Deleted but not yet committed, or a link to elsewhere.
        if !full
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_file())
        {
            continue;
        }
        let bytes =
            std::fs::read(&full).with_context(|| format!("cannot read {}", full.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(SourceFile::new(path, text));
        }
    }
    mark_test_modules(&mut files);
    Ok(files)
}

fn mark_test_modules(files: &mut [SourceFile]) {
    let modules: Vec<_> = files.iter().flat_map(SourceFile::test_modules).collect();
    for file in files.iter_mut().filter(|file| modules.contains(&file.path)) {
        file.is_test = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_code_is_known_by_its_place_and_its_declaration() {
        let mut files = [
            ("a/src/x/mod.rs", "mod y;\n#[cfg(test)]\nmod fake;\n"),
            ("a/src/x/fake.rs", ""),
            ("a/src/x/y.rs", "fn y() {}\n#[cfg(test)]\nmod tests {\n}\n"),
            ("a/tests/z.rs", ""),
        ]
        .map(|(path, text)| SourceFile::new(path, text.to_owned()));
        mark_test_modules(&mut files);
        assert_eq!(files.map(|file| file.first_test_line()), [2, 1, 2, 1]);
    }
}
