//! The server's side of NBD, as far as QEMU needs it; see the protocol's `doc/proto.md`.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

use super::cache::{SECTOR, WriteCache};

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Handshake: the server is of the fixed new style, and leaves out padding.
const FIXED_NEW_STYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
/// Transmission: these flags mean something; flush, and force unit access, are understood.
const EXPORT_FLAGS: u16 = 1 | 4 | 8;

const OPTION_ABORT: u32 = 2;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = (1 << 31) + 1;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const FORCE_UNIT_ACCESS: u16 = 1;
/// NBD's number for EINVAL.
const INVALID: u32 = 22;

/// Options are names and lists of a few numbers.
const MAX_OPTION: u32 = 4096;
/// As the protocol advises where nothing else was agreed: 32 MiB.
const MAX_REQUEST: u32 = 32 << 20;

/// Serves until the client says that it goes, or goes.
pub(super) fn converse(stream: &UnixStream, cache: &mut WriteCache) -> io::Result<()> {
    let (mut input, mut output) = (io::BufReader::new(stream), stream);
    if negotiate(&mut input, &mut output, cache.size())? == Negotiated::Served {
        while answer(&mut input, &mut output, cache)? == Session::GoesOn {}
    }
    Ok(())
}

/// How the handshake has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Negotiated {
    Served,
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    GoesOn,
    Ended,
}

fn negotiate(input: &mut impl Read, output: &mut impl Write, size: u64) -> io::Result<Negotiated> {
    let mut greeting = Vec::new();
    greeting.extend(MAGIC.to_be_bytes());
    greeting.extend(OPTION_MAGIC.to_be_bytes());
    greeting.extend((FIXED_NEW_STYLE | NO_ZEROES).to_be_bytes());
    output.write_all(&greeting)?;
    let _client_flags: [u8; 4] = take(input)?;
    loop {
        expect(u64::from_be_bytes(take(input)?) == OPTION_MAGIC)?;
        let option = u32::from_be_bytes(take(input)?);
        let length = u32::from_be_bytes(take(input)?);
        expect(length <= MAX_OPTION)?;
        // Whatever name is asked for: there is one disk.
        io::copy(&mut input.take(length.into()), &mut io::sink())?;
        match option {
            OPTION_GO | OPTION_INFO => {
                output.write_all(&option_reply(option, REPLY_INFO, &export(size)))?;
                output.write_all(&option_reply(option, REPLY_INFO, &block_size()))?;
                output.write_all(&option_reply(option, REPLY_ACK, &[]))?;
                if option == OPTION_GO {
                    return Ok(Negotiated::Served);
                }
            }
            OPTION_ABORT => {
                output.write_all(&option_reply(option, REPLY_ACK, &[]))?;
                return Ok(Negotiated::Aborted);
            }
            _ => output.write_all(&option_reply(option, REPLY_UNSUPPORTED, &[]))?,
        }
    }
}

fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut reply = Vec::new();
    reply.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    reply.extend(option.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    // A few numbers.
    reply.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    reply.extend(data);
    reply
}

fn export(size: u64) -> Vec<u8> {
    let mut info = INFO_EXPORT.to_be_bytes().to_vec();
    info.extend(size.to_be_bytes());
    info.extend(EXPORT_FLAGS.to_be_bytes());
    info
}

/// The least, the best and the most that a request may be about.
fn block_size() -> Vec<u8> {
    let mut info = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
    for size in [SECTOR as u32, 4096, MAX_REQUEST] {
        info.extend(size.to_be_bytes());
    }
    info
}

fn answer(
    input: &mut impl Read,
    output: &mut impl Write,
    cache: &mut WriteCache,
) -> io::Result<Session> {
    expect(u32::from_be_bytes(take(input)?) == REQUEST_MAGIC)?;
    let flags = u16::from_be_bytes(take(input)?);
    let kind = u16::from_be_bytes(take(input)?);
    let cookie: [u8; 8] = take(input)?;
    let offset = u64::from_be_bytes(take(input)?);
    let length = u32::from_be_bytes(take(input)?);
    expect(length <= MAX_REQUEST)?;
    let length = length as usize;
    let mut data = Vec::new();
    let error = match kind {
        READ if cache.has(offset, length) => {
            data.resize(length, 0);
            cache.read(offset, &mut data)?;
            0
        }
        WRITE => {
            let mut content = vec![0; length];
            input.read_exact(&mut content)?;
            if !cache.has(offset, length) {
                INVALID
            } else if flags & FORCE_UNIT_ACCESS == 0 {
                cache.write(offset, &content)?;
                0
            } else {
                cache.write_through(offset, &content)?;
                0
            }
        }
        FLUSH => {
            cache.flush()?;
            0
        }
        DISCONNECT => return Ok(Session::Ended),
        _ => INVALID,
    };
    let mut reply = Vec::with_capacity(16 + data.len());
    reply.extend(REPLY_MAGIC.to_be_bytes());
    reply.extend(error.to_be_bytes());
    reply.extend(cookie);
    reply.extend(data);
    output.write_all(&reply)?;
    Ok(Session::GoesOn)
}

fn take<const LENGTH: usize>(input: &mut impl Read) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn expect(holds: bool) -> io::Result<()> {
    match holds {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the client speaks no NBD, or asks for too much at once",
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn option(option: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn request(flags: u16, kind: u16, offset: u64, length: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend([7; 8]);
        bytes.extend(offset.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn a_handshake_tells_the_size_and_refuses_what_is_unknown() {
        let mut input = vec![0, 0, 0, 3];
        input.extend(option(8, &[]));
        input.extend(option(OPTION_GO, &[0, 0, 0, 0, 0, 0]));
        let mut output = Vec::new();
        let negotiated = negotiate(&mut input.as_slice(), &mut output, 12345).unwrap();
        assert_eq!(negotiated, Negotiated::Served);
        let mut expected = b"NBDMAGICIHAVEOPT\x00\x03".to_vec();
        expected.extend(option_reply(8, REPLY_UNSUPPORTED, &[]));
        expected.extend(option_reply(OPTION_GO, REPLY_INFO, &export(12345)));
        expected.extend(option_reply(OPTION_GO, REPLY_INFO, &block_size()));
        expected.extend(option_reply(OPTION_GO, REPLY_ACK, &[]));
        assert_eq!(output, expected);
    }

    #[test]
    fn requests_are_answered_with_their_cookie() {
        let image = tempfile::tempfile().unwrap();
        image.set_len(4096).unwrap();
        let mut cache = WriteCache::new(image).unwrap();
        let mut input = request(0, WRITE, 512, 512, &[1; 512]);
        input.extend(request(0, READ, 512, 512, &[]));
        input.extend(request(0, READ, 4096, 512, &[]));
        input.extend(request(0, FLUSH, 0, 0, &[]));
        input.extend(request(0, DISCONNECT, 0, 0, &[]));
        let (mut input, mut output) = (input.as_slice(), Vec::new());
        while answer(&mut input, &mut output, &mut cache).unwrap() == Session::GoesOn {}
        let reply = |error: u32, data: &[u8]| {
            let mut reply = REPLY_MAGIC.to_be_bytes().to_vec();
            reply.extend(error.to_be_bytes());
            reply.extend([7; 8]);
            reply.extend(data);
            reply
        };
        let expected = [
            reply(0, &[]),
            reply(0, &[1; 512]),
            reply(INVALID, &[]),
            reply(0, &[]),
        ];
        assert_eq!(output, expected.concat());
    }
}
