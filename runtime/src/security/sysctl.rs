//! Sysctls of a pod: only those that a namespace of the pod holds, written as they are to the one file.

use std::fmt;

/// No value is longer; the longest known is a list of port ranges.
const MAX_VALUE: usize = 4096;
/// Interface names have 15 bytes, so real names are far shorter.
const MAX_NAME: usize = 256;

/// Whose namespace the pod uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Its own.
    Pod,
    /// The host's: nothing in it may be changed.
    Host,
}

/// The namespaces that hold sysctls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// System V IPC and POSIX message queues.
    pub ipc: Owner,
    /// Network.
    pub net: Owner,
}

/// The namespace that a sysctl belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysctlNamespace {
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Network.
    Net,
}

impl fmt::Display for SysctlNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipc => "IPC",
            Self::Net => "network",
        })
    }
}

/// A checked sysctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Below /proc/sys, with slashes.
    path: String,
    /// As requested.
    pub value: String,
    /// Where it is to be written.
    pub namespace: SysctlNamespace,
}

impl Sysctl {
    /// The file below /proc/sys, such as `net/ipv4/ip_forward`.
    pub fn proc_path(&self) -> &str {
        &self.path
    }
}

/// A sysctl is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    /// Not a name.
    #[error("sysctl name {name:?} {reason}")]
    Name {
        /// As requested.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Not a value.
    #[error("value of sysctl {name} {reason}")]
    Value {
        /// The sysctl.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// It would change the whole machine.
    #[error(
        "sysctl {name} belongs to no namespace and would change the host; only kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* are possible"
    )]
    NotNamespaced {
        /// The sysctl.
        name: String,
    },
    /// Set through the pod's hostname.
    #[error("sysctl {name} is set by the pod's hostname, not as a sysctl")]
    Uts {
        /// The sysctl.
        name: String,
    },
    /// The pod uses the host's namespace.
    #[error("sysctl {name} needs a {namespace} namespace of the pod, but the pod uses the host's")]
    HostNamespace {
        /// The sysctl.
        name: String,
        /// The namespace that is missing.
        namespace: SysctlNamespace,
    },
}

/// Checks one sysctl. Names have dots or slashes as separators; the first of either decides which, and the other is then part of a
/// component (`net/ipv4/conf/eth0.100/forwarding` is `net.ipv4.conf.eth0/100.forwarding`, sysctl.d(5)).
///
/// # Errors
/// [`SysctlError`] says which rule is broken or which namespace is missing.
pub fn parse(name: &str, value: &str, namespaces: Namespaces) -> Result<Sysctl, SysctlError> {
    let path = proc_path(name)?;
    let name = || name.to_owned();
    let refuse = |reason| {
        Err(SysctlError::Value {
            name: name(),
            reason,
        })
    };
    if value.is_empty() {
        return refuse("is empty");
    }
    if value.len() > MAX_VALUE {
        return refuse("is too long");
    }
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return refuse("has a newline or another control character");
    }
    let (namespace, owner) = match namespace_of(&path) {
        Some(SysctlNamespace::Ipc) => (SysctlNamespace::Ipc, namespaces.ipc),
        Some(SysctlNamespace::Net) => (SysctlNamespace::Net, namespaces.net),
        None if matches!(path.as_str(), "kernel/hostname" | "kernel/domainname") => {
            return Err(SysctlError::Uts { name: name() });
        }
        None => return Err(SysctlError::NotNamespaced { name: name() }),
    };
    if owner == Owner::Host {
        return Err(SysctlError::HostNamespace {
            name: name(),
            namespace,
        });
    }
    Ok(Sysctl {
        path,
        value: value.to_owned(),
        namespace,
    })
}

fn proc_path(name: &str) -> Result<String, SysctlError> {
    let refuse = |reason| {
        Err(SysctlError::Name {
            name: name.chars().take(MAX_NAME).collect(),
            reason,
        })
    };
    if name.len() > MAX_NAME {
        return refuse("is too long");
    }
    // Upper case occurs in interface names.
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte))
    {
        return refuse("has a character other than letters, digits, '_', '-', '.' and '/'");
    }
    let path = match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name.chars().map(swap_separators).collect(),
        Some(_) => name.to_owned(),
        None => return refuse("names no file below /proc/sys"),
    };
    for component in path.split('/') {
        match component {
            "" => return refuse("has an empty component"),
            "." => return refuse("has a '.' component"),
            dots if dots.contains("..") => return refuse("has '..' in it"),
            _ => {}
        }
    }
    Ok(path)
}

fn swap_separators(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

fn namespace_of(path: &str) -> Option<SysctlNamespace> {
    // The list of the runtimes; shm_rmid_forced is a shm* too.
    const IPC: [&str; 9] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "kernel/msg_next_id",
    ];
    if IPC.contains(&path)
        || ["kernel/sem_next_id", "kernel/shm_next_id"].contains(&path)
        || path.starts_with("fs/mqueue/")
    {
        return Some(SysctlNamespace::Ipc);
    }
    path.starts_with("net/").then_some(SysctlNamespace::Net)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Namespaces = Namespaces {
        ipc: Owner::Pod,
        net: Owner::Pod,
    };

    #[test]
    fn accepts_namespaced_names() {
        for (name, path, namespace) in [
            (
                "net.ipv4.ip_forward",
                "net/ipv4/ip_forward",
                SysctlNamespace::Net,
            ),
            (
                "net/ipv4/ip_forward",
                "net/ipv4/ip_forward",
                SysctlNamespace::Net,
            ),
            (
                "net.ipv4.conf.eth0/100.forwarding",
                "net/ipv4/conf/eth0.100/forwarding",
                SysctlNamespace::Net,
            ),
            (
                "net/ipv4/conf/eth0.100/forwarding",
                "net/ipv4/conf/eth0.100/forwarding",
                SysctlNamespace::Net,
            ),
            (
                "kernel.shm_rmid_forced",
                "kernel/shm_rmid_forced",
                SysctlNamespace::Ipc,
            ),
            ("kernel.sem", "kernel/sem", SysctlNamespace::Ipc),
            (
                "fs.mqueue.msg_max",
                "fs/mqueue/msg_max",
                SysctlNamespace::Ipc,
            ),
        ] {
            let sysctl = parse(name, "1 2\t3", OWN).unwrap();
            assert_eq!(
                (sysctl.proc_path(), sysctl.namespace, sysctl.value.as_str()),
                (path, namespace, "1 2\t3")
            );
        }
    }

    #[test]
    fn refuses_names() {
        // `+` and `=`: CVE-2022-0811.
        for bad in [
            "",
            "net",
            "net..ipv4",
            "net/../kernel/core_pattern",
            "net.ipv4//x",
            ".net.x",
            "net.x.",
            "/net/x",
            "net.a+b",
            "net.a=b",
            "net.a b",
            "net.a\n",
            "net.\u{e9}",
            "net/./x",
        ] {
            assert!(
                matches!(parse(bad, "1", OWN), Err(SysctlError::Name { .. })),
                "{bad:?}"
            );
        }
        assert!(matches!(
            parse(&"net.a".repeat(1000), "1", OWN),
            Err(SysctlError::Name { .. })
        ));
        for host in [
            "kernel.core_pattern",
            "vm.swappiness",
            "fs.file-max",
            "kernel.shmx",
            "kernel.semx",
            "fs.mqueue",
            "network.x",
        ] {
            assert!(
                matches!(
                    parse(host, "1", OWN),
                    Err(SysctlError::NotNamespaced { .. })
                ),
                "{host}"
            );
        }
        for uts in ["kernel.hostname", "kernel/domainname"] {
            assert!(
                matches!(parse(uts, "x", OWN), Err(SysctlError::Uts { .. })),
                "{uts}"
            );
        }
    }

    #[test]
    fn refuses_values() {
        for bad in ["", "1\n2", "1\0", "\u{1b}"] {
            assert!(
                matches!(parse("net.x", bad, OWN), Err(SysctlError::Value { .. })),
                "{bad:?}"
            );
        }
        assert!(parse("net.x", &"1".repeat(MAX_VALUE + 1), OWN).is_err());
    }

    #[test]
    fn needs_the_pods_namespace() {
        let error = parse(
            "net.ipv4.ip_forward",
            "1",
            Namespaces {
                net: Owner::Host,
                ..OWN
            },
        )
        .unwrap_err();
        assert!(error.to_string().contains("network namespace"), "{error}");
        let error = parse(
            "kernel.sem",
            "1",
            Namespaces {
                ipc: Owner::Host,
                ..OWN
            },
        )
        .unwrap_err();
        assert!(error.to_string().contains("IPC namespace"), "{error}");
        assert!(
            parse(
                "kernel.sem",
                "1",
                Namespaces {
                    net: Owner::Host,
                    ..OWN
                }
            )
            .is_ok()
        );
    }

    proptest! {
        #[test]
        fn never_leaves_its_tree(name in "[a-z./_-]{0,40}", value in ".{0,20}") {
            if let Ok(sysctl) = parse(&name, &value, OWN) {
                let path = sysctl.proc_path();
                prop_assert!(["net/", "kernel/", "fs/mqueue/"].iter().any(|top| path.starts_with(top)));
                prop_assert!(path.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
            }
        }
    }
}
