//! Who reaches whom, with real sockets. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use podwright_netns::Protocol::{Tcp, Udp};
use support::*;

const GATEWAY_V4: &str = "10.231.1.1";
const GATEWAY_V6: &str = "fd31:1::1";

#[test]
fn pods_and_host_reach_each_other() {
    let mut machine = Machine::new();
    let (one, two) = (machine.pod(&[]), machine.pod(&[]));
    let _server = TcpServer::start(&two.namespace, "[::]:80");
    assert_eq!(ask(&one.namespace, two.v4(), 80).unwrap(), one.v4());
    assert_eq!(ask(&one.namespace, two.v6(), 80).unwrap(), one.v6());
    assert_eq!(
        ask(&machine.host, two.v4(), 80).unwrap(),
        address(GATEWAY_V4)
    );
    assert_eq!(
        ask(&machine.host, two.v6(), 80).unwrap(),
        address(GATEWAY_V6)
    );
    let _host_server = TcpServer::start(&machine.host, "[::]:81");
    assert_eq!(
        ask(&one.namespace, address(GATEWAY_V4), 81).unwrap(),
        one.v4()
    );
    assert_eq!(
        ask(&one.namespace, address(GATEWAY_V6), 81).unwrap(),
        one.v6()
    );
    assert_eq!(
        ask(&one.namespace, one.v4(), 82).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
}

#[test]
fn pods_reach_the_outside_with_the_hosts_address() {
    let mut machine = Machine::new();
    let pod = machine.pod(&[]);
    let _server = TcpServer::start(&machine.outside, "[::]:80");
    assert_eq!(
        ask(&pod.namespace, address(OUTSIDE_V4), 80).unwrap(),
        address(HOST_V4)
    );
    assert_eq!(
        ask(&pod.namespace, address(OUTSIDE_V6), 80).unwrap(),
        address(HOST_V6)
    );
}

#[test]
fn host_ports_are_open_everywhere() {
    let mut machine = Machine::new();
    let pod = machine.pod(&[port(Tcp, 8080, 80, None)]);
    let other = machine.pod(&[]);
    let _server = TcpServer::start(&pod.namespace, "[::]:80");
    // From the outside, seen with its own address.
    assert_eq!(
        ask(&machine.outside, address(HOST_V4), 8080).unwrap(),
        address(OUTSIDE_V4)
    );
    assert_eq!(
        ask(&machine.outside, address(HOST_V6), 8080).unwrap(),
        address(OUTSIDE_V6)
    );
    // From the host itself, by all of its addresses.
    for host in [HOST_V4, HOST_V6, GATEWAY_V4, GATEWAY_V6, "127.0.0.1"] {
        ask(&machine.host, address(host), 8080)
            .unwrap_or_else(|error| panic!("host by {host}: {error}"));
    }
    // Refused at once, so that clients of "localhost" go on to 127.0.0.1.
    let refused = ask(&machine.host, address("::1"), 8080).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // From another pod, and from the pod itself.
    for from in [&other, &pod] {
        for host in [HOST_V4, HOST_V6, GATEWAY_V4, GATEWAY_V6] {
            ask(&from.namespace, address(host), 8080)
                .unwrap_or_else(|error| panic!("pod {} by {host}: {error}", from.v4()));
        }
    }
    // After the pod is detached the port is closed, though its link is still there.
    machine.detach(&pod.id);
    let refused = ask(&machine.host, address(HOST_V4), 8080).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn udp_ports_answer_from_where_they_were_asked() {
    let mut machine = Machine::new();
    let pod = machine.pod(&[port(Udp, 5353, 53, None)]);
    let server = udp(&pod.namespace, "0.0.0.0:53");
    for (from, host) in [
        (&machine.outside, HOST_V4),
        (&machine.host, "127.0.0.1"),
        (&pod.namespace, GATEWAY_V4),
    ] {
        let client = udp(from, "0.0.0.0:0");
        client.send_to(b"question", (host, 5353)).unwrap();
        let (text, peer) = next_datagram(&server).unwrap();
        assert_eq!(text, "question");
        server.send_to(b"answer", peer).unwrap();
        let (text, peer) = next_datagram(&client).unwrap();
        assert_eq!(
            (text.as_str(), peer.to_string()),
            ("answer", format!("{host}:5353"))
        );
    }
}

#[test]
fn a_host_ip_limits_the_port_to_it() {
    let mut machine = Machine::new();
    let local = machine.pod(&[port(Tcp, 8080, 80, Some("127.0.0.1"))]);
    let public = machine.pod(&[
        port(Tcp, 8080, 80, Some(HOST_V4)),
        port(Tcp, 8081, 80, Some(HOST_V6)),
    ]);
    let _servers = [&local, &public].map(|pod| TcpServer::start(&pod.namespace, "[::]:80"));
    ask(&machine.host, address("127.0.0.1"), 8080).unwrap();
    ask(&machine.outside, address(HOST_V4), 8080).unwrap();
    ask(&machine.outside, address(HOST_V6), 8081).unwrap();
    ask(&machine.outside, address(HOST_V6), 8080).unwrap_err();
    ask(&machine.outside, address(HOST_V4), 8081).unwrap_err();
    ask(&machine.host, address(GATEWAY_V4), 8080).unwrap_err();
}

#[test]
fn usage_counts_the_pods_traffic() {
    let mut machine = Machine::new();
    let pod = machine.pod(&[]);
    let receiver = udp(&machine.host, "0.0.0.0:9000");
    let sender = udp(&pod.namespace, "0.0.0.0:0");
    let id = pod.id.clone();
    let before = machine.with(move |network| network.usage(&id)).unwrap();
    for _ in 0..10 {
        sender.send_to(&[b'x'; 1000], (GATEWAY_V4, 9000)).unwrap();
        next_datagram(&receiver).unwrap();
    }
    let id = pod.id.clone();
    let after = machine.with(move |network| network.usage(&id)).unwrap();
    // Neighbour and router discovery make a little traffic of their own.
    assert!(
        after.tx_bytes >= before.tx_bytes + 10_000,
        "{before:?} {after:?}"
    );
    assert!(
        after.rx_bytes < before.rx_bytes + 10_000,
        "{before:?} {after:?}"
    );
}
