//! Processes and namespaces.

use super::{Machine, Seen};
use crate::security::seccomp::KernelVersion;
use crate::user_namespaces::UserNamespaceSupport;

/// The first Linux that has all that is assumed and not looked for.
const OLDEST: KernelVersion = KernelVersion(5, 15);

pub(super) fn kernel(_: &Machine) -> Seen {
    let name = nix::sys::utsname::uname();
    let release = name.map_or_else(
        |errno| errno.to_string(),
        |name| name.release().to_string_lossy().into_owned(),
    );
    match KernelVersion::running() {
        running if running >= OLDEST => Seen::there("uname", release),
        KernelVersion(0, 0) => Seen::unknown("uname", release),
        _ => Seen::missing("uname", release),
    }
}

pub(super) fn namespaces(_: &Machine) -> Seen {
    const WANTED: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
    let path = |name: &&&str| std::path::Path::new("/proc/self/ns").join(name);
    let tried = format!("/proc/self/ns/{{{}}}", WANTED.join(","));
    match WANTED.iter().find(|name| !path(name).exists()) {
        None => Seen::there(tried, "all are there"),
        Some(name) => Seen::missing(tried, format!("there is no {name}")),
    }
}

pub(super) fn user_namespaces(machine: &Machine) -> Seen {
    let tried = format!(
        "a user namespace, and an idmapped mount of {}",
        machine.state_dir.display()
    );
    match UserNamespaceSupport::probe(&machine.state_dir).why_not() {
        None => Seen::there(tried, "both work"),
        Some(why) => Seen::missing(tried, why),
    }
}

pub(super) fn criu(_: &Machine) -> Seen {
    let tried = "criu in $PATH";
    match super::program("criu") {
        Some(program) => Seen::there(tried, program.display().to_string()),
        None => Seen::missing(tried, "not installed"),
    }
}
