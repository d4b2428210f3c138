//! What pods and containers look like to plugins.

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use podwright_cri_api::v1::LinuxContainerResources;
use podwright_nri::api;

use super::{hooks, resources};
use crate::container::{Container, State};
use crate::error::chain;
use crate::node::Node;
use crate::plan::{self, SeccompChoice};
use crate::sandbox::{IpcMode, NetworkMode, Sandbox};

/// A pod.
pub(super) fn pod(node: &Node, sandbox: &Sandbox) -> api::PodSandbox {
    let metadata = sandbox.metadata();
    let pid = sandbox.pause().and_then(|pause| pause.pid()).unwrap_or(0);
    let linux = sandbox.config.linux.clone().unwrap_or_default();
    let given = sandbox.resources();
    let limits = |limits: Option<LinuxContainerResources>| limits.as_ref().map(resources::of_cri);
    let attachment = node.network.attachment(sandbox.id.as_str());
    let addresses = attachment
        .iter()
        .flat_map(|attachment| &attachment.addresses);
    api::PodSandbox {
        id: sandbox.id.to_string(),
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
        linux: Some(api::LinuxPodSandbox {
            pod_overhead: limits(given.overhead),
            pod_resources: limits(given.resources),
            cgroup_parent: linux.cgroup_parent,
            cgroups_path: sandbox.cgroup.to_string(),
            namespaces: pod_namespaces(sandbox, pid),
            resources: None,
        }),
        pid,
        ips: addresses
            .map(|address| address.address.to_string())
            .collect(),
    }
}

fn pod_namespaces(sandbox: &Sandbox, pid: u32) -> Vec<api::LinuxNamespace> {
    let mut kinds = Vec::new();
    if sandbox.settings.network == NetworkMode::Pod {
        kinds.extend([("network", "net"), ("uts", "uts")]);
    }
    if sandbox.settings.ipc == IpcMode::Pod {
        kinds.push(("ipc", "ipc"));
    }
    let namespace = |(kind, file): (&str, &str)| api::LinuxNamespace {
        r#type: kind.to_owned(),
        path: match pid {
            0 => String::new(),
            pid => format!("/proc/{pid}/ns/{file}"),
        },
    };
    kinds.into_iter().map(namespace).collect()
}

/// A container, with its spec as it is or will be.
pub(super) fn container(node: &Node, container: &Container) -> api::Container {
    let spec = container.spec(node).unwrap_or_else(|error| {
        // A device that is gone, say: what is known without the spec is told.
        tracing::warn!(container = %container.id, error = %chain(&error), "cannot tell NRI plugins all of the container");
        Spec::default()
    });
    of_spec(container, &spec)
}

/// The same with a spec that is at hand.
pub(super) fn of_spec(container: &Container, spec: &Spec) -> api::Container {
    let process = spec.process().clone().unwrap_or_default();
    let (started, exit) = match container.state() {
        State::Created => (None, None),
        State::Running { started } => (Some(started), None),
        State::Exited { started, exit } => (started, Some(exit)),
    };
    let state = match container.state() {
        State::Created => api::ContainerState::ContainerCreated,
        State::Running { .. } => api::ContainerState::ContainerRunning,
        State::Exited { .. } => api::ContainerState::ContainerStopped,
    };
    let user = container.record.user.clone().unwrap_or_default();
    let adjustment = container.nri.adjustment();
    let wished = adjustment
        .into_iter()
        .flat_map(|wishes| &wishes.cdi_devices);
    let asked = container.config.cdi_devices.iter();
    let devices = asked.map(|device| &device.name);
    let devices = devices.chain(wished.map(|device| &device.name));
    api::Container {
        id: container.id.to_string(),
        pod_sandbox_id: container.sandbox.id.to_string(),
        name: container.metadata().name,
        state: state.into(),
        labels: container.config.labels.clone(),
        annotations: spec.annotations().iter().flatten().map(pair).collect(),
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        mounts: spec.mounts().iter().flatten().map(mount).collect(),
        hooks: hooks::of_spec(spec),
        linux: Some(linux(container, spec)),
        pid: started.as_ref().map_or(0, |started| started.pid),
        rlimits: process.rlimits().iter().flatten().map(rlimit).collect(),
        created_at: container.record.created_at,
        started_at: started.as_ref().map_or(0, |started| started.at),
        finished_at: exit.as_ref().map_or(0, |exit| exit.finished_at),
        exit_code: exit.as_ref().map_or(0, |exit| exit.exit_code),
        status_reason: exit
            .as_ref()
            .map(|exit| exit.reason.clone())
            .unwrap_or_default(),
        status_message: exit.map(|exit| exit.message).unwrap_or_default(),
        cdi_devices: devices
            .map(|name| api::CdiDevice { name: name.clone() })
            .collect(),
        user: Some(api::User {
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.groups,
        }),
    }
}

fn pair((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

fn mount(mount: &oci_spec::runtime::Mount) -> api::Mount {
    api::Mount {
        destination: mount.destination().to_string_lossy().into_owned(),
        r#type: mount.typ().clone().unwrap_or_default(),
        source: mount
            .source()
            .as_ref()
            .map(|source| source.to_string_lossy().into_owned())
            .unwrap_or_default(),
        options: mount.options().clone().unwrap_or_default(),
    }
}

fn rlimit(limit: &oci_spec::runtime::PosixRlimit) -> api::PosixRlimit {
    api::PosixRlimit {
        r#type: limit.typ().to_string(),
        hard: limit.hard(),
        soft: limit.soft(),
    }
}

fn linux(container: &Container, spec: &Spec) -> api::LinuxContainer {
    let linux = spec.linux().clone().unwrap_or_default();
    let rules = linux
        .resources()
        .as_ref()
        .and_then(|limits| limits.devices().clone())
        .unwrap_or_default();
    let score = spec
        .process()
        .as_ref()
        .and_then(|process| process.oom_score_adj());
    api::LinuxContainer {
        namespaces: linux.namespaces().iter().flatten().map(namespace).collect(),
        devices: linux.devices().iter().flatten().map(device).collect(),
        resources: Some(resources::of_container(
            &container.asked_resources(),
            &container.nri.limits(),
            &rules,
        )),
        oom_score_adj: score.map(|score| api::OptionalInt {
            value: score.into(),
        }),
        cgroups_path: container.cgroup.path().as_str().to_owned(),
        seccomp_profile: Some(seccomp_profile(container)),
        seccomp_policy: container.nri.seccomp_policy().cloned(),
        ..api::LinuxContainer::default()
    }
}

fn namespace(namespace: &oci_spec::runtime::LinuxNamespace) -> api::LinuxNamespace {
    let path = namespace.path().as_ref();
    api::LinuxNamespace {
        r#type: namespace_name(namespace.typ()).to_owned(),
        path: path
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
    }
}

/// As config-linux.md of the OCI runtime specification names it.
pub(super) fn namespace_name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

fn device(device: &oci_spec::runtime::LinuxDevice) -> api::LinuxDevice {
    let number = |value: Option<u32>| value.map(|value| api::OptionalUInt32 { value });
    api::LinuxDevice {
        path: device.path().to_string_lossy().into_owned(),
        r#type: resources::type_name(device.typ()).to_owned(),
        major: device.major(),
        minor: device.minor(),
        file_mode: device
            .file_mode()
            .map(|value| api::OptionalFileMode { value }),
        uid: number(device.uid()),
        gid: number(device.gid()),
    }
}

fn seccomp_profile(container: &Container) -> api::SecurityProfile {
    use api::security_profile::ProfileType;
    let context = container
        .config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.clone())
        .unwrap_or_default();
    let default = &container.sandbox.handler.pods().seccomp;
    let (kind, path) = match plan::seccomp_choice(&context, default) {
        // A wrong profile fails the creation, where it is compiled.
        Ok(SeccompChoice::Unconfined) | Err(_) => (ProfileType::Unconfined, String::new()),
        Ok(SeccompChoice::RuntimeDefault) => (ProfileType::RuntimeDefault, String::new()),
        Ok(SeccompChoice::Localhost(path)) => (ProfileType::Localhost, path),
    };
    api::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: path,
    }
}
