//! Version, Status, RuntimeConfig and UpdateRuntimeConfig: the runtime itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use podwright_cri_api::v1 as cri;
use podwright_netns::Subnet;

use crate::cgroup::Version;
use crate::error::{CallError, Context};
use crate::index::shown;
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

/// The conditions hold whenever the daemon answers: it does not serve before its parts are there.
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
            conditions: vec![condition("RuntimeReady"), condition("NetworkReady")],
        }),
        info: if verbose { info(node) } else { BTreeMap::new() },
        runtime_handlers: node.handlers.cri(&node.kernel),
        features: Some(features),
    }
}

fn info(node: &Node) -> BTreeMap<String, String> {
    let config = &node.config;
    let subnets: Vec<String> = config
        .network
        .subnets
        .iter()
        .map(|(address, prefix)| format!("{address}/{prefix}"))
        .collect();
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
        "cgroupVersion": cgroups,
        "bridge": config.network.bridge,
        "subnets": subnets,
        "registryConfigDirs": config.registry.config_dirs,
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

pub(super) fn runtime_config() -> cri::RuntimeConfigResponse {
    let linux = cri::LinuxRuntimeConfiguration {
        cgroup_driver: cri::CgroupDriver::Cgroupfs.into(),
    };
    cri::RuntimeConfigResponse { linux: Some(linux) }
}

/// The cluster tells which ranges the node's pods have. They are the node's own configuration, so the two have to agree:
/// pods keep their addresses for life, and a range that changed under them would cut them off.
pub(super) fn update_runtime_config(
    subnets: &[(IpAddr, u8)],
    request: cri::UpdateRuntimeConfigRequest,
) -> Result<(), CallError> {
    let config = request.runtime_config.unwrap_or_default();
    let ranges = config.network_config.unwrap_or_default().pod_cidr;
    let told = ranges.split(',').map(str::trim);
    let told: BTreeSet<(IpAddr, u8)> = told
        .filter(|range| !range.is_empty())
        .map(|range| {
            let subnet: Subnet = range
                .parse()
                .invalid(|| format!("the pod CIDR {:?} cannot be used", shown(range)))?;
            Ok((subnet.network(), subnet.prefix()))
        })
        .collect::<Result<_, CallError>>()?;
    let configured: BTreeSet<(IpAddr, u8)> = subnets.iter().copied().collect();
    if told.is_empty() || told == configured {
        return Ok(());
    }
    let list = |ranges: &BTreeSet<(IpAddr, u8)>| {
        let ranges = ranges
            .iter()
            .map(|(address, prefix)| format!("{address}/{prefix}"));
        ranges.collect::<Vec<_>>().join(", ")
    };
    Err(CallError::state(format!(
        "the cluster gives this node the pod CIDR {}, and its pods get addresses of {}: set network.subnets in the \
         configuration to the former and restart the daemon (pods that run keep their addresses)",
        shown(&list(&told)),
        list(&configured)
    )))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_clusters_ranges_have_to_be_the_nodes() {
        let subnets = [
            ("10.1.0.0".parse().unwrap(), 16),
            ("fd00:1::".parse().unwrap(), 64),
        ];
        let told = |pod_cidr: &str| {
            let network_config = Some(cri::NetworkConfig {
                pod_cidr: pod_cidr.to_owned(),
            });
            let request = cri::UpdateRuntimeConfigRequest {
                runtime_config: Some(cri::RuntimeConfig { network_config }),
            };
            update_runtime_config(&subnets, request).map_err(|error| error.kind)
        };
        for same in [
            "",
            " , ",
            "10.1.0.0/16,fd00:1::/64",
            "fd00:1::/64, 10.1.0.0/16",
        ] {
            assert_eq!(told(same), Ok(()), "{same:?}");
        }
        for other in ["10.1.0.0/16", "10.2.0.0/16,fd00:1::/64", "10.1.0.0/24"] {
            assert_eq!(told(other), Err(Kind::FailedPrecondition), "{other:?}");
        }
        for wrong in [
            "ten",
            "10.1.0.0",
            "10.1.0.1/16",
            "10.1.0.0/33",
            "10.1.0.0/16,x",
        ] {
            assert_eq!(told(wrong), Err(Kind::InvalidArgument), "{wrong:?}");
        }
        assert!(update_runtime_config(&subnets, Default::default()).is_ok());
    }
}
