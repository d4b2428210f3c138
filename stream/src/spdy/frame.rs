//! SPDY/3.1's frames, without their sockets: SPDY/3, section 2.2 and 2.6.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::spdy::SpdyError;

/// The version in control frames; 3.1 says 3 there.
const VERSION: u16 = 3;

/// Bytes of a control frame behind its header. Only blocks of headers are longer than a few bytes, and those that
/// Kubernetes sends have some hundred.
pub(super) const MAX_CONTROL: usize = 16 * 1024;

/// The sender says no more on the stream.
const FLAG_FIN: u8 = 1;
/// The receiver has nothing to say on the stream.
const FLAG_UNIDIRECTIONAL: u8 = 2;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// The identifier in SETTINGS of the window that streams begin with.
const SETTINGS_INITIAL_WINDOW: u32 = 7;
/// Settings of a frame; there are eight identifiers.
const MAX_SETTINGS: usize = 64;

/// The ids of our PINGs; a server's are even.
pub(super) mod ping {
    /// Finds out whether the peer has windows.
    pub(in crate::spdy) const PROBE: u32 = 2;
    /// Finds out whether the peer is there.
    pub(in crate::spdy) const STALL: u32 = 4;
}

/// Whether a frame is the sender's last of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    Last,
    More,
}

impl Fin {
    fn of(flags: u8) -> Self {
        if flags & FLAG_FIN != 0 {
            Self::Last
        } else {
            Self::More
        }
    }

    fn flags(self) -> u8 {
        match self {
            Self::Last => FLAG_FIN,
            Self::More => 0,
        }
    }
}

/// Why a stream is given up; section 2.6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Reset {
    Protocol = 1,
    InvalidStream = 2,
    Refused = 3,
    FlowControl = 7,
}

/// Why a connection is given up; section 2.6.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum GoAway {
    Ok = 0,
    Protocol = 1,
}

/// The first 8 bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameHeader {
    Data {
        stream: u32,
        fin: Fin,
        length: usize,
    },
    Control {
        version: u16,
        kind: u16,
        flags: u8,
        length: usize,
    },
}

impl FrameHeader {
    pub(super) const LENGTH: usize = 8;

    pub(super) fn parse(bytes: [u8; Self::LENGTH]) -> Self {
        let [a, b, c, d, flags, x, y, z] = bytes;
        let length = u32::from_be_bytes([0, x, y, z]) as usize;
        if a & 0x80 == 0 {
            return Self::Data {
                stream: u32::from_be_bytes([a, b, c, d]),
                fin: Fin::of(flags),
                length,
            };
        }
        Self::Control {
            version: u16::from_be_bytes([a & 0x7f, b]),
            kind: u16::from_be_bytes([c, d]),
            flags,
            length,
        }
    }

    /// Of a data frame that is sent; the length is below 2²⁴.
    pub(super) fn data(stream: u32, fin: Fin, length: usize) -> Bytes {
        debug_assert!(length < 1 << 24);
        let mut header = BytesMut::with_capacity(Self::LENGTH);
        header.put_u32(stream);
        header.put_u32(u32::from(fin.flags()) << 24 | length as u32);
        header.freeze()
    }
}

/// A control frame that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    SynStream {
        stream: u32,
        fin: Fin,
        reply: Reply,
        block: Bytes,
    },
    /// Headers that mean nothing to us, and yet are part of the compressed stream.
    Headers {
        stream: u32,
        fin: Fin,
        block: Bytes,
    },
    RstStream {
        stream: u32,
    },
    /// The initial window, when it was set.
    Settings {
        initial_window: Option<u32>,
    },
    Ping(u32),
    GoAway,
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// Of a type that nobody knows: section 2.2.1 says to ignore it.
    Unknown,
}

/// Whether the opener of a stream listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Wanted,
    Unwanted,
}

impl Control {
    pub(super) fn parse(
        version: u16,
        kind: u16,
        flags: u8,
        mut payload: Bytes,
    ) -> Result<Self, SpdyError> {
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        let least = match kind {
            SYN_STREAM => 10,
            SYN_REPLY | HEADERS | SETTINGS | PING => 4,
            RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
            _ => return Ok(Self::Unknown),
        };
        if payload.len() < least {
            return Err(SpdyError::Truncated { kind });
        }
        let first = payload.get_u32();
        let stream = first & 0x7fff_ffff;
        Ok(match kind {
            SYN_STREAM => {
                payload.advance(6); // the stream it belongs to, priority and slot
                let reply = if flags & FLAG_UNIDIRECTIONAL == 0 {
                    Reply::Wanted
                } else {
                    Reply::Unwanted
                };
                Self::SynStream {
                    stream,
                    fin: Fin::of(flags),
                    reply,
                    block: payload,
                }
            }
            SYN_REPLY | HEADERS => Self::Headers {
                stream,
                fin: Fin::of(flags),
                block: payload,
            },
            RST_STREAM => Self::RstStream { stream },
            SETTINGS => Self::settings(first as usize, payload)?,
            PING => Self::Ping(first),
            GOAWAY => Self::GoAway,
            _ => Self::WindowUpdate {
                stream,
                delta: payload.get_u32() & 0x7fff_ffff,
            },
        })
    }

    fn settings(count: usize, mut payload: Bytes) -> Result<Self, SpdyError> {
        if count > MAX_SETTINGS || payload.len() < count * 8 {
            return Err(SpdyError::Truncated { kind: SETTINGS });
        }
        let mut initial_window = None;
        for _ in 0..count {
            let id = payload.get_u32() & 0x00ff_ffff;
            let value = payload.get_u32();
            if id == SETTINGS_INITIAL_WINDOW {
                initial_window = Some(value & 0x7fff_ffff);
            }
        }
        Ok(Self::Settings { initial_window })
    }
}

/// Control frames that are sent, one after the other.
#[derive(Debug, Default)]
pub(super) struct ControlFrames(BytesMut);

impl ControlFrames {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes what was gathered.
    pub(super) fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }

    fn begin(&mut self, kind: u16, length: usize) {
        self.0.put_u16(0x8000 | VERSION);
        self.0.put_u16(kind);
        self.0.put_u32(length as u32);
    }

    pub(super) fn syn_reply(&mut self, stream: u32, block: &[u8]) {
        self.begin(SYN_REPLY, 4 + block.len());
        self.0.put_u32(stream);
        self.0.put_slice(block);
    }

    pub(super) fn rst_stream(&mut self, stream: u32, reset: Reset) {
        self.begin(RST_STREAM, 8);
        self.0.put_u32(stream);
        self.0.put_u32(reset as u32);
    }

    pub(super) fn ping(&mut self, id: u32) {
        self.begin(PING, 4);
        self.0.put_u32(id);
    }

    pub(super) fn go_away(&mut self, last_stream: u32, status: GoAway) {
        self.begin(GOAWAY, 8);
        self.0.put_u32(last_stream);
        self.0.put_u32(status as u32);
    }

    pub(super) fn window_update(&mut self, stream: u32, delta: u32) {
        self.begin(WINDOW_UPDATE, 8);
        self.0.put_u32(stream);
        self.0.put_u32(delta);
    }
}

#[cfg(test)]
mod tests {
    use podwright_instructions::counted;
    use proptest::prelude::*;

    use super::*;

    /// Takes one control frame off the front.
    fn parse(frames: &mut Bytes) -> Control {
        let header = frames.split_to(FrameHeader::LENGTH);
        let header = FrameHeader::parse(header[..].try_into().unwrap());
        let FrameHeader::Control {
            version,
            kind,
            flags,
            length,
        } = header
        else {
            panic!("{header:?}");
        };
        Control::parse(version, kind, flags, frames.split_to(length)).unwrap()
    }

    /// One frame of each kind that a server sends.
    fn sent() -> Bytes {
        let mut frames = ControlFrames::default();
        frames.syn_reply(1, b"block");
        frames.rst_stream(3, Reset::Refused);
        frames.ping(0x8000_0002);
        frames.go_away(5, GoAway::Ok);
        frames.window_update(7, 0x1234);
        frames.take()
    }

    #[test]
    fn instructions_of_control_frames() {
        let count = counted(|| {
            let mut frames = sent();
            let mut count = 0;
            while !frames.is_empty() {
                parse(&mut frames);
                count += 1;
            }
            count
        });
        assert_eq!(count, 5);
    }

    #[test]
    fn what_is_sent_can_be_read() {
        let mut frames = sent();
        let block = Bytes::from_static(b"block");
        let fin = Fin::More;
        assert_eq!(
            parse(&mut frames),
            Control::Headers {
                stream: 1,
                fin,
                block
            }
        );
        assert_eq!(parse(&mut frames), Control::RstStream { stream: 3 });
        assert_eq!(parse(&mut frames), Control::Ping(0x8000_0002));
        assert_eq!(parse(&mut frames), Control::GoAway);
        let update = Control::WindowUpdate {
            stream: 7,
            delta: 0x1234,
        };
        assert_eq!(parse(&mut frames), update);
        assert!(frames.is_empty());
    }

    #[test]
    fn frames_are_those_of_the_specification() {
        let mut frames = ControlFrames::default();
        frames.ping(2);
        assert_eq!(frames.take()[..], [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2]);
        let data = FrameHeader::data(5, Fin::Last, 0x010203);
        assert_eq!(data[..], [0, 0, 0, 5, 1, 1, 2, 3]);
        let settings = [0u8, 0, 0, 1, 1, 0, 0, 7, 0, 1, 0, 0];
        let settings = Control::parse(3, SETTINGS, 0, Bytes::copy_from_slice(&settings)).unwrap();
        let initial_window = Some(0x10000);
        assert_eq!(settings, Control::Settings { initial_window });
    }

    #[test]
    fn broken_frames_are_refused() {
        for kind in [
            SYN_STREAM,
            SYN_REPLY,
            RST_STREAM,
            SETTINGS,
            PING,
            GOAWAY,
            HEADERS,
            WINDOW_UPDATE,
        ] {
            let error = Control::parse(3, kind, 0, Bytes::from_static(&[0; 3])).unwrap_err();
            assert!(
                matches!(error, SpdyError::Truncated { .. }),
                "{kind}: {error}"
            );
        }
        let error = Control::parse(2, PING, 0, Bytes::from_static(&[0; 4])).unwrap_err();
        assert!(matches!(error, SpdyError::Version(2)));
        let many = Bytes::from_static(&[0xff; 12]);
        assert!(Control::parse(3, SETTINGS, 0, many).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(
            header: [u8; 8],
            kind in 0u16..12,
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            FrameHeader::parse(header);
            let _ = Control::parse(3, kind, header[4], payload.into());
        }

        #[test]
        fn data_headers_round_trip(stream in 0u32..1 << 31, last: bool, length in 0usize..1 << 24) {
            let fin = if last { Fin::Last } else { Fin::More };
            let header = FrameHeader::data(stream, fin, length);
            let parsed = FrameHeader::parse(header[..].try_into().unwrap());
            prop_assert_eq!(parsed, FrameHeader::Data { stream, fin, length });
        }
    }
}
