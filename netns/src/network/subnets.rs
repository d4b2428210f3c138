//! Other subnets while pods live: pods that are there keep their addresses, new ones get addresses of the new subnets.

use nix::errno::Errno;

use super::{Network, open};
use crate::address::{Pool, Subnet};
use crate::error::NetworkError;
use crate::rtnetlink::address;
use crate::subnets::{Subnets, is_of};

impl Network {
    /// The subnets that new pods get addresses of.
    pub fn subnets(&self) -> Vec<Subnet> {
        self.state().subnets.given.clone()
    }

    /// Gives new pods addresses of these subnets; it holds over restarts, until the configuration has others. The same
    /// ones again are no change.
    ///
    /// # Errors
    /// [`NetworkError::Config`] for subnets that make no network; [`NetworkError::SubnetInUse`] when one overlaps another
    /// one of which pods still have addresses.
    pub fn set_subnets(&self, subnets: &[Subnet]) -> Result<(), NetworkError> {
        let _turn = self.changing();
        if self.state().subnets.given == subnets {
            return Ok(());
        }
        open::check(subnets, self.config.mtu)?;
        let change = {
            let state = self.state();
            state
                .subnets
                .giving(subnets, |subnet| state.has_pods_in(subnet))
        };
        let overlap = |kept: &Subnet| subnets.iter().find(|subnet| overlaps(**subnet, *kept));
        if let Some((kept, subnet)) = change.next.kept.iter().find_map(|k| Some((k, overlap(k)?))) {
            return Err(NetworkError::SubnetInUse {
                subnet: *subnet,
                kept: *kept,
            });
        }
        // On disk first: whatever a crash leaves in the kernel, the next start knows of.
        self.records.write_subnets(&change.next)?;
        open::serve(&self.config, &self.route(), self.bridge, subnets)?;
        {
            let mut state = self.state();
            // A pod may have come meanwhile, by the old subnets: they are looked at again below.
            let kept = change.next.kept.iter().chain(&change.dropped);
            state.subnets = Subnets {
                kept: kept.copied().collect(),
                ..change.next
            };
        }
        self.reinstall()?;
        self.state().give_from(subnets);
        self.drop_unused()
    }

    /// Takes subnets from the bridge that no pod is in any more, so that they may be another node's.
    pub(super) fn drop_unused_subnets(&self) -> Result<(), NetworkError> {
        if self.state().subnets.kept.is_empty() {
            return Ok(());
        }
        let _turn = self.changing();
        self.drop_unused()
    }

    fn drop_unused(&self) -> Result<(), NetworkError> {
        let (next, dropped) = {
            let mut state = self.state();
            let given = state.subnets.given.clone();
            let change = state
                .subnets
                .giving(&given, |subnet| state.has_pods_in(subnet));
            state.subnets = change.next.clone();
            (change.next, change.dropped)
        };
        if dropped.is_empty() {
            return Ok(());
        }
        withdraw(&self.config.bridge, &self.route(), self.bridge, &dropped)?;
        self.reinstall()?;
        self.records.write_subnets(&next)
    }
}

/// Takes the gateway addresses of these subnets from the bridge; those that are not there are no error.
pub(super) fn withdraw(
    bridge: &crate::config::LinkName,
    route: &crate::netlink::Socket,
    index: u32,
    dropped: &[Subnet],
) -> Result<(), NetworkError> {
    for subnet in dropped {
        match crate::netlink::exchange(route, &[address::remove(index, subnet.gateway())]) {
            Err(error) if error.is(Errno::EADDRNOTAVAIL) => {}
            result => drop(result.map_err(NetworkError::kernel(format!(
                "take the subnet {subnet} from the pod bridge {bridge}"
            )))?),
        }
    }
    Ok(())
}

impl super::State {
    fn give_from(&mut self, subnets: &[Subnet]) {
        self.pools = subnets.iter().map(|subnet| Pool::new(*subnet, 0)).collect();
        for net in self.attachments.values().flat_map(|pod| &pod.addresses) {
            self.pools
                .iter_mut()
                .for_each(|pool| pool.occupy(net.address));
        }
    }

    pub(super) fn has_pods_in(&self, subnet: Subnet) -> bool {
        let mut addresses = self.attachments.values().flat_map(|pod| &pod.addresses);
        addresses.any(|net| is_of(net, subnet))
    }
}

fn overlaps(one: Subnet, other: Subnet) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}
