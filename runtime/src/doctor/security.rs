//! What confines containers.

use std::fs;

use super::{Machine, Seen};
use crate::error::chain;
use crate::security::apparmor::{AppArmor, AppArmorError};
use crate::security::selinux::Selinux;

/// See seccomp(2), "/proc interfaces".
const ACTIONS: &str = "/proc/sys/kernel/seccomp/actions_avail";

fn action(names: &[&str]) -> Seen {
    match fs::read_to_string(ACTIONS) {
        Ok(text) => {
            let has = |name: &&&str| text.split_whitespace().any(|word| word == **name);
            match names.iter().find(|name| !has(name)) {
                None => Seen::there(ACTIONS, text.trim()),
                Some(name) => Seen::missing(ACTIONS, format!("no {name}: {}", text.trim())),
            }
        }
        Err(error) => Seen::missing(ACTIONS, error.to_string()),
    }
}

pub(super) fn seccomp(_: &Machine) -> Seen {
    action(&["errno", "kill_process", "allow"])
}

pub(super) fn seccomp_log(_: &Machine) -> Seen {
    action(&["log"])
}

/// The daemon loads the profile when it starts, if it can; nothing is loaded here.
pub(super) fn apparmor(_: &Machine) -> Seen {
    let tried = "AppArmor, and the daemon's default profile in it";
    match AppArmor::seen().default_profile() {
        Ok(Some(name)) => Seen::there(tried, format!("enabled, and {name} is loaded")),
        Ok(None) => Seen::missing(tried, "AppArmor is not enabled"),
        Err(AppArmorError::NoDefault { .. }) => match AppArmor::parser() {
            Some(parser) => {
                let parser = parser.display();
                Seen::there(tried, format!("enabled; the daemon loads it with {parser}"))
            }
            None => Seen::missing(
                tried,
                "the profile is not loaded, and there is no apparmor_parser",
            ),
        },
        Err(error) => Seen::missing(tried, chain(&error)),
    }
}

pub(super) fn selinux(_: &Machine) -> Seen {
    let tried = "/sys/fs/selinux/enforce, and the policy's lxc_contexts";
    let machine = Selinux::of_this_machine();
    match (machine.failure(), machine.process_label()) {
        (Some(why), _) => Seen::missing(tried, why),
        (None, Some(label)) => Seen::there(tried, label),
        (None, None) => Seen::missing(tried, "SELinux is not enabled"),
    }
}
