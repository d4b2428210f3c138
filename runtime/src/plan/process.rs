//! Who a container's process is and what it may do: capabilities, seccomp, devices.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci_spec::runtime::{
    Capability, LinuxCapabilities, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType,
};
use podwright_cri_api::v1::security_profile::ProfileType;
use podwright_cri_api::v1::{ContainerConfig, LinuxContainerSecurityContext, SecurityProfile};

use crate::config::{DefaultSeccomp, PrivilegedDevices};
use crate::error::{CallError, Context};
use crate::index::shown;
use crate::security::capabilities::{self, Capabilities, CapabilityRequest, CapabilitySet};
use crate::security::{Privilege, devices};

/// Whether the container is privileged.
pub(crate) fn privilege(context: &LinuxContainerSecurityContext) -> Privilege {
    if context.privileged {
        Privilege::Privileged
    } else {
        Privilege::Confined
    }
}

/// The capability sets of a request.
pub(crate) fn capability_sets(
    context: &LinuxContainerSecurityContext,
    available: CapabilitySet,
) -> Result<Capabilities, CallError> {
    let asked = context.capabilities.clone().unwrap_or_default();
    let request = CapabilityRequest {
        add: &asked.add_capabilities,
        drop: &asked.drop_capabilities,
        add_ambient: &asked.add_ambient_capabilities,
    };
    capabilities::resolve(privilege(context), &request, available)
        .invalid(|| "cannot give the container its capabilities".into())
}

/// As the OCI spec has them.
pub(super) fn oci_capabilities(sets: &Capabilities) -> LinuxCapabilities {
    let named = |set: CapabilitySet| {
        Some(
            set.names()
                .iter()
                .filter_map(|name| name.trim_start_matches("CAP_").parse::<Capability>().ok())
                .collect(),
        )
    };
    let mut out = LinuxCapabilities::default();
    out.set_bounding(named(sets.bounding));
    out.set_effective(named(sets.effective));
    out.set_permitted(named(sets.permitted));
    out.set_inheritable(named(sets.inheritable));
    out.set_ambient(named(sets.ambient));
    out
}

/// Which system calls the container may make.
pub(crate) enum SeccompChoice {
    Unconfined,
    RuntimeDefault,
    /// A file on the node.
    Localhost(String),
}

/// The seccomp profile of a request, or the runtime handler's when it has none.
pub(crate) fn seccomp_choice(
    context: &LinuxContainerSecurityContext,
    default: &DefaultSeccomp,
) -> Result<SeccompChoice, CallError> {
    if context.privileged {
        return Ok(SeccompChoice::Unconfined);
    }
    match &context.seccomp {
        None => legacy_seccomp(context, default),
        Some(SecurityProfile {
            profile_type,
            localhost_ref,
        }) => match ProfileType::try_from(*profile_type) {
            Ok(ProfileType::RuntimeDefault) => Ok(SeccompChoice::RuntimeDefault),
            Ok(ProfileType::Unconfined) => Ok(SeccompChoice::Unconfined),
            Ok(ProfileType::Localhost) if Path::new(localhost_ref).is_absolute() => {
                Ok(SeccompChoice::Localhost(localhost_ref.clone()))
            }
            Ok(ProfileType::Localhost) => Err(CallError::invalid(format!(
                "the seccomp profile '{}' is not an absolute path",
                shown(localhost_ref)
            ))),
            Err(_) => Err(CallError::invalid(format!(
                "{profile_type} is no type of a seccomp profile"
            ))),
        },
    }
}

#[expect(deprecated, reason = "older kubelets send the profile in this field")]
fn legacy_seccomp(
    context: &LinuxContainerSecurityContext,
    default: &DefaultSeccomp,
) -> Result<SeccompChoice, CallError> {
    match context.seccomp_profile_path.as_str() {
        "" => Ok(match default {
            DefaultSeccomp::Unconfined => SeccompChoice::Unconfined,
            DefaultSeccomp::RuntimeDefault => SeccompChoice::RuntimeDefault,
            DefaultSeccomp::Localhost(path) => {
                SeccompChoice::Localhost(path.to_string_lossy().into_owned())
            }
        }),
        "runtime/default" | "docker/default" => Ok(SeccompChoice::RuntimeDefault),
        "unconfined" => Ok(SeccompChoice::Unconfined),
        path => match path.strip_prefix("localhost/") {
            Some(file) if Path::new(file).is_absolute() => {
                Ok(SeccompChoice::Localhost(file.into()))
            }
            _ => Err(CallError::invalid(format!(
                "'{}' is no seccomp profile",
                shown(path)
            ))),
        },
    }
}

/// The devices that the container gets besides the default ones, and the rules of its device cgroup.
pub(super) fn container_devices(
    config: &ContainerConfig,
    privilege: Privilege,
    of_host: PrivilegedDevices,
) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>), CallError> {
    let all = privilege == Privilege::Privileged && of_host == PrivilegedDevices::Host;
    let mut rules = devices::rules(if all {
        Privilege::Privileged
    } else {
        Privilege::Confined
    });
    let mut nodes = Vec::new();
    if all {
        host_devices(Path::new("/dev"), &mut nodes);
    }
    for device in &config.devices {
        let access = if device.permissions.is_empty() {
            "rwm"
        } else {
            &device.permissions
        };
        if !access.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(CallError::invalid(format!(
                "'{}' are no device permissions: r, w and m are",
                shown(access)
            )));
        }
        for node in requested_devices(&device.host_path, &device.container_path)? {
            let mut rule = LinuxDeviceCgroup::default();
            rule.set_allow(true);
            rule.set_typ(Some(node.typ()));
            rule.set_major(Some(node.major()));
            rule.set_minor(Some(node.minor()));
            rule.set_access(Some(access.into()));
            rules.push(rule);
            nodes.push(node);
        }
    }
    Ok((nodes, rules))
}

/// A device of the host, or all devices of a directory, at the places below the container's path that they have there.
fn requested_devices(host_path: &str, container_path: &str) -> Result<Vec<LinuxDevice>, CallError> {
    let host = Path::new(host_path);
    let metadata = std::fs::metadata(host)
        .invalid(|| format!("cannot give the device '{}'", shown(host_path)))?;
    let inside = super::mounts::inside_path(if container_path.is_empty() {
        host_path
    } else {
        container_path
    })?;
    if !metadata.is_dir() {
        let node = device_node(&inside, &metadata);
        let node =
            node.ok_or_else(|| CallError::invalid(format!("'{}' is no device", shown(host_path))))?;
        return Ok(vec![node]);
    }
    let mut nodes = Vec::new();
    host_devices(host, &mut nodes);
    for node in &mut nodes {
        if let Ok(below) = node.path().strip_prefix(host) {
            node.set_path(inside.join(below));
        }
    }
    if nodes.is_empty() {
        return Err(CallError::invalid(format!(
            "there is no device in the directory '{}'",
            shown(host_path)
        )));
    }
    Ok(nodes)
}

fn device_node(inside: &Path, metadata: &std::fs::Metadata) -> Option<LinuxDevice> {
    let kind = metadata.file_type();
    let kind = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => LinuxDeviceType::C,
        (_, true) => LinuxDeviceType::B,
        _ => return None,
    };
    let mut device = LinuxDevice::default();
    device.set_path(inside.to_owned());
    device.set_typ(kind);
    device.set_major(libc::major(metadata.rdev()).into());
    device.set_minor(libc::minor(metadata.rdev()).into());
    device.set_file_mode(Some(metadata.mode() & 0o7777));
    device.set_uid(Some(metadata.uid()));
    device.set_gid(Some(metadata.gid()));
    Some(device)
}

/// The host's device nodes, for a privileged container. Terminals, shared memory and queues have mounts of their own.
fn host_devices(directory: &Path, nodes: &mut Vec<LinuxDevice>) {
    const OWN: [&str; 7] = ["pts", "ptmx", "shm", "fd", "mqueue", "console", ".udev"];
    // A node that goes away meanwhile is not given.
    for entry in std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else {
            continue;
        };
        if OWN.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        if metadata.is_dir() {
            host_devices(&path, nodes);
        } else if !devices::DEFAULT
            .iter()
            .any(|device| Path::new(device.path) == path)
        {
            nodes.extend(device_node(&path, &metadata));
        }
    }
}
