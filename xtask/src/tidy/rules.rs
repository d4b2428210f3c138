//! The rules.

mod functions;

use std::path::Path;

use super::exceptions::Exceptions;
use super::{Finding, SourceFile};

const MAX_FILE_LINES: usize = 700;
const MAX_FUNCTION_LINES: usize = 80;

/// Hosts of package registries, in two halves so that this file does not name them. A mirror's or registry's host in a file
/// breaks builds elsewhere: which one is used is the machine's configuration. Lock files name the canonical index only.
const REGISTRY_HOSTS: &[(&str, &str)] = &[
    ("index.crates", ".io"),
    ("static.crates", ".io"),
    ("deb.debian", ".org"),
    ("proxy.golang", ".org"),
    ("registry.npmjs", ".org"),
    ("arti", "factory"),
];

/// All findings, in the order of files.
pub(super) fn check(files: &[SourceFile], root: &Path) -> Vec<Finding> {
    let unsafe_modules = Exceptions::parse(
        "xtask/src/tidy/unsafe_modules.txt",
        include_str!("unsafe_modules.txt"),
    );
    let long_files = Exceptions::parse(
        "xtask/src/tidy/long_files.txt",
        include_str!("long_files.txt"),
    );
    let mut findings = Vec::new();
    for file in files {
        findings.extend(foreign_names(file, root));
        findings.extend(unfinished(file));
        if !file.is_rust() {
            continue;
        }
        if allows_unsafe(file) && !unsafe_modules.holds(file) {
            let what =
                "allows unsafe code and is not in xtask/src/tidy/unsafe_modules.txt".to_owned();
            findings.push(Finding {
                path: file.path.clone(),
                line: 1,
                what,
            });
        }
        if is_long(file) && !long_files.holds(file) {
            let what = format!(
                "{} lines; split it at {MAX_FILE_LINES}",
                file.text.lines().count()
            );
            findings.push(Finding {
                path: file.path.clone(),
                line: 1,
                what,
            });
        }
        findings.extend(crate_docs(file));
        findings.extend(unreasoned_panics(file));
        findings.extend(sleeping_tests(file));
        findings.extend(long_functions(file));
    }
    findings.extend(unsafe_modules.check(files, allows_unsafe));
    findings.extend(long_files.check(files, is_long));
    findings
}

fn finding(file: &SourceFile, line: usize, what: impl Into<String>) -> Finding {
    Finding {
        path: file.path.clone(),
        line,
        what: what.into(),
    }
}

fn allows_unsafe(file: &SourceFile) -> bool {
    // rustfmt breaks a long attribute into lines.
    let code: String = file.code.split_whitespace().collect();
    code.contains("allow(unsafe_code") || code.contains("expect(unsafe_code")
}

fn is_long(file: &SourceFile) -> bool {
    file.is_rust() && file.text.lines().count() > MAX_FILE_LINES
}

/// Marks of unfinished work belong into issues.
fn unfinished(file: &SourceFile) -> Vec<Finding> {
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat());
    let is_word = |line: &str, at: usize, mark: &str| {
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !letter(line[..at].chars().next_back()) && !letter(line[at + mark.len()..].chars().next())
    };
    let lines = file.text.lines().enumerate();
    let marked = lines.filter_map(|(index, line)| {
        let mark = marks.iter().find(|mark| {
            line.match_indices(mark.as_str())
                .any(|(at, _)| is_word(line, at, mark))
        })?;
        Some(finding(
            file,
            index + 1,
            format!("{mark}: finish it, or file an issue"),
        ))
    });
    marked.collect()
}

/// Paths of the checkout, and hosts of package registries.
fn foreign_names(file: &SourceFile, root: &Path) -> Vec<Finding> {
    let checkout = root.display().to_string();
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        if line.contains(&checkout) {
            findings.push(finding(file, index + 1, "names the path of this checkout"));
        }
        if let Some((_, host)) = REGISTRY_HOSTS
            .iter()
            .find(|(a, b)| line.contains(&[*a, *b].concat()))
        {
            findings.push(finding(
                file,
                index + 1,
                format!("names a package registry's host (…{host})"),
            ));
        }
    }
    findings
}

/// A crate's first line says what it is.
fn crate_docs(file: &SourceFile) -> Option<Finding> {
    let is_root = file.path.ends_with("src/lib.rs")
        || file.path.ends_with("src/main.rs")
        || file.path.contains("/src/bin/");
    (is_root && !file.text.starts_with("//! "))
        .then(|| finding(file, 1, "a crate begins with its documentation (`//! …`)"))
}

/// Clippy denies unwrap and expect; whoever allows one outside tests says why, in the attribute or behind it.
fn unreasoned_panics(file: &SourceFile) -> Vec<Finding> {
    let tests = file.first_test_line();
    let lines: Vec<_> = file.lines().collect();
    let mut findings = Vec::new();
    for (index, &(line, _, code)) in lines.iter().enumerate() {
        let allows = ["allow(", "expect("]
            .iter()
            .any(|a| code.contains(&format!("{a}clippy::")));
        let panics = ["unwrap_used", "expect_used"]
            .iter()
            .any(|lint| code.contains(lint));
        if line >= tests || !allows || !panics {
            continue;
        }
        // The attribute may go on over some lines.
        let attribute = lines[index..]
            .iter()
            .take(4)
            .take_while(|(_, _, code)| !code.contains("fn "));
        let mut says_why =
            attribute.map(|(_, text, code)| text.contains("// ") || code.contains("reason ="));
        if !says_why.any(|says| says) {
            findings.push(finding(
                file,
                line,
                "a lint against panics is switched off outside tests without a reason",
            ));
        }
    }
    findings
}

/// A test waits for what it needs, with a deadline; sleeping is slow on a fast machine and wrong on a slow one. The harness
/// in `integration/src/` is where that waiting is written.
fn sleeping_tests(file: &SourceFile) -> Vec<Finding> {
    if file.path.starts_with("integration/src/") {
        return Vec::new();
    }
    let tests = file.first_test_line();
    let sleeping = file
        .lines()
        .filter(|(line, text, code)| *line >= tests && calls_sleep(code) && !text.contains("//"));
    sleeping
        .map(|(line, _, _)| {
            finding(
                file,
                line,
                "a test sleeps; wait for the event, or say why on this line",
            )
        })
        .collect()
}

fn calls_sleep(code: &str) -> bool {
    code.match_indices("sleep(")
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Tests may be longer: their tables of cases are data.
fn long_functions(file: &SourceFile) -> Vec<Finding> {
    let tests = file.first_test_line();
    let functions = functions::functions(&file.code)
        .into_iter()
        .filter(|function| function.lines > MAX_FUNCTION_LINES && function.line < tests);
    let too_long = |function: functions::Function| {
        let what = format!(
            "fn {} has {} lines; split it at {MAX_FUNCTION_LINES}",
            function.name, function.lines
        );
        finding(file, function.line, what)
    };
    functions.map(too_long).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile::new(path, text.to_owned())
    }

    fn lines(findings: impl IntoIterator<Item = Finding>) -> Vec<usize> {
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn marks_of_unfinished_work_are_whole_words() {
        let text = [
            "// TO",
            "DO later\nlet mk",
            "TEMP_XX",
            "XX = 1; // FIX",
            "ME\n",
        ]
        .concat();
        assert_eq!(lines(unfinished(&file("a.md", &text))), [1, 2]);
    }

    #[test]
    fn unsafe_code_is_only_where_it_is_listed() {
        let files = [
            file(
                "a/src/x.rs",
                "#![allow(\n    unsafe_code,\n    reason = \"why\"\n)]\n",
            ),
            file("a/src/y.rs", "// allow(unsafe_code)\n"),
        ];
        let findings = check(&files, Path::new("/nonexistent/root"));
        assert_eq!(
            findings.iter().filter(|f| f.path == "a/src/x.rs").count(),
            1
        );
        assert_eq!(
            findings.iter().filter(|f| f.path == "a/src/y.rs").count(),
            0
        );
    }

    #[test]
    fn long_files_are_found() {
        assert!(!is_long(&file("a.rs", &"\n".repeat(700))));
        assert!(is_long(&file("a.rs", &"\n".repeat(701))));
        assert!(!is_long(&file("a.tsv", &"\n".repeat(701))));
    }

    #[test]
    fn checkouts_and_registries_are_found() {
        let text = ["see /src/pw/x\nfrom https://deb.", "debian.org/\nghcr.io\n"].concat();
        assert_eq!(
            lines(foreign_names(&file("a.md", &text), Path::new("/src/pw"))),
            [1, 2]
        );
    }

    #[test]
    fn crates_begin_with_documentation() {
        assert_eq!(crate_docs(&file("a/src/lib.rs", "//! What it is.\n")), None);
        assert_eq!(crate_docs(&file("a/src/x.rs", "fn x() {}\n")), None);
        assert!(crate_docs(&file("a/src/lib.rs", "fn x() {}\n")).is_some());
        assert!(crate_docs(&file("a/src/bin/b.rs", "#![allow(x)]\n")).is_some());
    }

    #[test]
    fn panics_outside_tests_have_reasons() {
        let with = "#[expect(clippy::expect_used, reason = \"a literal\")]\nfn a() {}\n";
        let spread =
            "#[expect(\n    clippy::expect_used,\n    reason = \"a literal\",\n)]\nfn a() {}\n";
        let without = "#[allow(clippy::unwrap_used)]\nfn a() {}\n";
        let in_tests = "#[cfg(test)]\n#[allow(clippy::unwrap_used)]\nmod tests {}\n";
        assert!(unreasoned_panics(&file("a/src/a.rs", with)).is_empty());
        assert!(unreasoned_panics(&file("a/src/a.rs", spread)).is_empty());
        assert_eq!(lines(unreasoned_panics(&file("a/src/a.rs", without))), [1]);
        assert!(unreasoned_panics(&file("a/src/a.rs", in_tests)).is_empty());
        assert!(unreasoned_panics(&file("a/tests/a.rs", without)).is_empty());
    }

    #[test]
    fn sleeping_tests_say_why() {
        let text = "sleep(d);\nsleep(d); // the kernel has no event for it\nnanosleep(d);\n\"sleep(d)\";\n";
        assert_eq!(
            lines(sleeping_tests(&file("integration/tests/a.rs", text))),
            [1]
        );
        assert!(sleeping_tests(&file("a/src/a.rs", text)).is_empty());
        assert!(sleeping_tests(&file("integration/src/wait.rs", text)).is_empty());
        assert_eq!(
            lines(sleeping_tests(&file(
                "a/src/a.rs",
                &format!("sleep(d);\n#[cfg(test)]\n{text}")
            ))),
            [3]
        );
    }

    #[test]
    fn functions_are_short_but_for_tables_in_tests() {
        let long = format!("fn a() {{\n{}}}\n", "\n".repeat(80));
        assert_eq!(lines(long_functions(&file("a/src/a.rs", &long))), [1]);
        assert!(long_functions(&file("a/tests/a.rs", &long)).is_empty());
        assert!(long_functions(&file("a/src/a.rs", "fn a() {\n}\n")).is_empty());
    }
}
