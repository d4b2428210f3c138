//! Several connections on one Unix socket: frames of a connection id, a length and a payload.
//!
//! Only two connections exist. Frames of others are read and forgotten, as the reference does, so that a later protocol may
//! add some. A frame says nothing about messages: one message may come in many frames, and many in one.

/// A connection id and a length, both 32 bits, big-endian.
pub(crate) const HEADER: usize = 8;

/// The largest payload of a frame: a ttrpc message with its header.
pub(crate) const MAX_PAYLOAD: usize = crate::ttrpc::HEADER + crate::ttrpc::MAX_BODY;

/// The reference reads the beginning of a message into a buffer of this size, and fails (ENOMEM) when a frame that it finds
/// there is larger.
const FIRST_FRAME: usize = 4096;

/// A connection on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The plugin's service: the runtime calls.
    Plugin,
    /// The runtime's service: the plugin calls.
    Runtime,
}

impl Channel {
    pub(crate) fn id(self) -> u32 {
        match self {
            Self::Plugin => 1,
            Self::Runtime => 2,
        }
    }
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// None for a connection that is not known here.
    pub(crate) channel: Option<Channel>,
    pub(crate) length: usize,
}

/// A frame that is larger than any message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it sent a frame of {length} bytes; {MAX_PAYLOAD} is the most")]
pub(crate) struct GiantFrame {
    length: u32,
}

impl FrameHeader {
    pub(crate) fn decode(bytes: [u8; HEADER]) -> Result<Self, GiantFrame> {
        let [a, b, c, d, rest @ ..] = bytes;
        let length = u32::from_be_bytes(rest);
        let channel = match u32::from_be_bytes([a, b, c, d]) {
            1 => Some(Channel::Plugin),
            2 => Some(Channel::Runtime),
            _ => None,
        };
        match usize::try_from(length) {
            Ok(length) if length <= MAX_PAYLOAD => Ok(Self { channel, length }),
            _ => Err(GiantFrame { length }),
        }
    }
}

/// A message in frames: its beginning in a small one, all the rest in a second. The reference queues 256 frames that are not
/// read yet and gives up at the next, so there are no more than needed.
pub(crate) fn frames(channel: Channel, message: &[u8]) -> Vec<u8> {
    let (first, rest) = message.split_at(message.len().min(FIRST_FRAME));
    let mut out = Vec::with_capacity(message.len() + 2 * HEADER);
    for part in [first, rest] {
        if !part.is_empty() {
            // A message is at most MAX_PAYLOAD bytes, which fit.
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&channel.id().to_be_bytes());
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(mut bytes: &[u8]) -> Vec<(FrameHeader, &[u8])> {
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_first_chunk::<HEADER>().unwrap();
            let header = FrameHeader::decode(*head).unwrap();
            let (payload, rest) = rest.split_at(header.length);
            parts.push((header, payload));
            bytes = rest;
        }
        parts
    }

    proptest! {
        #[test]
        fn frames_hold_the_message_and_start_small(length in 0usize..20_000) {
            let message: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let bytes = frames(Channel::Runtime, &message);
            let parts = parts(&bytes);
            prop_assert!(parts.len() <= 2);
            prop_assert!(parts.first().is_none_or(|(header, _)| header.length <= FIRST_FRAME));
            prop_assert!(parts.iter().all(|(header, _)| header.channel == Some(Channel::Runtime)));
            let joined: Vec<u8> = parts.iter().flat_map(|(_, payload)| payload.to_vec()).collect();
            prop_assert_eq!(joined, message);
        }
    }

    #[test]
    fn giant_frames_are_refused_and_unknown_connections_known_as_such() {
        let header = |id: u32, length: u32| {
            let mut bytes = [0; HEADER];
            bytes[..4].copy_from_slice(&id.to_be_bytes());
            bytes[4..].copy_from_slice(&length.to_be_bytes());
            FrameHeader::decode(bytes)
        };
        assert_eq!(header(1, MAX_PAYLOAD as u32).unwrap().length, MAX_PAYLOAD);
        assert!(header(1, MAX_PAYLOAD as u32 + 1).is_err());
        assert!(header(2, u32::MAX).is_err());
        assert_eq!(header(3, 0).unwrap().channel, None);
        assert_eq!(header(0, 0).unwrap().channel, None);
    }
}
