//! What pods must not be able to do. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::{IpAddr, Ipv4Addr};

use support::frame::{Icmpv6Frame, UdpFrame};
use support::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 231, 1, 1);
const GATEWAY_MAC: [u8; 6] = [0x0a, 0x58, 10, 231, 1, 1];

fn v4(pod: &Pod) -> Ipv4Addr {
    let IpAddr::V4(address) = pod.v4() else {
        panic!("the first subnet is IPv4")
    };
    address
}

fn frame(from: &Pod, destination: Ipv4Addr, port: u16, text: &'static str) -> UdpFrame {
    UdpFrame {
        source_mac: from.attachment.mac.0,
        destination_mac: GATEWAY_MAC,
        source: v4(from),
        destination,
        port,
        text,
    }
}

#[test]
fn spoofed_sources_are_dropped() {
    let mut machine = Machine::new();
    let (attacker, victim) = (machine.pod(&[]), machine.pod(&[]));
    let receivers = [
        (udp(&machine.host, "0.0.0.0:9000"), GATEWAY, GATEWAY_MAC),
        {
            let (address, mac) = (v4(&victim), victim.attachment.mac.0);
            (udp(&victim.namespace, "0.0.0.0:9000"), address, mac)
        },
    ];
    for (receiver, destination, destination_mac) in &receivers {
        let honest = UdpFrame {
            destination_mac: *destination_mac,
            ..frame(&attacker, *destination, 9000, "honest")
        };
        for source in [
            v4(&victim),
            Ipv4Addr::new(192, 0, 2, 1),
            Ipv4Addr::new(127, 0, 0, 1),
            GATEWAY,
        ] {
            UdpFrame {
                source,
                text: "spoofed address",
                ..honest
            }
            .send(&attacker.namespace);
        }
        UdpFrame {
            source_mac: victim.attachment.mac.0,
            text: "spoofed mac",
            ..honest
        }
        .send(&attacker.namespace);
        UdpFrame {
            source_mac: GATEWAY_MAC,
            text: "spoofed mac",
            ..honest
        }
        .send(&attacker.namespace);
        honest.send(&attacker.namespace);
        assert_eq!(
            next_datagram(receiver).unwrap().0,
            "honest",
            "to {destination}"
        );
    }
}

#[test]
fn the_hosts_loopback_is_closed_to_pods() {
    let mut machine = Machine::new();
    let pod = machine.pod(&[]);
    let service = udp(&machine.host, "127.0.0.1:9000");
    frame(&pod, Ipv4Addr::LOCALHOST, 9000, "from a pod").send(&pod.namespace);
    // The frame is of the right form: to the gateway's address it arrives. It was sent after the other.
    let open_service = udp(&machine.host, "0.0.0.0:9001");
    frame(&pod, GATEWAY, 9001, "to the gateway").send(&pod.namespace);
    assert_eq!(next_datagram(&open_service).unwrap().0, "to the gateway");
    udp(&machine.host, "127.0.0.1:0")
        .send_to(b"from the host", "127.0.0.1:9000")
        .unwrap();
    assert_eq!(next_datagram(&service).unwrap().0, "from the host");
}

#[test]
fn a_detached_pod_that_lives_on_is_cut_off() {
    let mut machine = Machine::new();
    let (pod, other) = (machine.pod(&[]), machine.pod(&[]));
    let receiver = udp(&machine.host, "0.0.0.0:9000");
    machine.detach(&pod.id);
    frame(&pod, GATEWAY, 9000, "from the detached").send(&pod.namespace);
    frame(&other, GATEWAY, 9000, "from the other").send(&other.namespace);
    assert_eq!(next_datagram(&receiver).unwrap().0, "from the other");
}

/// What a pod's kernel says to routers by itself, and what only a router may say, would reach every pod of the node.
#[test]
fn pods_do_not_hear_what_others_say_to_routers() {
    const ECHO_REQUEST: u8 = 128;
    let mut machine = Machine::new();
    let (speaker, listener) = (machine.pod(&[]), machine.pod(&[]));
    let IpAddr::V6(source) = speaker.v6() else {
        panic!("the second subnet is IPv6")
    };
    let receiver = udp(&listener.namespace, "0.0.0.0:9000");
    // Queries and reports of listeners, router solicitation and advertisement, redirect; and one that arrives.
    for kind in [130, 131, 132, 133, 134, 137, 143, ECHO_REQUEST] {
        Icmpv6Frame {
            source_mac: speaker.attachment.mac.0,
            source,
            kind,
        }
        .send(&speaker.namespace);
    }
    UdpFrame {
        destination_mac: listener.attachment.mac.0,
        ..frame(&speaker, v4(&listener), 9000, "sent last")
    }
    .send(&speaker.namespace);
    assert_eq!(next_datagram(&receiver).unwrap().0, "sent last");
    let heard = listener.namespace.lines_with("snmp6", "Icmp6InType");
    let kinds: Vec<_> = heard
        .iter()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|kind| !["Icmp6InType135", "Icmp6InType136"].contains(kind))
        .collect();
    assert_eq!(kinds, ["Icmp6InType128"], "{heard:?}");
}

/// Where pods have no IPv6, their kernels make up no addresses of it either, which the whole bridge would be told.
#[test]
fn without_ipv6_only_the_loopback_has_an_address_of_it() {
    let mut machine = Machine::with_subnets(&["10.231.1.0/24"]);
    let pod = machine.pod(&[]);
    let lines = |link| pod.namespace.lines_with("if_inet6", link);
    assert_eq!(lines("lo").len(), 1);
    assert_eq!(lines("eth0"), Vec::<String>::new());
}
