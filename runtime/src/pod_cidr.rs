//! UpdateRuntimeConfig: the cluster says which addresses this node's pods get.

use podwright_cri_api::v1::UpdateRuntimeConfigRequest;
use podwright_netns::Subnet;

use crate::error::{CallError, Context, Kind};
use crate::index::shown;
use crate::node::Node;

/// One of IPv4 and one of IPv6.
const MOST_CIDRS: usize = 2;

/// An IPv6 address of 39 characters, a slash and three digits.
const LONGEST_CIDR: usize = 43;

/// Takes over the cluster's settings; those that are not there stay as they are.
pub(crate) fn update(node: &Node, request: UpdateRuntimeConfigRequest) -> Result<(), CallError> {
    let network = request
        .runtime_config
        .and_then(|config| config.network_config)
        .unwrap_or_default();
    if network.pod_cidr.is_empty() {
        return Ok(());
    }
    let subnets = parse(&network.pod_cidr)?;
    let before = node.network.subnets();
    node.network.set_subnets(&subnets).map_err(|error| {
        let what = format!("cannot give pods addresses of {}", shown(&network.pod_cidr));
        match crate::network_kind(&error) {
            Kind::AlreadyExists => CallError::caused(Kind::Internal, what, error),
            kind => CallError::caused(kind, what, error),
        }
    })?;
    if before != subnets {
        tracing::info!(
            ?before,
            pod_cidr = network.pod_cidr,
            "new pods get addresses of other subnets"
        );
    }
    Ok(())
}

fn parse(text: &str) -> Result<Vec<Subnet>, CallError> {
    let texts: Vec<&str> = text.split(',').map(str::trim).collect();
    if texts.len() > MOST_CIDRS {
        return Err(CallError::invalid(format!(
            "the pod CIDR '{}' has {} ranges: one of IPv4, one of IPv6, or both are possible",
            shown(text),
            texts.len()
        )));
    }
    let subnets = texts
        .iter()
        .map(|text| {
            // An error repeats the text.
            let bounded = if text.len() > LONGEST_CIDR { "" } else { text };
            bounded
                .parse::<Subnet>()
                .invalid(|| format!("'{}' is no pod CIDR", shown(text)))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if let [one, other] = subnets[..]
        && one.network().is_ipv4() == other.network().is_ipv4()
    {
        return Err(CallError::invalid(format!(
            "the pod CIDRs {one} and {other} are of one IP version"
        )));
    }
    Ok(subnets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_each_ip_version_is_taken() {
        for (text, count) in [
            ("10.244.1.0/24", Some(1)),
            ("10.244.1.0/24, fd00:1::/64", Some(2)),
            ("fd00:1::/64,10.244.1.0/24", Some(2)),
            ("10.244.1.0/24,10.244.2.0/24", None),
            ("10.244.1.0/24,fd00::/64,fd01::/64", None),
            ("10.244.1.1/24", None),
            ("10.244.1.0", None),
            ("10.244.1.0/33", None),
            ("10.244.1.0/24,", None),
            ("all", None),
        ] {
            assert_eq!(
                parse(text).ok().map(|subnets| subnets.len()),
                count,
                "{text}"
            );
        }
    }
}
