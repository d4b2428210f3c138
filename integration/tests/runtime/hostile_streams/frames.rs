//! Frames of WebSocket (RFC 6455, section 5.2) and SPDY (draft 3.1, section 2.2), as wrong as one likes.

use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, write::ZlibEncoder};

/// Opcodes of WebSocket.
pub(super) const CONTINUATION: u8 = 0;
pub(super) const BINARY: u8 = 2;
pub(super) const RESERVED: u8 = 3;
pub(super) const PING: u8 = 9;
/// The bit of a message's last frame, above its opcode.
pub(super) const LAST: u8 = 0x80;
/// A bit that only an extension may set.
pub(super) const EXTENSION: u8 = 0x40;

/// A frame as clients have to send them. The mask is 0, which leaves the payload as it is.
pub(super) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..126), _) => frame.push(0x80 | short),
        (_, Ok(medium)) => {
            frame.push(0x80 | 126);
            frame.extend(medium.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The head of a masked binary frame that claims so many bytes.
pub(super) fn claims(length: u64) -> Vec<u8> {
    let mut frame = vec![LAST | BINARY, 0x80 | 127];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame
}

/// A frame as only servers may send them.
pub(super) fn unmasked(payload: &[u8; 4]) -> Vec<u8> {
    [&[LAST | BINARY, 4][..], payload].concat()
}

/// Types of SPDY's control frames.
pub(super) const SYN_STREAM: u16 = 1;
pub(super) const SYN_REPLY: u16 = 2;
pub(super) const RST_STREAM: u16 = 3;
pub(super) const SETTINGS: u16 = 4;
pub(super) const SPDY_PING: u16 = 6;
pub(super) const WINDOW_UPDATE: u16 = 9;

/// A control frame of version 3.
pub(super) fn control(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX) & 0x00ff_ffff;
    [&head(3, kind, length)[..], payload].concat()
}

/// A control frame's head, with any version and length.
pub(super) fn head(version: u16, kind: u16, length: u32) -> [u8; 8] {
    let [version_high, version_low] = (0x8000 | version).to_be_bytes();
    let [kind_high, kind_low] = kind.to_be_bytes();
    let [_, a, b, c] = length.to_be_bytes();
    [version_high, version_low, kind_high, kind_low, 0, a, b, c]
}

/// A data frame.
pub(super) fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX) & 0x00ff_ffff;
    [&stream.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
}

/// A new stream with this block of compressed headers.
pub(super) fn syn_stream(stream: u32, block: &[u8]) -> Vec<u8> {
    let numbers = [&stream.to_be_bytes()[..], &[0; 6]].concat();
    control(SYN_STREAM, &[&numbers[..], block].concat())
}

/// Two numbers, as RST_STREAM, WINDOW_UPDATE have them.
pub(super) fn pair(kind: u16, first: u32, second: u32) -> Vec<u8> {
    control(kind, &[first.to_be_bytes(), second.to_be_bytes()].concat())
}

/// Headers of SPDY 3, compressed: a count that may be wrong, and names with values.
pub(super) fn headers(count: u32, pairs: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut plain = count.to_be_bytes().to_vec();
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        plain.extend(u32::try_from(text.len())?.to_be_bytes());
        plain.extend(text.as_bytes());
    }
    compressed(&plain)
}

/// Compressed by itself: decompressors accept a stream that does not use the dictionary.
pub(super) fn compressed(plain: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain)?;
    Ok(encoder.flush_finish()?)
}

/// Some kilobytes that become `size` bytes of one header's name.
pub(super) fn bomb(size: u32) -> Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&1_u32.to_be_bytes())?;
    encoder.write_all(&size.to_be_bytes())?;
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..size / (64 * 1024) {
        encoder.write_all(&chunk)?;
    }
    Ok(encoder.flush_finish()?)
}
