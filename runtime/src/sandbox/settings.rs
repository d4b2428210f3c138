//! A sandbox's request, checked: what the rest of the runtime relies on.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Component, Path};

use podwright_cri_api::v1::{self as cri, NamespaceMode, PodSandboxConfig};
use podwright_netns::{PortMapping, Protocol};
use podwright_pause::mapping::IdMappings;

use super::user_namespace;
use crate::error::{CallError, Context};
use crate::index::shown;
use crate::security::sysctl::{self, Sysctl};

/// Whose network the pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkMode {
    Pod,
    Host,
}

/// Whose System V IPC and POSIX queues the pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IpcMode {
    Pod,
    Host,
}

/// Whose processes a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PidMode {
    /// Those of all the pod's containers.
    Pod,
    /// Its own.
    Container,
    /// The host's.
    Host,
    /// Those of another container, by its id.
    Target(String),
}

/// The checked request.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) network: NetworkMode,
    pub(crate) ipc: IpcMode,
    pub(crate) pid: PidMode,
    pub(crate) ports: Vec<PortMapping>,
    pub(crate) sysctls: Vec<Sysctl>,
    /// The pod's user namespace, if that is not the host's.
    pub(crate) user_namespace: Option<IdMappings>,
}

/// Names end in file names, environment variables and headers.
const LONGEST_NAME: usize = 1024;

impl Settings {
    /// Checks a request as far as it can be checked without side effects.
    pub(crate) fn check(config: &PodSandboxConfig) -> Result<Self, CallError> {
        check_metadata(config)?;
        check_hostname(&config.hostname)?;
        check_log_directory(&config.log_directory)?;
        let context = config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref());
        let options = context
            .and_then(|context| context.namespace_options.clone())
            .unwrap_or_default();
        let network = match mode("network", options.network)? {
            NamespaceMode::Node => NetworkMode::Host,
            NamespaceMode::Pod => NetworkMode::Pod,
            other => return Err(unfit("network", other)),
        };
        let ipc = match mode("IPC", options.ipc)? {
            NamespaceMode::Node => IpcMode::Host,
            NamespaceMode::Pod => IpcMode::Pod,
            other => return Err(unfit("IPC", other)),
        };
        let pid = pid_mode(options.pid, "")?;
        let user_namespace = user_namespace::requested(options.userns_options.as_ref())?;
        if user_namespace.is_some() {
            user_namespace::check_companions(network, ipc, &pid)?;
        }
        let owner = |host| {
            if host {
                sysctl::Owner::Host
            } else {
                sysctl::Owner::Pod
            }
        };
        let namespaces = sysctl::Namespaces {
            ipc: owner(ipc == IpcMode::Host),
            net: owner(network == NetworkMode::Host),
        };
        let sysctls = config.linux.iter().flat_map(|linux| &linux.sysctls);
        let sysctls = sysctls
            .map(|(name, value)| sysctl::parse(name, value, namespaces))
            .collect::<Result<_, _>>();
        let sysctls = sysctls.invalid(|| "cannot set the pod's sysctls".into())?;
        Ok(Self {
            network,
            ipc,
            pid,
            ports: ports(config)?,
            sysctls,
            user_namespace,
        })
    }
}

/// The PID mode of a namespace option; a target is only there for containers.
pub(crate) fn pid_mode(value: i32, target: &str) -> Result<PidMode, CallError> {
    match mode("PID", value)? {
        NamespaceMode::Pod => Ok(PidMode::Pod),
        NamespaceMode::Container => Ok(PidMode::Container),
        NamespaceMode::Node => Ok(PidMode::Host),
        NamespaceMode::Target if target.is_empty() => Err(CallError::invalid(
            "the PID namespace mode is TARGET, but target_id names no container",
        )),
        NamespaceMode::Target => Ok(PidMode::Target(target.into())),
    }
}

pub(super) fn mode(namespace: &str, value: i32) -> Result<NamespaceMode, CallError> {
    NamespaceMode::try_from(value)
        .map_err(|_| CallError::invalid(format!("{value} is no mode of the {namespace} namespace")))
}

pub(super) fn unfit(namespace: &str, mode: NamespaceMode) -> CallError {
    CallError::invalid(format!(
        "a pod's {namespace} namespace cannot have mode {}: POD and NODE are possible",
        mode.as_str_name()
    ))
}

fn check_metadata(config: &PodSandboxConfig) -> Result<(), CallError> {
    let metadata = config
        .metadata
        .as_ref()
        .ok_or_else(|| CallError::invalid("the pod sandbox config has no metadata"))?;
    for (field, value) in [
        ("name", &metadata.name),
        ("namespace", &metadata.namespace),
        ("uid", &metadata.uid),
    ] {
        check_name(&format!("the pod's {field}"), value)?;
    }
    Ok(())
}

/// A name that can be shown, stored and reserved.
pub(crate) fn check_name(what: &str, value: &str) -> Result<(), CallError> {
    if value.is_empty() {
        return Err(CallError::invalid(format!("{what} is empty")));
    }
    if value.len() > LONGEST_NAME {
        return Err(CallError::invalid(format!(
            "{what} is {} bytes long, the limit is {LONGEST_NAME}: '{}'",
            value.len(),
            shown(value)
        )));
    }
    if value.chars().any(char::is_control) {
        return Err(CallError::invalid(format!(
            "{what} holds a control character: {:?}",
            shown(value)
        )));
    }
    Ok(())
}

fn check_log_directory(directory: &str) -> Result<(), CallError> {
    let path = Path::new(directory);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if !directory.is_empty() && (!path.is_absolute() || climbs || directory.contains('\0')) {
        let shown = shown(directory);
        return Err(CallError::invalid(format!(
            "the log directory '{shown}' is not an absolute path without '..'"
        )));
    }
    Ok(())
}

fn check_hostname(hostname: &str) -> Result<(), CallError> {
    // sethostname(2): 64 bytes. Control characters would add lines to the files made from it.
    if hostname.len() > 64 {
        return Err(CallError::invalid(format!(
            "the hostname is {} bytes long, Linux allows 64: '{}'",
            hostname.len(),
            shown(hostname)
        )));
    }
    if hostname
        .chars()
        .any(|c| c.is_control() || c.is_whitespace())
    {
        return Err(CallError::invalid(format!(
            "the hostname holds a space or control character: {hostname:?}"
        )));
    }
    Ok(())
}

fn ports(config: &PodSandboxConfig) -> Result<Vec<PortMapping>, CallError> {
    // A mapping without a host port only documents the container's.
    config
        .port_mappings
        .iter()
        .filter(|mapping| mapping.host_port != 0)
        .map(port)
        .collect()
}

fn port(mapping: &cri::PortMapping) -> Result<PortMapping, CallError> {
    let number = |what, value: i32| {
        let port = u16::try_from(value).ok().and_then(NonZeroU16::new);
        port.ok_or_else(|| CallError::invalid(format!("{what} {value} is no port: 1 to 65535 are")))
    };
    let protocol = match cri::Protocol::try_from(mapping.protocol) {
        Ok(cri::Protocol::Tcp) => Protocol::Tcp,
        Ok(cri::Protocol::Udp) => Protocol::Udp,
        Ok(cri::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => {
            return Err(CallError::invalid(format!(
                "{} is no protocol of a port mapping",
                mapping.protocol
            )));
        }
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(text.parse::<IpAddr>().map_err(|_| {
            CallError::invalid(format!("the host IP '{}' is no address", shown(text)))
        })?),
    };
    Ok(PortMapping {
        protocol,
        container_port: number("container port", mapping.container_port)?,
        host_port: number("host port", mapping.host_port)?,
        // The unspecified address means all addresses, as for bind(2).
        host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn config() -> PodSandboxConfig {
        let metadata = cri::PodSandboxMetadata {
            name: "web".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt: 0,
        };
        PodSandboxConfig {
            metadata: Some(metadata),
            ..Default::default()
        }
    }

    #[test]
    fn a_plain_pod_has_its_own_network_and_ipc() {
        let settings = Settings::check(&config()).unwrap();
        assert_eq!(
            (settings.network, settings.ipc, settings.pid),
            (NetworkMode::Pod, IpcMode::Pod, PidMode::Pod)
        );
    }

    #[test]
    fn wrong_requests_are_named() {
        let mapping = |container_port, host_port, host_ip: &str| cri::PortMapping {
            container_port,
            host_port,
            host_ip: host_ip.into(),
            protocol: 0,
        };
        let cases: Vec<(PodSandboxConfig, &str)> = vec![
            (PodSandboxConfig::default(), "metadata"),
            (
                PodSandboxConfig {
                    hostname: "a\nb".into(),
                    ..config()
                },
                "control character",
            ),
            (
                PodSandboxConfig {
                    hostname: "h".repeat(65),
                    ..config()
                },
                "64",
            ),
            (
                PodSandboxConfig {
                    port_mappings: vec![mapping(0, 80, "")],
                    ..config()
                },
                "container port 0",
            ),
            (
                PodSandboxConfig {
                    port_mappings: vec![mapping(80, 65536, "")],
                    ..config()
                },
                "host port 65536",
            ),
            (
                PodSandboxConfig {
                    port_mappings: vec![mapping(80, 80, "localhost")],
                    ..config()
                },
                "localhost",
            ),
        ];
        for (config, expected) in cases {
            let error = Settings::check(&config).unwrap_err();
            assert_eq!(error.kind, Kind::InvalidArgument);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_name_of_64_kib_is_refused_in_a_short_message() {
        let mut config = config();
        config.metadata.as_mut().unwrap().name = "n".repeat(64 * 1024);
        let error = Settings::check(&config).unwrap_err().to_string();
        assert!(
            error.contains("65536 bytes") && error.len() < 300,
            "{error}"
        );
    }

    #[test]
    fn mappings_without_a_host_port_are_passed_over_and_any_address_is_none() {
        let mapping = |host_port, host_ip: &str| cri::PortMapping {
            container_port: 80,
            host_port,
            host_ip: host_ip.into(),
            protocol: 1,
        };
        let config = PodSandboxConfig {
            port_mappings: vec![
                mapping(0, ""),
                mapping(8080, "0.0.0.0"),
                mapping(8081, "::1"),
            ],
            ..config()
        };
        let ports = Settings::check(&config).unwrap().ports;
        assert_eq!(
            ports
                .iter()
                .map(|port| (port.host_port.get(), port.host_ip))
                .collect::<Vec<_>>(),
            [(8080, None), (8081, "::1".parse().ok())]
        );
    }
}
