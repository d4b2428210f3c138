//! Limits of the machine that many pods come to.

use nix::sys::resource::{Resource, getrlimit};

use super::{Machine, Seen};

/// A daemon and its pauses, with some thousand pods.
const DESCRIPTORS: u64 = 65_536;

/// Some hundred tasks for each of a hundred pods.
const PROCESSES: u64 = 32_768;

/// The most that one pipe of a log may hold; pause asks for it.
const LOG_PIPE: u64 = 1 << 20;

pub(super) fn descriptors(_: &Machine) -> Seen {
    let tried = "RLIMIT_NOFILE, the hard limit";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= DESCRIPTORS => Seen::there(tried, hard.to_string()),
        Ok((_, hard)) => Seen::missing(tried, format!("{hard}; {DESCRIPTORS} are wanted")),
        Err(errno) => Seen::unknown(tried, errno.to_string()),
    }
}

pub(super) fn processes(_: &Machine) -> Seen {
    at_least("/proc/sys/kernel/pid_max", PROCESSES)
}

pub(super) fn log_pipes(_: &Machine) -> Seen {
    at_least("/proc/sys/fs/pipe-max-size", LOG_PIPE)
}

fn at_least(path: &str, wanted: u64) -> Seen {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Seen::unknown(path, error.to_string()),
    };
    match text.trim().parse::<u64>() {
        Ok(value) if value >= wanted => Seen::there(path, value.to_string()),
        Ok(value) => Seen::missing(path, format!("{value}; {wanted} are wanted")),
        Err(_) => Seen::unknown(path, text.trim()),
    }
}
