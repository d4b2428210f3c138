//! A tiny root file system with one static program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The compiled `box.c`, made once per test binary.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let out =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("box-{}", std::process::id()));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/box.c");
        let status = Command::new("cc")
            .args(["-static", "-O2", "-w", "-o"])
            .arg(&out)
            .arg(source)
            .status()
            .unwrap();
        assert!(status.success(), "box.c compiles");
        // All test binaries use one name; whichever is there last is as good as the others.
        let shared = out.with_file_name("box");
        std::fs::rename(out, &shared).unwrap();
        shared
    })
}

/// Makes the layer, upper, work and mount directories below `dir`.
pub fn make(dir: &Path) -> PathBuf {
    for name in [
        "layers/base/bin",
        "layers/base/proc",
        "layers/base/etc",
        "layers/base/tmp",
        "upper",
        "work",
        "merged",
    ] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
    }
    let inside = dir.join("layers/base/bin/box");
    std::fs::copy(program(), &inside).unwrap();
    std::fs::write(dir.join("layers/base/etc/secret"), "secret\n").unwrap();
    dir.join("layers/base")
}
