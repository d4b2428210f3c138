//! The two programs that no package has, compiled statically from C.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::packages::run;

/// Waits for ever, and ends at SIGTERM and SIGINT: the pause program that other runtimes put into
/// each pod.
pub(super) const PAUSE: &str = r#"
#include <signal.h>
#include <unistd.h>
static void end(int number) { (void)number; _exit(0); }
int main(void) {
    signal(SIGINT, end);
    signal(SIGTERM, end);
    signal(SIGCHLD, SIG_IGN);
    for (;;) pause();
}
"#;

/// Tells whom the kernel made it: with set-user-ID root on its file, 0 unless no_new_privs is set.
pub(super) const EFFECTIVE_UID: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\n", (int)geteuid()); return 0; }
"#;

/// The static executable of the C program `source`.
pub(super) fn compile(source: &str, scratch: &Path) -> Result<Vec<u8>> {
    let (file, program) = (scratch.join("program.c"), scratch.join("program"));
    fs::write(&file, source).with_context(|| format!("writing {}", file.display()))?;
    run(Command::new("cc")
        .args(["-static", "-Os", "-s", "-o"])
        .arg(&program)
        .arg(&file))
    .context("compiling a test program (package gcc, with libc6-dev)")?;
    fs::read(&program).with_context(|| format!("reading {}", program.display()))
}
