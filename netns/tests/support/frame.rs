//! Frames as a malicious pod sends them: past its own routing, with any addresses.
#![allow(unsafe_code)] // sendto(2) on a packet socket

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::Namespace;

/// A UDP datagram in IPv4 in Ethernet.
#[derive(Clone, Copy)]
pub struct UdpFrame {
    pub source_mac: [u8; 6],
    pub destination_mac: [u8; 6],
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub port: u16,
    pub text: &'static str,
}

impl UdpFrame {
    fn bytes(&self) -> Vec<u8> {
        let mut udp = 4000u16.to_be_bytes().to_vec();
        udp.extend_from_slice(&self.port.to_be_bytes());
        udp.extend_from_slice(&(8 + self.text.len() as u16).to_be_bytes());
        udp.extend_from_slice(&[0, 0]); // no checksum
        udp.extend_from_slice(self.text.as_bytes());

        let mut ip = vec![0x45, 0];
        ip.extend_from_slice(&(20 + udp.len() as u16).to_be_bytes());
        ip.extend_from_slice(&[0, 1, 0, 0, 64, 17, 0, 0]);
        ip.extend_from_slice(&self.source.octets());
        ip.extend_from_slice(&self.destination.octets());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum);

        let ether = [&self.destination_mac[..], &self.source_mac, &[8, 0]].concat();
        [ether, ip, udp].concat()
    }

    /// Sends it out of the namespace's `eth0`.
    pub fn send(&self, from: &Namespace) {
        send(self.bytes(), from);
    }
}

/// An ICMPv6 message without content to all nodes of the link.
#[derive(Clone, Copy)]
pub struct Icmpv6Frame {
    pub source_mac: [u8; 6],
    pub source: Ipv6Addr,
    pub kind: u8,
}

impl Icmpv6Frame {
    fn bytes(&self) -> Vec<u8> {
        let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let mut message = [0; 24];
        message[0] = self.kind;
        // RFC 4443 §2.3: over addresses, length, protocol and message.
        let (length, protocol) = ([0, 0, 0, message.len() as u8], [0, 0, 0, 58]);
        let checked = [
            &self.source.octets()[..],
            &to.octets(),
            &length,
            &protocol,
            &message,
        ]
        .concat();
        message[2..4].copy_from_slice(&checksum(&checked));

        let mut ip = vec![0x60, 0, 0, 0, 0, message.len() as u8, 58, 255];
        ip.extend_from_slice(&self.source.octets());
        ip.extend_from_slice(&to.octets());
        let ether = [
            &[0x33, 0x33, 0, 0, 0, 1],
            &self.source_mac[..],
            &[0x86, 0xdd],
        ]
        .concat();
        [ether, ip, message.to_vec()].concat()
    }

    /// Sends it out of the namespace's `eth0`.
    pub fn send(&self, from: &Namespace) {
        send(self.bytes(), from);
    }
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let pairs = bytes.chunks(2);
    let sum: u32 = pairs
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

fn send(bytes: Vec<u8>, from: &Namespace) {
    from.run(move || {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .expect("packet socket");
        // SAFETY: all-zero bytes are a valid sockaddr_ll: it holds integers only.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = if_nametoindex("eth0").expect("eth0") as i32;
        // SAFETY: buffer and address live through the call, and their own sizes are given.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        Errno::result(sent).expect("send a frame");
    });
}
