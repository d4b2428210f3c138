//! Frames as a malicious pod sends them: past its own routing, with any addresses.
#![allow(unsafe_code)] // sendto(2) on a packet socket

use std::net::Ipv4Addr;
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
        let sum: u32 = ip
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());

        let ether = [&self.destination_mac[..], &self.source_mac, &[8, 0]].concat();
        [ether, ip, udp].concat()
    }

    /// Sends the frame out of the namespace's `eth0`.
    pub fn send(&self, from: &Namespace) {
        let bytes = self.bytes();
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
}
