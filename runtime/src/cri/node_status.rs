//! Version, Status and RuntimeConfig: the runtime itself.

use std::collections::BTreeMap;

use podwright_cri_api::v1 as cri;

use crate::cgroup::Version;
use crate::config::CgroupDriver;
use crate::error::chain;
use crate::node::Node;

pub(super) fn version() -> cri::VersionResponse {
    cri::VersionResponse {
        // The version of this message, which has been the same since the kubelet's first runtime API.
        version: "0.1.0".into(),
        runtime_name: "podwright".into(),
        runtime_version: env!("CARGO_PKG_VERSION").into(),
        runtime_api_version: podwright_cri_api::API_VERSION.into(),
    }
}

/// The conditions that the kubelet asks for hold whenever the daemon answers: it does not serve before its parts are there.
/// A security module that is on and cannot be used is a further one, which does not hold.
pub(super) fn status(node: &Node, verbose: bool) -> cri::StatusResponse {
    let condition = |kind: &str| cri::RuntimeCondition {
        r#type: kind.into(),
        status: true,
        ..Default::default()
    };
    let features = cri::RuntimeFeatures {
        supplemental_groups_policy: true,
        mount_options: true,
        ..Default::default()
    };
    cri::StatusResponse {
        status: Some(cri::RuntimeStatus {
            conditions: [condition("RuntimeReady"), condition("NetworkReady")]
                .into_iter()
                .chain(apparmor_failure(node))
                .chain(selinux_failure(node))
                .collect(),
        }),
        info: if verbose { info(node) } else { BTreeMap::new() },
        runtime_handlers: node.handlers.cri(&node.kernel),
        features: Some(features),
    }
}

fn apparmor_failure(node: &Node) -> Option<cri::RuntimeCondition> {
    let error = node.apparmor.default_profile().err()?;
    Some(cri::RuntimeCondition {
        r#type: "AppArmorReady".into(),
        status: false,
        reason: "NoDefaultProfile".into(),
        message: chain(&error),
    })
}

fn selinux_failure(node: &Node) -> Option<cri::RuntimeCondition> {
    Some(cri::RuntimeCondition {
        r#type: "SELinuxReady".into(),
        status: false,
        reason: "NoContainerPolicy".into(),
        message: node.selinux.failure()?.to_owned(),
    })
}

fn info(node: &Node) -> BTreeMap<String, String> {
    let config = &node.config;
    let subnets = node.network.subnets();
    let subnets: Vec<String> = subnets.iter().map(ToString::to_string).collect();
    let cgroups = match node.cgroups.version() {
        Version::V1 => "v1",
        Version::Hybrid => "hybrid",
        Version::V2 => "v2",
    };
    let config = serde_json::json!({
        "stateDir": config.state_dir,
        "runDir": config.run_dir,
        "socket": config.socket,
        "cgroupRoot": config.cgroup_root.as_str(),
        "cgroupDriver": match config.cgroup_driver {
            CgroupDriver::Cgroupfs => "cgroupfs",
            CgroupDriver::Systemd => "systemd",
        },
        "cgroupVersion": cgroups,
        "bridge": config.network.bridge,
        "subnets": subnets,
        "registryConfigDirs": config.registry.config_dirs,
        "selinuxLabel": node.selinux.process_label(),
        "appArmorProfile": node.apparmor.default_profile().ok().flatten(),
    });
    let capabilities = node.capabilities.names();
    BTreeMap::from([
        ("config".to_owned(), config.to_string()),
        (
            "capabilities".to_owned(),
            serde_json::json!(capabilities).to_string(),
        ),
        ("pid".to_owned(), std::process::id().to_string()),
    ])
}

pub(super) fn runtime_config(node: &Node) -> cri::RuntimeConfigResponse {
    let driver = match node.config.cgroup_driver {
        CgroupDriver::Cgroupfs => cri::CgroupDriver::Cgroupfs,
        CgroupDriver::Systemd => cri::CgroupDriver::Systemd,
    };
    let linux = cri::LinuxRuntimeConfiguration {
        cgroup_driver: driver.into(),
    };
    cri::RuntimeConfigResponse { linux: Some(linux) }
}
