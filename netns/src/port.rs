//! Host ports: what a pod asks for, and who has which.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

/// Transport protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// `IPPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(()),
        }
    }
}

/// A port of the host that leads to a port of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: NonZeroU16,
    /// Port on the host.
    pub host_port: NonZeroU16,
    /// The one host address on which the port is open. All addresses when absent; all IPv4 (or IPv6) addresses when
    /// it is `0.0.0.0` (or `::`).
    pub host_ip: Option<IpAddr>,
}

impl PortMapping {
    /// Whether both want the same port of the same address.
    fn collides_with(&self, other: &Self) -> bool {
        let addresses_meet = match (self.host_ip, other.host_ip) {
            (Some(one), Some(two)) => {
                one == two
                    || (one.is_ipv4() == two.is_ipv4()
                        && (one.is_unspecified() || two.is_unspecified()))
            }
            _ => true,
        };
        self.protocol == other.protocol && self.host_port == other.host_port && addresses_meet
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(address)) => write!(formatter, "[{address}]:")?,
            Some(IpAddr::V4(address)) => write!(formatter, "{address}:")?,
            None => {}
        }
        write!(formatter, "{}/{}", self.host_port, self.protocol)
    }
}

/// A wanted port belongs to another pod already, or is wanted twice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PortTaken {
    pub(crate) port: PortMapping,
    pub(crate) holder: String,
}

/// The host ports of all pods.
#[derive(Debug, Default)]
pub(crate) struct PortRegistry {
    /// Holders by protocol and host port: several when they are open on different addresses.
    holders: HashMap<(Protocol, NonZeroU16), Vec<(PortMapping, String)>>,
}

impl PortRegistry {
    /// Takes all of the ports for the pod, or none.
    pub(crate) fn take(&mut self, pod: &str, ports: &[PortMapping]) -> Result<(), PortTaken> {
        for (index, port) in ports.iter().enumerate() {
            if ports[..index]
                .iter()
                .any(|earlier| earlier.collides_with(port))
            {
                return Err(PortTaken {
                    port: *port,
                    holder: pod.to_owned(),
                });
            }
            let held = self
                .holders
                .get(&(port.protocol, port.host_port))
                .into_iter()
                .flatten();
            if let Some((_, holder)) = held
                .into_iter()
                .find(|(other, _)| other.collides_with(port))
            {
                return Err(PortTaken {
                    port: *port,
                    holder: holder.clone(),
                });
            }
        }
        for port in ports {
            self.holders
                .entry((port.protocol, port.host_port))
                .or_default()
                .push((*port, pod.to_owned()));
        }
        Ok(())
    }

    /// Frees the ports that the pod has.
    pub(crate) fn free(&mut self, pod: &str, ports: &[PortMapping]) {
        for port in ports {
            let key = (port.protocol, port.host_port);
            if let Some(held) = self.holders.get_mut(&key) {
                held.retain(|(_, holder)| holder != pod);
                if held.is_empty() {
                    self.holders.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn mapping(protocol: Protocol, host_port: u16, host_ip: Option<&str>) -> PortMapping {
        PortMapping {
            protocol,
            container_port: NonZeroU16::new(80).unwrap(),
            host_port: NonZeroU16::new(host_port).unwrap(),
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        }
    }

    #[test]
    fn ports_collide_where_addresses_meet() {
        use Protocol::{Tcp, Udp};
        for (one, two, is_taken) in [
            (mapping(Tcp, 80, None), mapping(Tcp, 80, None), true),
            (mapping(Tcp, 80, None), mapping(Udp, 80, None), false),
            (mapping(Tcp, 80, None), mapping(Tcp, 81, None), false),
            (
                mapping(Tcp, 80, None),
                mapping(Tcp, 80, Some("192.0.2.1")),
                true,
            ),
            (
                mapping(Tcp, 80, Some("192.0.2.1")),
                mapping(Tcp, 80, Some("192.0.2.2")),
                false,
            ),
            (
                mapping(Tcp, 80, Some("0.0.0.0")),
                mapping(Tcp, 80, Some("192.0.2.2")),
                true,
            ),
            (
                mapping(Tcp, 80, Some("0.0.0.0")),
                mapping(Tcp, 80, Some("::")),
                false,
            ),
        ] {
            let mut registry = PortRegistry::default();
            registry.take("a", &[one]).unwrap();
            let wanted = if is_taken {
                Err(PortTaken {
                    port: two,
                    holder: "a".to_owned(),
                })
            } else {
                Ok(())
            };
            assert_eq!(registry.take("b", &[two]), wanted);
        }
    }

    #[test]
    fn all_or_none_are_taken_and_freed_ones_are_free() {
        let (first, second) = (
            mapping(Protocol::Tcp, 1, None),
            mapping(Protocol::Tcp, 2, None),
        );
        let mut registry = PortRegistry::default();
        registry.take("a", &[second]).unwrap();
        registry.take("b", &[first, second]).unwrap_err();
        registry.free("a", &[second]);
        registry.take("b", &[first, second]).unwrap();
        registry.free("b", &[first, second]);
        assert!(registry.holders.is_empty());
        assert_eq!(registry.take("c", &[first, first]).unwrap_err().holder, "c");
    }
}
