//! The pod network, made as the daemon makes it, in namespaces that end with the trial.

use std::collections::HashSet;
use std::io;

use nix::sched::{CloneFlags, unshare};
use podwright_netns::{Namespace, Network, NetworkConfig};

use super::{Machine, Scratch, Seen, apart};
use crate::config::Config;
use crate::error::chain;

/// How far the trial came.
pub(super) struct Trial {
    /// Bridge, addresses, nftables.
    network: io::Result<()>,
    /// A pod on it; none when there was no network to try it on.
    pod: Option<io::Result<()>>,
}

impl Trial {
    pub(super) fn run(config: &Config) -> Self {
        let failed = |error| Self {
            network: Err(error),
            pod: None,
        };
        let trial = crate::network_config(config)
            .map_err(|error| io::Error::other(chain(&error)))
            .and_then(|config| Ok((config, Scratch::below(&std::env::temp_dir())?)));
        let (config, scratch) = match trial {
            Ok(made) => made,
            Err(error) => return failed(error),
        };
        let config = NetworkConfig {
            state_dir: scratch.0.clone(),
            ..config
        };
        apart(|| Self::in_namespaces(config)).unwrap_or_else(failed)
    }

    fn in_namespaces(config: NetworkConfig) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let failed = |error| io::Error::other(chain(&error));
        let network = match Network::open(config) {
            Ok(network) => network,
            Err(error) => {
                return Ok(Self {
                    network: Err(failed(error)),
                    pod: None,
                });
            }
        };
        let attached = network.recover(&HashSet::new()).and_then(|_| {
            let id = "d".repeat(64);
            let attachment = network.allocate(&id, &[])?;
            let pod = Namespace::make()?;
            network.settle(&pod, |_| false)?;
            network.connect(&id, &attachment, &pod)
        });
        Ok(Self {
            network: Ok(()),
            pod: Some(attached.map_err(failed)),
        })
    }
}

fn seen(tried: &str, result: &io::Result<()>) -> Seen {
    match result {
        Ok(()) => Seen::there(tried, "it works"),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            Seen::unknown(tried, error.to_string())
        }
        Err(error) => Seen::missing(tried, error.to_string()),
    }
}

pub(super) fn bridge(machine: &Machine) -> Seen {
    seen(
        "the pod network in a namespace: bridge, sets, maps, masquerade",
        &machine.network.network,
    )
}

pub(super) fn veth(machine: &Machine) -> Seen {
    let tried = "a pod on that network: veth pair, addresses, routes";
    match &machine.network.pod {
        Some(result) => seen(tried, result),
        None => Seen::unknown(tried, "not tried: there is no network"),
    }
}

pub(super) fn ipv6(_: &Machine) -> Seen {
    let path = "/proc/sys/net/ipv6/conf/all/forwarding";
    match std::fs::metadata(path) {
        Ok(_) => Seen::there(path, "the kernel has IPv6"),
        Err(error) => Seen::missing(path, error.to_string()),
    }
}
