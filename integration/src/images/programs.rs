//! The programs that no package has: three of C, compiled statically, and a script.

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

/// Succeeds, as a probe does that finds all well. It has nothing of a C library but this call: where the start of a program with
/// glibc executes cpuid, a virtual machine's hypervisor is asked 40 times, and that would be most of what a probe costs.
pub(super) const PROBE: &str = r#"
#include <unistd.h>
void _start(void) { _exit(0); }
"#;

/// Of pgrep(1) what tests and critest use, for a shell of busybox.
pub(super) const PGREP: &str = r#"#!/bin/sh
# pgrep [-f] [-a] [-c] PATTERN
from=comm all=0 count=0
while getopts fac option; do
    case $option in
        f) from=cmdline ;;
        a) all=1 ;;
        c) count=1 ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
pattern=$1
# Those that were there before this script's own children.
set -- /proc/[0-9]*
for process; do
    pid=${process#/proc/}
    if [ "$pid" != $$ ] && text=$(tr '\0' ' ' < "$process/$from"); then
        echo "$pid $text"
    fi
done 2>/dev/null | awk -v pattern="$pattern" -v all=$all -v count=$count '
    { pid = $1; sub(/^[0-9]+ /, "") }
    $0 ~ pattern { found++; if (!count) print all ? pid " " $0 : pid }
    END { if (count) print found + 0; exit !found }'
"#;

/// How a program begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// With the C library, at `main`.
    Library,
    /// At `_start`.
    Bare,
}

/// The static executable of the C program `source`.
pub(super) fn compile(source: &str, start: Start, scratch: &Path) -> Result<Vec<u8>> {
    let (file, program) = (scratch.join("program.c"), scratch.join("program"));
    fs::write(&file, source).with_context(|| format!("writing {}", file.display()))?;
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-Os", "-s", "-o"]);
    compiler.arg(&program).arg(&file);
    match start {
        Start::Library => {}
        Start::Bare => {
            compiler.arg("-nostartfiles");
        }
    }
    run(&mut compiler).context("compiling a test program (package gcc, with libc6-dev)")?;
    fs::read(&program).with_context(|| format!("reading {}", program.display()))
}
