//! The test programs whose work is counted.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{programs, workspace};

/// The crates whose work is counted. They are optimised for it, as a release is; what they depend on is so in all profiles,
/// and is compiled for the other tests anyway.
const CRATES: &[&str] = &[
    "image",
    "instructions",
    "netns",
    "pause",
    "runtime",
    "stream",
];
const OPTIMISED: &str = "opt-level=2";

/// The begin of the names of tests that count.
const PREFIX: &str = "instructions_of_";

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// Its crate's name.
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// Builds them.
pub(super) fn build() -> Result<Vec<Program>> {
    // The whole workspace, as for the other tests: another selection would have other features of dependencies.
    let mut cargo = workspace::cargo(["test", "--locked", "--workspace", "--no-run", "--lib"]);
    cargo.arg("--message-format=json-render-diagnostics");
    for name in CRATES {
        cargo.arg(format!(
            "--config=profile.dev.package.podwright-{name}.{OPTIMISED}"
        ));
    }
    // The units of code that the compiler optimises together are others in an incremental build.
    cargo.env("CARGO_INCREMENTAL", "0");
    let programs: Vec<_> = programs::output(&mut cargo)?
        .lines()
        .filter_map(program)
        .filter(|program| {
            let of_crate = |name: &&str| program.name == format!("podwright_{name}");
            CRATES.iter().any(of_crate)
        })
        .collect();
    if programs.len() != CRATES.len() {
        bail!("cargo has built {programs:?} only");
    }
    Ok(programs)
}

/// The program of a line of cargo's JSON messages; there are other lines. Our own paths have no character that JSON escapes.
fn program(line: &str) -> Option<Program> {
    let (_, rest) = line.split_once(r#""executable":""#)?;
    let path = PathBuf::from(rest.split('"').next()?);
    // Its name ends with a hash.
    let (name, _) = path.file_name()?.to_str()?.rsplit_once('-')?;
    Some(Program {
        name: name.to_owned(),
        path,
    })
}

impl Program {
    /// The names of its tests that count.
    pub(super) fn works(&self) -> Result<Vec<String>> {
        let mut list = Command::new(&self.path);
        let text = programs::output(list.args(["--list", "--format=terse", PREFIX]))?;
        let works = text.lines().map(|line| {
            let name = line.strip_suffix(": test").map(str::to_owned);
            name.with_context(|| format!("{} lists {line:?}", self.path.display()))
        });
        works.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"podwright_netns"},"executable":"/t/debug/deps/podwright_netns-0a1b2c","fresh":true}"#;
        let expected = Program {
            name: "podwright_netns".to_owned(),
            path: "/t/debug/deps/podwright_netns-0a1b2c".into(),
        };
        assert_eq!(program(line), Some(expected));
        assert_eq!(program(r#"{"executable":null}"#), None);
        assert_eq!(program("{}"), None);
    }
}
