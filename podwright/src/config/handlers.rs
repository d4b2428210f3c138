//! `[pods]`, and the `[handlers]` that differ from it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::str::FromStr;

use podwright_runtime::cgroup::CgroupPath;
use podwright_runtime::config::{self, Config, DefaultSeccomp, PrivilegedDevices};
use serde::Deserialize;

use super::settings::set;
use super::values::{AbsolutePath, ValueError, from_text};

/// The kernel's own limit on process ids (proc_sys_kernel(5), `pid_max`).
const MOST_PIDS: u32 = 4_194_304;
/// RuntimeClass handlers are DNS labels (RFC 1123).
const LONGEST_NAME: usize = 63;

/// `[pods]`: what pods and containers get as far as their requests leave it open
#[derive(Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Pods {
    /// Whether pods have user namespaces of their own
    #[arg(long, value_name = "POLICY")]
    user_namespaces: Option<UserNamespaces>,
    /// Seccomp profile of containers whose request has none: Unconfined, RuntimeDefault or a file
    #[arg(long = "default-seccomp", value_name = "PROFILE")]
    #[serde(deserialize_with = "from_text")]
    seccomp: Option<Seccomp>,
    /// The most tasks of each container [default: no limit of its own]
    #[arg(long, value_name = "COUNT")]
    pids_limit: Option<PidsLimit>,
    /// Whether privileged containers have the host's devices only as far as they name them
    #[arg(long, value_name = "BOOL")]
    privileged_without_host_devices: Option<bool>,
}

/// `[handlers.NAME]`: sections of its own, which begin with the general ones' values
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HandlerSettings {
    pods: Pods,
    cgroup: HandlerCgroup,
}

/// `[handlers.NAME.cgroup]`: the driver is one for all.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HandlerCgroup {
    #[serde(deserialize_with = "from_text")]
    root: Option<CgroupPath>,
}

/// The handlers by name.
pub(crate) type Handlers = BTreeMap<HandlerName, HandlerSettings>;

/// Puts the handlers onto the configuration, whose other parts are complete.
pub(crate) fn apply(handlers: Handlers, config: &mut Config) {
    for (name, settings) in handlers {
        let mut handler = config::Handler {
            pods: config.pods.clone(),
            cgroup_root: config.cgroup_root.clone(),
        };
        settings.pods.apply(&mut handler.pods);
        set::<CgroupPath>(&mut handler.cgroup_root, settings.cgroup.root);
        config.handlers.insert(name.0, handler);
    }
}

impl Pods {
    pub(crate) fn apply(self, pods: &mut config::Pods) {
        set(
            &mut pods.user_namespaces,
            self.user_namespaces.map(UserNamespaces::policy),
        );
        set(&mut pods.seccomp, self.seccomp.map(|seccomp| seccomp.0));
        set(
            &mut pods.pids_limit,
            self.pids_limit.map(|limit| Some(limit.0)),
        );
        set(
            &mut pods.privileged_devices,
            self.privileged_without_host_devices
                .map(|without| match without {
                    true => PrivilegedDevices::Requested,
                    false => PrivilegedDevices::Host,
                }),
        );
    }
}

/// A policy on user namespaces.
#[derive(Debug, Clone, Copy, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum UserNamespaces {
    /// As each pod asks.
    Allowed,
    /// Pods that ask for one are refused.
    Refused,
    /// Pods that do not ask for one are refused.
    Required,
}

impl UserNamespaces {
    fn policy(self) -> config::UserNamespaces {
        match self {
            Self::Allowed => config::UserNamespaces::Allowed,
            Self::Refused => config::UserNamespaces::Refused,
            Self::Required => config::UserNamespaces::Required,
        }
    }
}

/// A seccomp profile, as CRI names them, or a file's path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seccomp(DefaultSeccomp);

impl FromStr for Seccomp {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(Self(match text {
            "Unconfined" => DefaultSeccomp::Unconfined,
            "RuntimeDefault" => DefaultSeccomp::RuntimeDefault,
            path if path.starts_with('/') => {
                DefaultSeccomp::Localhost(path.parse::<AbsolutePath>()?.into_path())
            }
            other => {
                return Err(ValueError::Seccomp {
                    profile: other.to_owned(),
                });
            }
        }))
    }
}

/// A number of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
struct PidsLimit(NonZeroU32);

impl TryFrom<u32> for PidsLimit {
    type Error = ValueError;

    fn try_from(limit: u32) -> Result<Self, ValueError> {
        NonZeroU32::new(limit)
            .filter(|limit| limit.get() <= MOST_PIDS)
            .map(Self)
            .ok_or(ValueError::PidsLimit {
                limit,
                most: MOST_PIDS,
            })
    }
}

impl FromStr for PidsLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let limit: u32 = text
            .parse()
            .map_err(|error| format!("{text:?} is no number of tasks: {error}"))?;
        limit
            .try_into()
            .map_err(|error: ValueError| error.to_string())
    }
}

/// A name that a RuntimeClass can have in `handler`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HandlerName(String);

impl TryFrom<String> for HandlerName {
    type Error = ValueError;

    fn try_from(name: String) -> Result<Self, ValueError> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let label = !name.is_empty()
            && name.len() <= LONGEST_NAME
            && name.bytes().all(inner)
            && !name.starts_with('-')
            && !name.ends_with('-');
        match label {
            true => Ok(Self(name)),
            false => Err(ValueError::HandlerName { name }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn handler_names_are_dns_labels() {
        let longest = "h".repeat(LONGEST_NAME);
        for (name, accepted) in [
            ("a", true),
            ("kata-2", true),
            (longest.as_str(), true),
            (&format!("{longest}h"), false),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
            ("a.b", false),
            ("a b", false),
        ] {
            assert_eq!(
                HandlerName::try_from(name.to_owned()).is_ok(),
                accepted,
                "{name:?}"
            );
        }
    }

    #[test]
    fn seccomp_profiles_are_names_or_files() {
        let parsed = |text: &str| text.parse::<Seccomp>().map(|seccomp| seccomp.0);
        assert_eq!(parsed("Unconfined"), Ok(DefaultSeccomp::Unconfined));
        assert_eq!(parsed("RuntimeDefault"), Ok(DefaultSeccomp::RuntimeDefault));
        assert_eq!(
            parsed("/etc/p.json"),
            Ok(DefaultSeccomp::Localhost("/etc/p.json".into()))
        );
        for bad in ["", "unconfined", "p.json", "/a/../b"] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pids_limits_have_a_range() {
        for (limit, accepted) in [
            (0, false),
            (1, true),
            (MOST_PIDS, true),
            (MOST_PIDS + 1, false),
        ] {
            assert_eq!(PidsLimit::try_from(limit).is_ok(), accepted, "{limit}");
        }
    }
}
