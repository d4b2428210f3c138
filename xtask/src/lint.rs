//! `cargo xtask lint`: what can be said about the code without running it.

use std::process::Command;

use anyhow::Result;

use crate::phase::Phases;
use crate::{programs, results, setup, tidy, workspace};

/// Runs every check, also after one has failed.
pub(crate) fn run() -> Result<()> {
    let mut phases = Phases::default();
    phases.check("set up", || setup::run(setup::Need::Build));
    phases.check("fmt", || {
        programs::run(&mut workspace::cargo(["fmt", "--all", "--check"]))
    });
    phases.check("tidy", tidy::run);
    phases.check("chart", results::check);
    phases.check("clippy", || {
        programs::run(&mut workspace::cargo([
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    });
    phases.check("doc", || {
        let mut doc = workspace::cargo([
            "doc",
            "--locked",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ]);
        programs::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    });
    phases.check("deny", || {
        let mut deny = Command::new(setup::cargo_deny()?);
        deny.args(["--locked", "check", "bans", "licenses", "sources"])
            .current_dir(workspace::root());
        programs::run(&mut deny)
    });
    phases.finish(workspace::is_ci())
}
