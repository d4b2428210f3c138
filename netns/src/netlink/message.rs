//! Messages: `struct nlmsghdr`, a protocol's fixed header, attributes.

use nix::errno::Errno;

use super::attribute::{Attributes, read_u32};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NLA_F_NESTED`: nf_tables and newer rtnetlink attributes insist on it.
const NESTED: u16 = 0x8000;
/// `NLM_F_CAPPED`: the error does not repeat the request.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes with more about the error follow.
const ACK_ATTRIBUTES: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the text for people.
const ACK_TEXT: u16 = 1;

/// One request under construction, with words that say what it is for (they appear in errors).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    what: String,
    role: Role,
}

/// Whether a message asks for something, or only marks the begin or end of an nfnetlink batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Request,
    Frame,
}

impl Message {
    /// A request of type `kind`; `flags` are `NLM_F_*` beside `NLM_F_REQUEST`; `header` is the protocol's fixed header.
    pub(crate) fn new(kind: u16, flags: i32, header: &[u8], what: impl Into<String>) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes()); // length, set by `finish`
        bytes.extend_from_slice(&kind.to_ne_bytes());
        // NLM_F_* all fit in sixteen bits: the field of the header has no more.
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]); // sequence, set by `finish`; port, set by the kernel
        bytes.extend_from_slice(header);
        let mut message = Self {
            bytes,
            what: what.into(),
            role: Role::Request,
        };
        message.pad();
        message
    }

    /// Marks the begin or end of a batch; never acknowledged.
    pub(crate) fn frame(kind: u16, header: &[u8], what: &'static str) -> Self {
        Self {
            role: Role::Frame,
            ..Self::new(kind, 0, header, what)
        }
    }

    /// Whether the message only marks the begin or end of a batch.
    pub(super) fn is_frame(&self) -> bool {
        self.role == Role::Frame
    }

    /// What the message asks for, in words.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Writes an attribute's header at `start`, once its payload is complete.
    fn close_attribute(&mut self, start: usize, kind: u16) {
        let length = self.bytes.len() - start;
        // Callers keep attributes under 64 KiB: the longest are element lists, cut by `nft::element`.
        debug_assert!(
            length <= usize::from(u16::MAX),
            "attribute of {length} bytes"
        );
        self.bytes[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.pad();
    }

    /// Adds an attribute.
    pub(crate) fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        self.put(kind, payload);
        self
    }

    /// Adds an attribute, in place.
    pub(crate) fn put(&mut self, kind: u16, payload: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(payload);
        self.close_attribute(start, kind);
    }

    /// Adds an attribute of text, closed by a zero.
    pub(crate) fn text(mut self, kind: u16, text: &str) -> Self {
        self.put_text(kind, text);
        self
    }

    /// Adds an attribute of text closed by a zero, in place.
    pub(crate) fn put_text(&mut self, kind: u16, text: &str) {
        let mut payload = Vec::with_capacity(text.len() + 1);
        payload.extend_from_slice(text.as_bytes());
        payload.push(0);
        self.put(kind, &payload);
    }

    /// Adds an attribute that holds the attributes which `fill` adds.
    pub(crate) fn nest(mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> Self {
        self.put_nested(kind, fill);
        self
    }

    /// Adds an attribute that holds the attributes which `fill` adds, in place.
    pub(crate) fn put_nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        self.close_attribute(start, kind | NESTED);
    }

    /// Adds bytes that are no attribute (the fixed header inside `VETH_INFO_PEER`).
    pub(crate) fn put_raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Appends the finished message to `batch`.
    pub(super) fn finish(&self, batch: &mut Vec<u8>, sequence: u32, extra_flags: i32) {
        let start = batch.len();
        batch.extend_from_slice(&self.bytes);
        // A message is far below 4 GiB.
        batch[start..start + 4].copy_from_slice(&(self.bytes.len() as u32).to_ne_bytes());
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | extra_flags as u16;
        batch[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        batch[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }

    /// The bytes as they would be sent alone with sequence number 0.
    #[cfg(test)]
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.finish(&mut bytes, 0, 0);
        bytes
    }
}

/// One message from the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The request with this sequence number is done.
    Ack { sequence: u32 },
    /// The request with this sequence number was refused.
    Refused {
        sequence: u32,
        errno: Errno,
        detail: Option<String>,
    },
    /// A dump is complete.
    Done { sequence: u32 },
    /// An object: message type, and everything after the netlink header.
    Object {
        sequence: u32,
        kind: u16,
        payload: Vec<u8>,
    },
}

/// Splits a received datagram. `None` when it is not a run of whole messages.
pub(crate) fn parse(mut datagram: &[u8]) -> Option<Vec<Reply>> {
    let mut replies = Vec::new();
    while !datagram.is_empty() {
        let header = datagram.first_chunk::<HEADER>()?;
        let length = usize::try_from(read_u32(header)?).ok()?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let flags = u16::from_ne_bytes([header[6], header[7]]);
        let sequence = read_u32(&header[8..])?;
        let payload = datagram.get(HEADER..length)?;
        replies.extend(match i32::from(kind) {
            libc::NLMSG_NOOP => None,
            libc::NLMSG_ERROR => Some(parse_error(payload, flags, sequence)?),
            libc::NLMSG_DONE => Some(parse_done(payload, sequence)),
            _ => Some(Reply::Object {
                sequence,
                kind,
                payload: payload.to_vec(),
            }),
        });
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
    Some(replies)
}

/// `struct nlmsgerr`: the negative errno, the request's header, then (unless capped) the request, then attributes.
fn parse_error(payload: &[u8], flags: u16, sequence: u32) -> Option<Reply> {
    let code = read_u32(payload)?.cast_signed();
    if code == 0 {
        return Some(Reply::Ack { sequence });
    }
    let request = payload.get(4..)?;
    let echoed = if flags & CAPPED == 0 {
        usize::try_from(read_u32(request)?).ok()?
    } else {
        HEADER
    };
    let detail = (flags & ACK_ATTRIBUTES != 0)
        .then(|| request.get(echoed.checked_next_multiple_of(4)?..))
        .flatten()
        .and_then(|attributes| Attributes::new(attributes).text(ACK_TEXT))
        .map(str::to_owned);
    Some(Reply::Refused {
        sequence,
        errno: Errno::from_raw(code.wrapping_neg()),
        detail,
    })
}

/// `NLMSG_DONE` of a dump carries 0 or a negative errno.
fn parse_done(payload: &[u8], sequence: u32) -> Reply {
    match read_u32(payload).map(u32::cast_signed) {
        Some(code) if code < 0 => Reply::Refused {
            sequence,
            errno: Errno::from_raw(code.wrapping_neg()),
            detail: None,
        },
        _ => Reply::Done { sequence },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn builds_header_padding_and_nesting() {
        let message = Message::new(16, libc::NLM_F_CREATE, &[1, 2], "make a link")
            .text(3, "lo")
            .nest(18, |inner| inner.put(1, &[9]));
        #[rustfmt::skip]
        assert_eq!(message.encoded(), [
            40, 0, 0, 0, 16, 0, 0x01, 0x04, 0, 0, 0, 0, 0, 0, 0, 0,
            1, 2, 0, 0,
            7, 0, 3, 0, b'l', b'o', 0, 0,
            12, 0, 18, 0x80, 5, 0, 1, 0, 9, 0, 0, 0,
        ]);
    }

    #[test]
    fn finishing_sets_sequence_and_flags_in_the_batch() {
        let mut batch = vec![0xaa; 4];
        Message::new(20, 0, &[], "x").finish(&mut batch, 7, libc::NLM_F_ACK);
        assert_eq!(
            batch[4..],
            [16, 0, 0, 0, 20, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    fn error_message(flags: u16, code: i32, tail: &[u8]) -> Vec<u8> {
        let mut bytes = (20 + tail.len() as u32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&2u16.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&5u32.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(tail);
        bytes
    }

    #[test]
    fn reads_acks_and_errors_with_their_text() {
        assert_eq!(
            parse(&error_message(CAPPED, 0, &[0; 16])).unwrap(),
            [Reply::Ack { sequence: 5 }]
        );
        let mut tail = vec![0; 16];
        tail.extend_from_slice(&[8, 0, 1, 0, b'n', b'o', b'!', 0]);
        let refused = |detail: Option<&str>| Reply::Refused {
            sequence: 5,
            errno: Errno::EEXIST,
            detail: detail.map(str::to_owned),
        };
        assert_eq!(
            parse(&error_message(
                CAPPED | ACK_ATTRIBUTES,
                -libc::EEXIST,
                &tail
            ))
            .unwrap(),
            [refused(Some("no!"))]
        );
        assert_eq!(
            parse(&error_message(CAPPED, -libc::EEXIST, &tail)).unwrap(),
            [refused(None)]
        );
    }

    #[test]
    fn refuses_truncated_datagrams() {
        let whole = error_message(CAPPED, 0, &[0; 16]);
        assert_eq!(parse(&[]), Some(vec![]));
        for length in 1..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_error_payload_is_parsed_without_panic(
            payload in proptest::collection::vec(any::<u8>(), 0..80), flags in any::<u16>()
        ) {
            let _ = parse_error(&payload, flags, 1);
        }
    }
}
