//! Which addresses of one subnet are given, and which is next. Pure data; [`crate::record`] keeps it on disk.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::subnet::{IpNet, Subnet};
use crate::config::LinkName;

/// All addresses of the subnet are given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PoolExhausted {
    pub(crate) subnet: Subnet,
    pub(crate) in_use: usize,
}

/// The addresses of one subnet. They are given in turn, so that a freed one rests as long as possible.
#[derive(Debug)]
pub(crate) struct Pool {
    subnet: Subnet,
    /// Offsets in the subnet of the addresses that pods have.
    used: HashSet<u64>,
    /// Where the search for the next free address begins.
    cursor: u64,
    /// Free addresses whose last holder's link was still there when they were freed: it could still answer for them.
    lingering: HashMap<u64, LinkName>,
}

impl Pool {
    pub(crate) fn new(subnet: Subnet, cursor: u64) -> Self {
        let (first, last) = subnet.pod_offsets();
        let cursor = if (first..=last).contains(&cursor) {
            cursor
        } else {
            first
        };
        Self {
            subnet,
            used: HashSet::new(),
            cursor,
            lingering: HashMap::new(),
        }
    }

    #[cfg(test)]
    fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Where the next search begins; kept on disk so that turns survive a restart.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Marks an address of an existing pod. Addresses outside the subnet are nothing to the pool.
    pub(crate) fn occupy(&mut self, address: IpAddr) {
        self.used.extend(self.subnet.offset(address));
    }

    /// Gives the next free address. `is_gone` tells whether a lingering link has gone; addresses of those that have
    /// not are passed over, and given only when there are no others: then the link is returned too, to be deleted first.
    pub(crate) fn give(
        &mut self,
        mut is_gone: impl FnMut(&LinkName) -> bool,
    ) -> Result<(IpNet, Option<LinkName>), PoolExhausted> {
        let (first, last) = self.subnet.pod_offsets();
        let room = last - first + 1;
        let mut fallback = None;
        // One more step than there are used addresses finds a free one, were none lingering.
        let steps = (self.used.len() + self.lingering.len() + 1) as u64;
        for step in 0..steps.min(room) {
            let offset = first + (self.cursor - first + step) % room;
            if self.used.contains(&offset) {
                continue;
            }
            match self.lingering.get(&offset) {
                Some(link) if !is_gone(link) => {
                    fallback.get_or_insert(offset);
                }
                _ => return Ok(self.take(offset)),
            }
        }
        match fallback {
            Some(offset) => {
                let link = self.lingering.get(&offset).cloned();
                let (address, _) = self.take(offset);
                Ok((address, link))
            }
            None => Err(PoolExhausted {
                subnet: self.subnet,
                in_use: self.used.len(),
            }),
        }
    }

    fn take(&mut self, offset: u64) -> (IpNet, Option<LinkName>) {
        let (first, last) = self.subnet.pod_offsets();
        self.lingering.remove(&offset);
        self.used.insert(offset);
        self.cursor = if offset == last { first } else { offset + 1 };
        (self.subnet.at(offset), None)
    }

    /// Takes an address back; `lingering` is the link of its holder when that is still there.
    pub(crate) fn free(&mut self, address: IpAddr, lingering: Option<&LinkName>) {
        let Some(offset) = self.subnet.offset(address) else {
            return;
        };
        if self.used.remove(&offset)
            && let Some(link) = lingering
        {
            self.lingering.insert(offset, link.clone());
        }
    }

    /// Forgets a link that has gone: its holder's address may be given like others. In a large subnet its turn never comes.
    pub(crate) fn link_gone(&mut self, link: &LinkName) {
        self.lingering.retain(|_, lingering| lingering != link);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(subnet: &str) -> Pool {
        Pool::new(subnet.parse().unwrap(), 0)
    }

    fn give(pool: &mut Pool) -> String {
        pool.give(|_| true).unwrap().0.address.to_string()
    }

    #[test]
    fn gives_in_turn_and_not_the_last_freed_at_once() {
        let mut pool = pool("10.231.0.0/29"); // 2..=6
        assert_eq!(give(&mut pool), "10.231.0.2");
        pool.free("10.231.0.2".parse().unwrap(), None);
        for wanted in [
            "10.231.0.3",
            "10.231.0.4",
            "10.231.0.5",
            "10.231.0.6",
            "10.231.0.2",
        ] {
            assert_eq!(give(&mut pool), wanted);
        }
        let exhausted = PoolExhausted {
            subnet: pool.subnet(),
            in_use: 5,
        };
        assert_eq!(pool.give(|_| true), Err(exhausted));
        pool.free("10.231.0.4".parse().unwrap(), None);
        assert_eq!(give(&mut pool), "10.231.0.4");
    }

    #[test]
    fn lingering_holders_are_passed_over_then_named() {
        let mut pool = pool("10.231.0.0/30"); // 2 only
        let address = pool.give(|_| true).unwrap().0.address;
        let link: LinkName = "pw1".parse().unwrap();
        pool.free(address, Some(&link));
        assert_eq!(pool.give(|_| false).unwrap().1, Some(link.clone()));
        pool.free(address, Some(&link));
        assert_eq!(pool.give(|_| true).unwrap().1, None);
    }

    #[test]
    fn links_that_have_gone_are_forgotten_before_their_address_has_its_turn() {
        let mut pool = pool("fd00:231::/64");
        let links = ["pw1", "pw2"].map(|link| link.parse::<LinkName>().unwrap());
        for link in &links {
            let address = pool.give(|_| true).unwrap().0.address;
            pool.free(address, Some(link));
        }
        pool.link_gone(&links[0]);
        let left: Vec<_> = pool.lingering.values().collect();
        assert_eq!(left, [&links[1]]);
    }

    #[test]
    fn existing_addresses_and_cursor_are_kept() {
        let mut pool = Pool::new("10.231.0.0/24".parse().unwrap(), 9);
        pool.occupy("10.231.0.9".parse().unwrap());
        pool.occupy("10.99.0.1".parse().unwrap());
        assert_eq!(give(&mut pool), "10.231.0.10");
        assert_eq!(pool.cursor(), 11);
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice_or_lost(steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 0usize..8), 0..200)) {
            let mut pool = pool("10.231.0.0/28");
            let mut given: Vec<IpAddr> = Vec::new();
            let link: LinkName = "pw1".parse().unwrap();
            for (is_give, lingers, pick) in steps {
                if is_give {
                    match pool.give(|_| !lingers) {
                        Ok((address, _)) => {
                            prop_assert!(!given.contains(&address.address));
                            prop_assert!(pool.subnet().contains(address.address));
                            given.push(address.address);
                        }
                        Err(exhausted) => {
                            prop_assert_eq!(given.len(), 13);
                            prop_assert_eq!(exhausted.in_use, 13);
                        }
                    }
                } else if !given.is_empty() {
                    let address = given.swap_remove(pick % given.len());
                    pool.free(address, lingers.then_some(&link));
                }
            }
        }
    }
}
