//! Cargo's tools, in the target directory so that nothing of the user's is touched.

use std::path::PathBuf;

use anyhow::Result;

use crate::{programs, workspace};

const CARGO_DENY: &str = "0.20.2";

/// The path of cargo-deny, installed when absent; that takes minutes, once.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let root = workspace::tools().join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.exists() {
        println!("installing cargo-deny {CARGO_DENY}");
        let mut cargo = workspace::cargo([
            "install",
            "--locked",
            "--version",
            CARGO_DENY,
            "cargo-deny",
            "--root",
        ]);
        cargo
            .arg(&root)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off");
        // Everything else of the workspace is built there, too; its artifacts of release would be compiled twice.
        cargo.env("CARGO_TARGET_DIR", workspace::tools().join("build"));
        programs::run(&mut cargo)?;
        std::fs::remove_dir_all(workspace::tools().join("build"))?;
    }
    Ok(program)
}
