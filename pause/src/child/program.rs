//! Finding and executing the program.

use super::identity::{PendingFilter, install};
use crate::fault::{Fault, OrFault};
use crate::report::Report;
use crate::sys::{Errno, c_string, event, file, process};
use podwright_pause::plan::Process;
use podwright_pause::protocol::{Failure, Stage};
use podwright_pause::wire::{Bytes, Wire};
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::BorrowedFd;

/// Where programs are looked for when the environment has no PATH, as execvp(3) does.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Executes the program. Telling pause first also checks that it is alive: had it ended before the parent-death signal was
/// set, that signal would never come.
pub(super) fn execute(
    process: &Process,
    filter: PendingFilter<'_>,
    report: BorrowedFd<'_>,
) -> Result<Infallible, Failure> {
    let at_program = |fault: Fault| fault.at(Stage::Program);
    let argv0 = process.argv.first().map_or(&[][..], |argv0| &argv0.0);
    let candidates = candidates(argv0, &process.env).map_err(at_program)?;
    let argv = c_strings(&process.argv).map_err(at_program)?;
    let env = c_strings(&process.env).map_err(at_program)?;
    file::write_value(report, &Report::Executing.to_bytes())
        .or_fault("write", b"pause")
        .map_err(at_program)?;
    event::unblock_signals()
        .or_fault("rt_sigprocmask", b"")
        .map_err(at_program)?;
    install(filter.0).map_err(|fault| fault.at(Stage::Identity))?;
    let mut worst = Errno(libc::ENOENT);
    for candidate in &candidates {
        match process::execute(candidate, &argv, &env) {
            Errno(libc::ENOENT | libc::ENOTDIR) => {}
            // Found, but not to be executed: another directory may have one that is (execvp(3)).
            Errno(libc::EACCES) => worst = Errno(libc::EACCES),
            errno => {
                worst = errno;
                break;
            }
        }
    }
    Err(Fault::new("execve", argv0, worst.0).at(Stage::Program))
}

/// The paths to try, in order.
fn candidates(argv0: &[u8], env: &[Bytes]) -> Result<Vec<CString>, Fault> {
    if argv0.is_empty() || argv0.contains(&b'/') {
        return Ok(vec![c_string(argv0).or_fault("execve", argv0)?]);
    }
    let path = env
        .iter()
        .find_map(|entry| entry.0.strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH);
    // An empty entry would mean the working directory; it is passed over, for it is hardly ever meant.
    path.split(|&byte| byte == b':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| c_string(&[dir, b"/", argv0].concat()).or_fault("execve", argv0))
        .collect()
}

fn c_strings(strings: &[Bytes]) -> Result<Vec<CString>, Fault> {
    strings
        .iter()
        .map(|string| c_string(&string.0).or_fault("execve", &string.0))
        .collect()
}
