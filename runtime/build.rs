//! Builds pause for the musl target, so that the runtime carries it inside.
//!
//! It is a static, non-PIE program built with the `pause` profile of the workspace: a few pages that the page cache
//! holds once for all pods. The nested cargo has a target directory of its own: the outer one is locked.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let manifest = PathBuf::from(env("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env("OUT_DIR"));
    let pause = manifest.join("../pause");
    for watched in ["src", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", pause.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let target = format!("{}-unknown-linux-musl", env("CARGO_CFG_TARGET_ARCH"));
    let target_dir = out.join("pause");
    let status = Command::new(env("CARGO"))
        .current_dir(&pause)
        .args([
            "build",
            "--quiet",
            "--bin",
            "pause",
            "--profile",
            "pause",
            "--target",
            &target,
            "--target-dir",
        ])
        .arg(&target_dir)
        .args(std::env::var_os("CARGO_FEATURE_NEXT_PROTOCOL").map(|_| "--features=next-protocol"))
        // What the outer build was asked for (coverage, clippy's wrapper) is not for this one.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env(
            "RUSTFLAGS",
            "-C relocation-model=static -C target-feature=+crt-static",
        )
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!(
            "building pause for {target} failed ({status}); is the target there? rustup target add {target}"
        ),
        Err(error) => panic!("cannot run cargo to build pause: {error}"),
    }
    println!(
        "cargo::rustc-env=PAUSE_BINARY={}",
        target_dir.join(target).join("pause/pause").display()
    );
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
