//! The tables: what they allow, translate and drop. They are made anew as a whole, in one transaction, so that a
//! table that somebody changed or flushed is repaired without a moment in which a pod's port is closed.
//!
//! Table `inet`:
//! - `guard` (before conntrack): nothing from or to 127.0.0.0/8 comes in by a link other than `lo`, because the bridge
//!   has `route_localnet` (CVE-2020-8558); from the bridge come only sources of the pod subnets, and no router
//!   advertisements (CVE-2020-10749).
//! - `prerouting`, `output` → `ports`: packets to any of the host's addresses are looked up in the port maps.
//! - `postrouting`: masquerade for host ports that lead back to the bridge or that came from the host's loopback, and
//!   for pods that talk to the outside.
//!
//! Table `bridge`: a pod sends only from its own link-layer and IP addresses, in ARP and neighbour discovery too. Nobody hears what
//! it has to say to routers.

use std::net::Ipv6Addr;

use super::element::{Element, Set, add};
use super::expression::{Expression, Field, IpVersion, Is, Membership, Meta, Register, Verdict};
use super::matches::{
    Rule, Side, ether_type, from_subnet, ip_version, is_address, is_icmpv6, is_loopback,
    is_transport, load_key, matches_subnet,
};
use super::{Family, request};
use crate::address::Subnet;
use crate::config::{LinkName, Masquerade, TableName};
use crate::netlink::Message;

use Expression::{
    Compare, ConntrackStatus, DestinationType, Lookup, Map, Mask, Masquerade as Masquerading,
    Payload,
};

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
/// `RTN_LOCAL`: the address is one of the host's.
const LOCAL: u32 = 2;
/// `IPS_DST_NAT`.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// What a pod may not say for the others' sake: that it is a router, or where to go.
const ROUTERS_WORDS: [u8; 2] = [ROUTER_ADVERTISEMENT, REDIRECT];
/// Reports and queries of multicast listeners (130 to 132, 143), and the question for routers (133). The bridge forwards multicast
/// to all of its ports anyway, and no router answers there. Each new pod says some of it, and a thousand other pods would hear that.
const WORDS_TO_ROUTERS: [u8; 5] = [130, 131, 132, 133, 143];

/// How exactly a pod's source addresses are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodFilter {
    /// Each pod sends from its own addresses only.
    PerPod,
    /// The kernel has no nftables for bridges: a pod can send from any address of the subnets.
    SubnetsOnly,
}

/// Where a chain is called by the kernel.
#[derive(Clone, Copy)]
struct Hook {
    kind: &'static str,
    /// `NF_INET_*`, `NF_BR_*`.
    number: u32,
    priority: i32,
}

/// The daemon's tables.
#[derive(Debug)]
pub(crate) struct Ruleset<'a> {
    pub(crate) table: &'a TableName,
    pub(crate) bridge: &'a LinkName,
    pub(crate) subnets: &'a [Subnet],
    pub(crate) masquerade: &'a Masquerade,
}

impl Ruleset<'_> {
    /// The transaction that makes the tables, or makes them anew, with these elements.
    pub(crate) fn install(&self, filter: PodFilter, elements: &[Element]) -> Vec<Message> {
        let families: &[Family] = match filter {
            PodFilter::PerPod => &[Family::Inet, Family::Bridge],
            PodFilter::SubnetsOnly => &[Family::Inet],
        };
        let mut messages = Vec::new();
        for family in families {
            // Made first, so that the deletion cannot fail.
            messages.extend([
                self.make_table(*family),
                self.delete_table(*family),
                self.make_table(*family),
            ]);
            for set in Set::ALL.into_iter().filter(|set| set.family() == *family) {
                messages.push(set.create(self.table));
            }
            match family {
                Family::Inet => self.inet_chains(&mut messages),
                Family::Bridge => self.bridge_chains(&mut messages),
            }
        }
        let elements: Vec<Element> = elements
            .iter()
            .filter(|element| families.contains(&element.set.family()))
            .cloned()
            .collect();
        messages.extend(add(self.table, &elements));
        messages
    }

    /// The transaction that removes the tables.
    pub(crate) fn remove(&self, filter: PodFilter) -> Vec<Message> {
        let mut messages = vec![
            self.make_table(Family::Inet),
            self.delete_table(Family::Inet),
        ];
        if filter == PodFilter::PerPod {
            messages.extend([
                self.make_table(Family::Bridge),
                self.delete_table(Family::Bridge),
            ]);
        }
        messages
    }

    fn make_table(&self, family: Family) -> Message {
        let what = format!("make the nftables table {family:?} {}", self.table);
        request(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, family, what)
            .text(NFTA_TABLE_NAME, self.table.as_str())
    }

    fn delete_table(&self, family: Family) -> Message {
        let what = format!("delete the nftables table {family:?} {}", self.table);
        request(libc::NFT_MSG_DELTABLE, 0, family, what).text(NFTA_TABLE_NAME, self.table.as_str())
    }

    fn chain(&self, family: Family, name: &str, hook: Option<Hook>) -> Message {
        let what = format!("make the nftables chain {name}");
        let mut message = request(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, family, what)
            .text(NFTA_CHAIN_TABLE, self.table.as_str())
            .text(NFTA_CHAIN_NAME, name);
        if let Some(hook) = hook {
            message.put_nested(NFTA_CHAIN_HOOK, |inner| {
                inner.put(NFTA_HOOK_HOOKNUM, &hook.number.to_be_bytes());
                inner.put(NFTA_HOOK_PRIORITY, &hook.priority.to_be_bytes());
            });
            message.put_text(NFTA_CHAIN_TYPE, hook.kind);
        }
        message
    }

    fn rule(&self, family: Family, chain: &str, expressions: &[Expression]) -> Message {
        let what = format!("add a rule to the nftables chain {chain}");
        request(
            libc::NFT_MSG_NEWRULE,
            libc::NLM_F_CREATE | libc::NLM_F_APPEND,
            family,
            what,
        )
        .text(NFTA_RULE_TABLE, self.table.as_str())
        .text(NFTA_RULE_CHAIN, chain)
        .nest(NFTA_RULE_EXPRESSIONS, |list| {
            expressions
                .iter()
                .for_each(|expression| expression.put(list))
        })
    }

    fn inet_chains(&self, messages: &mut Vec<Message>) {
        let chains: [(&str, Option<Hook>, Vec<Rule>); 6] = [
            ("pods", None, self.source_rules()),
            (
                "guard",
                Some(Hook {
                    kind: "filter",
                    number: 0,
                    priority: -300,
                }),
                self.guard_rules(),
            ),
            ("ports", None, port_rules()),
            (
                "prerouting",
                Some(Hook {
                    kind: "nat",
                    number: 0,
                    priority: -100,
                }),
                vec![to_host_address()],
            ),
            (
                "output",
                Some(Hook {
                    kind: "nat",
                    number: 3,
                    priority: -100,
                }),
                vec![to_host_address()],
            ),
            (
                "postrouting",
                Some(Hook {
                    kind: "nat",
                    number: 4,
                    priority: 100,
                }),
                self.postrouting_rules(),
            ),
        ];
        for (name, hook, rules) in chains {
            messages.push(self.chain(Family::Inet, name, hook));
            messages.extend(rules.iter().map(|rule| self.rule(Family::Inet, name, rule)));
        }
    }

    fn guard_rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for field in [Field::IPV4_DESTINATION, Field::IPV4_SOURCE] {
            let mut rule = vec![
                Expression::Meta(Meta::InputName, Register::FIRST),
                Compare(
                    Register::FIRST,
                    Is::Different,
                    super::expression::link_key("lo"),
                ),
            ];
            rule.extend(ip_version(IpVersion::V4));
            rule.extend(is_loopback(field));
            rule.push(Expression::Verdict(Verdict::Drop));
            rules.push(rule);
        }
        let mut from_bridge = Expression::link(Meta::InputName, Is::Equal, self.bridge).to_vec();
        from_bridge.push(Expression::Verdict(Verdict::Jump("pods")));
        rules.push(from_bridge);
        rules
    }

    /// What may come in by the bridge.
    fn source_rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut advertisement = ip_version(IpVersion::V6).to_vec();
        advertisement.extend(is_icmpv6(ROUTER_ADVERTISEMENT));
        advertisement.push(Expression::Verdict(Verdict::Drop));
        rules.push(advertisement);
        for subnet in self.subnets {
            let mut rule = from_subnet(*subnet);
            rule.push(Expression::Verdict(Verdict::Return));
            rules.push(rule);
        }
        // Link-local addresses, and the unspecified one, which multicast listener reports use.
        let link_local = [vec![0xff, 0xc0], vec![0xfe, 0x80]].map(|start| padded16(&start));
        for [mask, wanted] in [link_local, [vec![0xff; 16], vec![0; 16]]] {
            let mut rule = ip_version(IpVersion::V6).to_vec();
            rule.extend([
                Payload(Field::IPV6_SOURCE, Register::FIRST),
                Mask(Register::FIRST, mask),
                Compare(Register::FIRST, Is::Equal, wanted),
                Expression::Verdict(Verdict::Return),
            ]);
            rules.push(rule);
        }
        rules.push(vec![Expression::Verdict(Verdict::Drop)]);
        rules
    }

    fn postrouting_rules(&self) -> Vec<Rule> {
        let to_bridge = || Expression::link(Meta::OutputName, Is::Equal, self.bridge);
        let mut rules = Vec::new();
        // The host's own connections to 127.0.0.1 and a host port: the pod could not answer to that address.
        let mut loopback = to_bridge().to_vec();
        loopback.extend(ip_version(IpVersion::V4));
        loopback.extend(is_loopback(Field::IPV4_SOURCE));
        loopback.push(Masquerading);
        rules.push(loopback);
        for subnet in self.subnets {
            // From a pod through a host port to a pod, itself perhaps: the answer must come back through the host.
            let mut hairpin = to_bridge().to_vec();
            hairpin.extend(from_subnet(*subnet));
            hairpin.extend([
                ConntrackStatus(Register::FIRST),
                Mask(
                    Register::FIRST,
                    DESTINATION_TRANSLATED.to_ne_bytes().to_vec(),
                ),
                Compare(Register::FIRST, Is::Different, vec![0; 4]),
                Masquerading,
            ]);
            rules.push(hairpin);
        }
        let Masquerade::OutsideOf(exceptions) = self.masquerade else {
            return rules;
        };
        for inside in self.subnets.iter().chain(exceptions) {
            let mut rule = matches_subnet(*inside, Side::Destination);
            rule.push(Expression::Verdict(Verdict::Return));
            rules.push(rule);
        }
        for subnet in self.subnets {
            let mut rule = Expression::link(Meta::OutputName, Is::Different, self.bridge).to_vec();
            rule.extend(from_subnet(*subnet));
            rule.push(Masquerading);
            rules.push(rule);
        }
        rules
    }

    fn bridge_chains(&self, messages: &mut Vec<Message>) {
        let from_pod = vec![
            Expression::Meta(Meta::InputName, Register::FIRST),
            Lookup(Set::Links.name(), Register::FIRST, Membership::Present),
            Expression::Verdict(Verdict::Jump("pod")),
        ];
        let hook = Hook {
            kind: "filter",
            number: 0,
            priority: -300,
        };
        for (name, hook, rules) in [
            ("icmpv6", None, icmpv6_rules()),
            ("pod", None, pod_rules()),
            ("prerouting", Some(hook), vec![from_pod]),
        ] {
            messages.push(self.chain(Family::Bridge, name, hook));
            messages.extend(
                rules
                    .iter()
                    .map(|rule| self.rule(Family::Bridge, name, rule)),
            );
        }
    }
}

/// What a pod's link may send: IPv4, ARP and IPv6, from its own addresses; nothing else.
fn pod_rules() -> Vec<Rule> {
    let accept = || Expression::Verdict(Verdict::Accept);
    let is_own = |set: Set, fields: [Field; 2]| {
        let mut rule = load_key(Some(Meta::InputName), &fields);
        rule.push(Lookup(set.name(), Register::FIRST, Membership::Present));
        rule
    };
    let mut ipv4 = ether_type(libc::ETH_P_IP);
    ipv4.extend(is_own(
        Set::Sources4,
        [Field::ETHER_SOURCE, Field::IPV4_SOURCE],
    ));
    ipv4.push(accept());

    let mut arp = ether_type(libc::ETH_P_ARP);
    arp.extend(is_own(
        Set::Sources4,
        [Field::ETHER_SOURCE, Field::ARP_SENDER_ADDRESS],
    ));
    arp.extend(is_own(
        Set::Sources4,
        [Field::ARP_SENDER_MAC, Field::ARP_SENDER_ADDRESS],
    ));
    arp.push(accept());

    let mut icmpv6 = ether_type(libc::ETH_P_IPV6);
    icmpv6.extend(is_transport(libc::IPPROTO_ICMPV6));
    icmpv6.push(Expression::Verdict(Verdict::Jump("icmpv6")));
    let mut rules = vec![ipv4, arp, icmpv6];

    let mut ipv6 = ether_type(libc::ETH_P_IPV6);
    ipv6.extend(is_own(
        Set::Sources6,
        [Field::ETHER_SOURCE, Field::IPV6_SOURCE],
    ));
    ipv6.push(accept());
    rules.push(ipv6);

    // Who is about to take an address asks from `::` whether it is free (RFC 4862 §5.4.2).
    let mut unspecified = ether_type(libc::ETH_P_IPV6);
    unspecified.extend(is_transport(libc::IPPROTO_ICMPV6));
    unspecified.extend([
        Payload(Field::IPV6_SOURCE, Register::FIRST),
        Compare(Register::FIRST, Is::Equal, vec![0; 16]),
        accept(),
    ]);
    rules.push(unspecified);
    rules.push(vec![Expression::Verdict(Verdict::Drop)]);
    rules
}

/// What a pod's link may not send in ICMPv6.
fn icmpv6_rules() -> Vec<Rule> {
    let drop = || Expression::Verdict(Verdict::Drop);
    let mut rules = Vec::new();
    for kind in ROUTERS_WORDS.into_iter().chain(WORDS_TO_ROUTERS) {
        let mut rule = is_icmpv6(kind);
        rule.push(drop());
        rules.push(rule);
    }
    let mut claim = is_icmpv6(NEIGHBOUR_ADVERTISEMENT);
    claim.extend(load_key(
        Some(Meta::InputName),
        &[Field::ETHER_SOURCE, Field::NEIGHBOUR_TARGET],
    ));
    claim.extend([
        Lookup(Set::Sources6.name(), Register::FIRST, Membership::Absent),
        drop(),
    ]);
    rules.push(claim);
    rules
}

/// Host ports: the map of the one host address first, then that of all of them.
fn port_rules() -> Vec<Rule> {
    // IPv6 has no route_localnet: a packet from ::1 cannot leave the host. Untranslated the connection is refused at
    // once, and clients that were told "localhost" go on to 127.0.0.1.
    let mut loopback = ip_version(IpVersion::V6).to_vec();
    loopback.extend(is_address(Field::IPV6_DESTINATION, Ipv6Addr::LOCALHOST));
    loopback.push(Expression::Verdict(Verdict::Return));
    let mut rules = vec![loopback];
    for (version, address, sets) in [
        (
            IpVersion::V4,
            Field::IPV4_DESTINATION,
            [Set::AddressedPorts4, Set::Ports4],
        ),
        (
            IpVersion::V6,
            Field::IPV6_DESTINATION,
            [Set::AddressedPorts6, Set::Ports6],
        ),
    ] {
        for (set, with_address) in [(sets[0], Some(address)), (sets[1], None)] {
            let protocol = Register(with_address.map_or(0, Field::registers));
            let mut rule = ip_version(version).to_vec();
            rule.extend(with_address.map(|field| Payload(field, Register::FIRST)));
            rule.extend([
                Expression::Meta(Meta::TransportProtocol, protocol),
                Payload(Field::DESTINATION_PORT, Register(protocol.0 + 1)),
                Map(set.name(), Register::FIRST),
                Expression::TranslateDestination(
                    version,
                    Register::FIRST,
                    Register(address.registers()),
                ),
            ]);
            rules.push(rule);
        }
    }
    rules
}

fn to_host_address() -> Rule {
    vec![
        DestinationType(Register::FIRST),
        Compare(Register::FIRST, Is::Equal, LOCAL.to_ne_bytes().to_vec()),
        Expression::Verdict(Verdict::Jump("ports")),
    ]
}

fn padded16(start: &[u8]) -> Vec<u8> {
    let mut bytes = start.to_vec();
    bytes.resize(16, 0);
    bytes
}
