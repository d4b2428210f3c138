//! Which subnets the bridge serves: those that new pods get addresses of, and those that only pods from before still have.
//! Pure data; [`crate::record`] keeps it on disk.
//!
//! The subnets that a cluster gives (`UpdateRuntimeConfig`) stand until it gives others, or until the operator configures
//! others: so what was configured when they were given is kept with them.

use std::fmt::Write as _;

use crate::address::{IpNet, Subnet};

/// First line of the file: what it is, and the version of its form.
const TITLE: &str = "podwright-subnets 1";

/// The subnets of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subnets {
    /// As the operator has it.
    pub(crate) configured: Vec<Subnet>,
    /// New pods get one address of each, in this order.
    pub(crate) given: Vec<Subnet>,
    /// Of pods from before.
    pub(crate) kept: Vec<Subnet>,
}

/// What becomes of the subnets, and which are of no use any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) next: Subnets,
    pub(crate) dropped: Vec<Subnet>,
}

impl Subnets {
    /// What a daemon starts with: `earlier` is what the last one wrote.
    pub(crate) fn at_start(
        configured: &[Subnet],
        earlier: Option<Self>,
        in_use: impl Fn(Subnet) -> bool,
    ) -> Change {
        let earlier = earlier.unwrap_or_default();
        let given = match earlier.configured == configured && !earlier.given.is_empty() {
            true => earlier.given.clone(),
            false => configured.to_vec(),
        };
        earlier.change(configured.to_vec(), given, in_use)
    }

    /// Other subnets for new pods.
    pub(crate) fn giving(&self, given: &[Subnet], in_use: impl Fn(Subnet) -> bool) -> Change {
        let earlier = self.clone();
        earlier.change(self.configured.clone(), given.to_vec(), in_use)
    }

    fn change(
        self,
        configured: Vec<Subnet>,
        given: Vec<Subnet>,
        in_use: impl Fn(Subnet) -> bool,
    ) -> Change {
        let before = self.given.into_iter().chain(self.kept);
        let (kept, dropped) = before
            .filter(|subnet| !given.contains(subnet))
            .partition(|subnet| in_use(*subnet));
        let next = Self {
            configured,
            given,
            kept,
        };
        Change { next, dropped }
    }

    /// All that the bridge serves.
    pub(crate) fn all(&self) -> Vec<Subnet> {
        self.given.iter().chain(&self.kept).copied().collect()
    }

    /// The file's text: one subnet a line, closed by the CRC-32 of all lines before.
    pub(crate) fn encode(&self) -> String {
        let mut text = format!("{TITLE}\n");
        for (word, list) in [
            ("configured", &self.configured),
            ("given", &self.given),
            ("kept", &self.kept),
        ] {
            for subnet in list {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{word} {subnet}");
            }
        }
        let checksum = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "crc32 {checksum:08x}");
        text
    }

    /// The inverse of [`Subnets::encode`]; `None` for a torn text.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut lines = crate::record::whole(text)?.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let mut subnets = Self::default();
        for line in lines {
            let (word, subnet) = line.split_once(' ')?;
            let list = match word {
                "configured" => &mut subnets.configured,
                "given" => &mut subnets.given,
                "kept" => &mut subnets.kept,
                // A later version's.
                _ => continue,
            };
            list.push(subnet.parse().ok()?);
        }
        Some(subnets)
    }
}

/// Whether an address was given out of the subnet.
pub(crate) fn is_of(net: &IpNet, subnet: Subnet) -> bool {
    net.prefix == subnet.prefix() && subnet.contains(net.address)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<Subnet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn subnets(configured: &[&str], given: &[&str], kept: &[&str]) -> Subnets {
        Subnets {
            configured: list(configured),
            given: list(given),
            kept: list(kept),
        }
    }

    #[test]
    fn what_was_given_stands_until_the_configuration_changes() {
        let earlier = subnets(&["10.1.0.0/16"], &["10.2.0.0/24"], &["10.1.0.0/16"]);
        let used = |subnet: Subnet| subnet == "10.2.0.0/24".parse().unwrap();
        let same = Subnets::at_start(&list(&["10.1.0.0/16"]), Some(earlier.clone()), used);
        assert_eq!(same.next, subnets(&["10.1.0.0/16"], &["10.2.0.0/24"], &[]));
        assert_eq!(same.dropped, list(&["10.1.0.0/16"]));
        let other = Subnets::at_start(&list(&["10.3.0.0/16"]), Some(earlier), used);
        let expected = subnets(&["10.3.0.0/16"], &["10.3.0.0/16"], &["10.2.0.0/24"]);
        assert_eq!(other.next, expected);
        let first = Subnets::at_start(&list(&["10.3.0.0/16"]), None, used);
        assert_eq!(first.next, subnets(&["10.3.0.0/16"], &["10.3.0.0/16"], &[]));
    }

    #[test]
    fn subnets_of_living_pods_are_kept_and_come_back() {
        let now = subnets(&["10.1.0.0/16"], &["10.1.0.0/16"], &[]);
        let change = now.giving(&list(&["10.2.0.0/24"]), |_| true);
        let expected = subnets(&["10.1.0.0/16"], &["10.2.0.0/24"], &["10.1.0.0/16"]);
        assert_eq!((&change.next, change.dropped.len()), (&expected, 0));
        let back = change.next.giving(&list(&["10.1.0.0/16"]), |_| false);
        assert_eq!(back.next, now);
        assert_eq!(back.dropped, list(&["10.2.0.0/24"]));
    }

    #[test]
    fn a_torn_file_is_none() {
        let text = subnets(&["10.1.0.0/16", "fd00::/64"], &["10.2.0.0/24"], &[]).encode();
        let whole = Subnets::decode(&text);
        assert_eq!(whole.unwrap().encode(), text);
        for length in 0..text.len() {
            assert_eq!(Subnets::decode(&text[..length]), None, "{length}");
        }
    }
}
