//! Expressions: the instructions that rules are made of. A rule ends at the first comparison or lookup that fails.

use crate::config::LinkName;
use crate::netlink::Message;

/// A 32-bit register (`NFT_REG32_00` + n). A wider value fills those that follow; keys of several fields lie in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register(pub(crate) u8);

impl Register {
    pub(crate) const FIRST: Self = Self(0);

    /// `NFT_REG32_00` is 8. The kernel's answers alias it with the older 128-bit register 1.
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

/// Where in a packet a field lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    base: u32,
    offset: u32,
    bytes: u32,
}

impl Field {
    const fn new(base: u32, offset: u32, bytes: u32) -> Self {
        Self {
            base,
            offset,
            bytes,
        }
    }

    /// Number of 32-bit registers that the field fills.
    pub(crate) const fn registers(self) -> u8 {
        self.bytes.div_ceil(4) as u8
    }

    pub(crate) const ETHER_SOURCE: Self = Self::new(0, 6, 6);
    pub(crate) const ARP_SENDER_MAC: Self = Self::new(1, 8, 6);
    pub(crate) const ARP_SENDER_ADDRESS: Self = Self::new(1, 14, 4);
    pub(crate) const IPV4_SOURCE: Self = Self::new(1, 12, 4);
    pub(crate) const IPV4_DESTINATION: Self = Self::new(1, 16, 4);
    pub(crate) const IPV6_SOURCE: Self = Self::new(1, 8, 16);
    pub(crate) const IPV6_DESTINATION: Self = Self::new(1, 24, 16);
    /// TCP, UDP and SCTP have it in the same place.
    pub(crate) const DESTINATION_PORT: Self = Self::new(2, 2, 2);
    pub(crate) const ICMPV6_TYPE: Self = Self::new(2, 0, 1);
    pub(crate) const NEIGHBOUR_TARGET: Self = Self::new(2, 8, 16);
}

/// What is known about a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meta {
    /// EtherType, in network order.
    Protocol,
    /// Name of the link it came in by: 16 bytes.
    InputName,
    /// Name of the link it leaves by: 16 bytes.
    OutputName,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`: one byte.
    NetworkProtocol,
    /// `IPPROTO_*`: one byte.
    TransportProtocol,
}

/// Whether a comparison wants equality or the contrary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Equal,
    Different,
}

/// Whether a lookup wants the key in the set or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    Present,
    Absent,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    Return,
    Jump(&'static str),
}

/// IP version for translation (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IpVersion {
    V4,
    V6,
}

impl IpVersion {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    Meta(Meta, Register),
    Payload(Field, Register),
    /// Compares the register's first bytes.
    Compare(Register, Is, Vec<u8>),
    /// Register &= mask, in place.
    Mask(Register, Vec<u8>),
    /// Whether the key that begins in the register is in the set.
    Lookup(&'static str, Register, Membership),
    /// Replaces the key that begins in the register by the map's value for it.
    Map(&'static str, Register),
    /// Loads the route type (`RTN_*`, native order) of the destination address.
    DestinationType(Register),
    /// Loads conntrack's `IPS_*` bits (native order).
    ConntrackStatus(Register),
    /// Translates the destination to the address and port in the registers.
    TranslateDestination(IpVersion, Register, Register),
    /// Translates the source to the address of the link that the packet leaves by.
    Masquerade,
    Verdict(Verdict),
}

impl Expression {
    /// Compares a link's name, whole.
    pub(crate) fn link(meta: Meta, is: Is, name: &LinkName) -> [Self; 2] {
        [
            Self::Meta(meta, Register::FIRST),
            Self::Compare(Register::FIRST, is, link_key(name.as_str())),
        ]
    }

    /// Appends the expression as a list element.
    pub(super) fn put(&self, list: &mut Message) {
        const NFTA_LIST_ELEM: u16 = 1;
        const NFTA_EXPR_NAME: u16 = 1;
        const NFTA_EXPR_DATA: u16 = 2;
        list.put_nested(NFTA_LIST_ELEM, |expression| {
            expression.put_text(NFTA_EXPR_NAME, self.name());
            expression.put_nested(NFTA_EXPR_DATA, |data| self.put_data(data));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta(..) => "meta",
            Self::Payload(..) => "payload",
            Self::Compare(..) => "cmp",
            Self::Mask(..) => "bitwise",
            Self::Lookup(..) | Self::Map(..) => "lookup",
            Self::DestinationType(_) => "fib",
            Self::ConntrackStatus(_) => "ct",
            Self::TranslateDestination(..) => "nat",
            Self::Masquerade => "masq",
            Self::Verdict(_) => "immediate",
        }
    }

    /// The numbers are the `NFTA_*` of each expression, as its comment names them.
    fn put_data(&self, data: &mut Message) {
        match self {
            // NFTA_META_DREG, _KEY
            Self::Meta(meta, register) => {
                put_numbers(data, &[(1, register.number()), (2, meta.number())])
            }
            // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN
            Self::Payload(field, register) => put_numbers(
                data,
                &[
                    (1, register.number()),
                    (2, field.base),
                    (3, field.offset),
                    (4, field.bytes),
                ],
            ),
            // NFTA_CMP_SREG, _OP, _DATA
            Self::Compare(register, is, value) => {
                put_numbers(
                    data,
                    &[(1, register.number()), (2, u32::from(*is == Is::Different))],
                );
                put_value(data, 3, value);
            }
            // NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR
            Self::Mask(register, mask) => {
                let number = register.number();
                put_numbers(data, &[(1, number), (2, number), (3, mask.len() as u32)]);
                put_value(data, 4, mask);
                put_value(data, 5, &vec![0; mask.len()]);
            }
            // NFTA_LOOKUP_SET, _SREG, _FLAGS (NFT_LOOKUP_F_INV)
            Self::Lookup(set, register, membership) => {
                data.put_text(1, set);
                put_numbers(
                    data,
                    &[
                        (2, register.number()),
                        (5, u32::from(*membership == Membership::Absent)),
                    ],
                );
            }
            // NFTA_LOOKUP_SET, _SREG, _DREG
            Self::Map(map, register) => {
                data.put_text(1, map);
                put_numbers(data, &[(2, register.number()), (3, register.number())]);
            }
            // NFTA_FIB_DREG, _RESULT (NFT_FIB_RESULT_ADDRTYPE), _FLAGS (NFTA_FIB_F_DADDR)
            Self::DestinationType(register) => {
                put_numbers(data, &[(1, register.number()), (2, 3), (3, 2)])
            }
            // NFTA_CT_DREG, _KEY (NFT_CT_STATUS)
            Self::ConntrackStatus(register) => put_numbers(data, &[(1, register.number()), (2, 2)]),
            // NFTA_NAT_TYPE (NFT_NAT_DNAT), _FAMILY, _REG_ADDR_MIN, _REG_PROTO_MIN
            Self::TranslateDestination(version, address, port) => put_numbers(
                data,
                &[
                    (1, 1),
                    (2, u32::from(version.number())),
                    (3, address.number()),
                    (5, port.number()),
                ],
            ),
            Self::Masquerade => {}
            // NFTA_IMMEDIATE_DREG (NFT_REG_VERDICT), _DATA with NFTA_DATA_VERDICT
            Self::Verdict(verdict) => {
                put_numbers(data, &[(1, 0)]);
                data.put_nested(2, |data| data.put_nested(2, |inner| verdict.put(inner)));
            }
        }
    }
}

impl Meta {
    /// `NFT_META_*`.
    fn number(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::InputName => 6,
            Self::OutputName => 7,
            Self::NetworkProtocol => 15,
            Self::TransportProtocol => 16,
        }
    }
}

impl Verdict {
    /// `NFTA_VERDICT_CODE` and, for a jump, `NFTA_VERDICT_CHAIN`.
    fn put(self, data: &mut Message) {
        let code: i32 = match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Return => -5,
        };
        data.put(1, &code.to_be_bytes());
        if let Self::Jump(chain) = self {
            data.put_text(2, chain);
        }
    }
}

fn put_numbers(data: &mut Message, numbers: &[(u16, u32)]) {
    for (kind, number) in numbers {
        data.put(*kind, &number.to_be_bytes());
    }
}

/// Puts `NFTA_DATA_VALUE` inside an attribute.
pub(super) fn put_value(message: &mut Message, kind: u16, value: &[u8]) {
    message.put_nested(kind, |data| data.put(1, value));
}

/// A link's name as keys and comparisons have it: 16 bytes, filled with zeros.
pub(crate) fn link_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(libc::IFNAMSIZ, 0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(expression: &Expression) -> Vec<u8> {
        let mut message = Message::new(0, 0, &[], "");
        expression.put(&mut message);
        message.encoded().split_off(16)
    }

    #[test]
    fn bytes_of_expressions() {
        #[rustfmt::skip]
        let cases: [(Expression, &[u8]); 3] = [
            (Expression::Meta(Meta::TransportProtocol, Register(1)), &[
                36, 0, 1, 0x80, 9, 0, 1, 0, b'm', b'e', b't', b'a', 0, 0, 0, 0,
                20, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 9, 8, 0, 2, 0, 0, 0, 0, 16,
            ]),
            (Expression::Compare(Register::FIRST, Is::Different, vec![6]), &[
                44, 0, 1, 0x80, 8, 0, 1, 0, b'c', b'm', b'p', 0,
                32, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 8, 8, 0, 2, 0, 0, 0, 0, 1,
                12, 0, 3, 0x80, 5, 0, 1, 0, 6, 0, 0, 0,
            ]),
            (Expression::Masquerade, &[
                20, 0, 1, 0x80, 9, 0, 1, 0, b'm', b'a', b's', b'q', 0, 0, 0, 0, 4, 0, 2, 0x80,
            ]),
        ];
        for (expression, wanted) in cases {
            assert_eq!(encoded(&expression), wanted, "{expression:?}");
        }
    }

    #[test]
    fn bytes_of_a_jump() {
        #[rustfmt::skip]
        assert_eq!(encoded(&Expression::Verdict(Verdict::Jump("pod"))), [
            56, 0, 1, 0x80, 14, 0, 1, 0, b'i', b'm', b'm', b'e', b'd', b'i', b'a', b't', b'e', 0, 0, 0,
            36, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0,
            24, 0, 2, 0x80, 20, 0, 2, 0x80, 8, 0, 1, 0, 0xff, 0xff, 0xff, 0xfd,
            8, 0, 2, 0, b'p', b'o', b'd', 0,
        ]);
    }
}
