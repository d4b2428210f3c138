//! Blocks of headers, and their compression: SPDY/3, section 2.6.10.

use bytes::{Buf as _, Bytes};
use flate2::{Decompress, FlushDecompress, Status};

use super::dictionary::{CHECKSUM, DICTIONARY};

/// Bytes of a block when it is decompressed: a few hundred in practice.
pub(super) const MAX_BLOCK: usize = 16 * 1024;
/// Headers of a block.
const MAX_HEADERS: usize = 64;

/// Why a block was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The compressed stream is broken, and with it all blocks that follow.
    #[error("the compressed headers are not valid zlib data with SPDY's dictionary")]
    Compression,
    /// Decompressed, it would be too long; the stream cannot be followed on.
    #[error("the headers have more than {MAX_BLOCK} bytes")]
    TooLong,
    /// The block decompressed, and is no list of headers. The following ones may be.
    #[error("the headers are malformed")]
    Malformed,
}

/// Decompresses the blocks of one connection, which are one zlib stream.
pub(super) struct Decoder {
    zlib: Decompress,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            zlib: Decompress::new(true),
        }
    }
}

impl Decoder {
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        Headers::parse(self.decompress(block)?.into())
    }

    fn decompress(&mut self, mut input: &[u8]) -> Result<Vec<u8>, HeaderError> {
        // One byte more than may be: a full buffer may have something behind it.
        let mut output = Vec::with_capacity(4 * 1024);
        let mut dictionary_given = false;
        loop {
            if output.len() > MAX_BLOCK {
                return Err(HeaderError::TooLong);
            }
            if output.len() == output.capacity() {
                output.reserve_exact(output.capacity().min(MAX_BLOCK + 1 - output.len()));
            }
            let (before_in, before_out) = (self.zlib.total_in(), output.len());
            let result = self
                .zlib
                .decompress_vec(input, &mut output, FlushDecompress::Sync);
            let taken = (self.zlib.total_in() - before_in) as usize;
            input = input.get(taken..).ok_or(HeaderError::Compression)?;
            match result {
                Ok(Status::StreamEnd) => return Err(HeaderError::Compression),
                Ok(_) => {
                    let stuck = taken == 0 && output.len() == before_out;
                    if input.is_empty() && output.len() < output.capacity() {
                        return Ok(output);
                    }
                    if stuck && output.len() < output.capacity() {
                        return Err(HeaderError::Compression);
                    }
                }
                Err(error) if error.needs_dictionary().is_some() && !dictionary_given => {
                    dictionary_given = true;
                    self.zlib
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| HeaderError::Compression)?;
                }
                Err(_) => return Err(HeaderError::Compression),
            }
        }
    }
}

/// The headers of a stream. Their names are in lower case, as SPDY demands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of a header; the first, when it has several.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(own, _)| own == name)?;
        value.split('\0').next()
    }

    fn parse(mut block: Bytes) -> Result<Self, HeaderError> {
        let count = block.try_get_u32().map_err(|_| HeaderError::Malformed)? as usize;
        if count > MAX_HEADERS {
            return Err(HeaderError::Malformed);
        }
        let mut headers = Self(Vec::with_capacity(count));
        for _ in 0..count {
            let name = text(&mut block)?;
            let value = text(&mut block)?;
            let valid = !name.is_empty() && !name.chars().any(char::is_uppercase);
            if !valid || headers.get(&name).is_some() {
                return Err(HeaderError::Malformed);
            }
            headers.0.push((name, value));
        }
        if block.is_empty() {
            Ok(headers)
        } else {
            Err(HeaderError::Malformed)
        }
    }
}

/// A string with its length before it.
fn text(block: &mut Bytes) -> Result<String, HeaderError> {
    let length = block.try_get_u32().map_err(|_| HeaderError::Malformed)? as usize;
    if length > block.len() {
        return Err(HeaderError::Malformed);
    }
    let text = block.split_to(length);
    std::str::from_utf8(&text)
        .map(str::to_owned)
        .map_err(|_| HeaderError::Malformed)
}

/// The compressed stream of our blocks, which have no headers in them. Deflate's stored blocks (RFC 1951, section 3.2.4)
/// are zlib data like any other, and need no compressor's quarter of a MiB for each connection.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    begun: Begun,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Begun {
    #[default]
    No,
    Yes,
}

impl Encoder {
    /// The next block, of no headers.
    pub(super) fn empty(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(20);
        if self.begun == Begun::No {
            self.begun = Begun::Yes;
            // RFC 1950, section 2.2: deflate with a window of 32 KiB and a preset dictionary.
            block.extend_from_slice(&[0x78, 0xbb]);
            block.extend_from_slice(&CHECKSUM.to_be_bytes());
        }
        // Stored, not the last; four bytes, and their complement; a count of 0.
        block.extend_from_slice(&[0, 4, 0, !4, !0, 0, 0, 0, 0]);
        // An empty one, as zlib's Z_SYNC_FLUSH ends what it has: Go's decompressor gives its data away only then.
        block.extend_from_slice(&[0, 0, 0, !0, !0]);
        block
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use podwright_instructions::counted;
    use proptest::prelude::*;

    use super::*;

    /// What a client compresses its headers with.
    pub(crate) struct ClientEncoder(Compress);

    impl ClientEncoder {
        pub(crate) fn new() -> Self {
            let mut zlib = Compress::new(Compression::best(), true);
            zlib.set_dictionary(&DICTIONARY).unwrap();
            Self(zlib)
        }

        pub(crate) fn encode(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
            let mut block = (headers.len() as u32).to_be_bytes().to_vec();
            for text in headers.iter().flat_map(|(name, value)| [name, value]) {
                block.extend_from_slice(&(text.len() as u32).to_be_bytes());
                block.extend_from_slice(text.as_bytes());
            }
            self.compress(&block)
        }

        pub(crate) fn compress(&mut self, block: &[u8]) -> Vec<u8> {
            let mut out = Vec::with_capacity(block.len() + 1_024);
            self.0
                .compress_vec(block, &mut out, FlushCompress::Sync)
                .unwrap();
            assert!(out.len() < out.capacity());
            out
        }
    }

    #[test]
    fn headers_come_through_one_block_after_the_other() {
        let (mut client, mut decoder) = (ClientEncoder::new(), Decoder::default());
        for round in 0..100 {
            let id = round.to_string();
            let sent = [("streamtype", "stdin"), ("requestid", id.as_str())];
            let headers = decoder.decode(&client.encode(&sent)).unwrap();
            assert_eq!(headers.get("streamtype"), Some("stdin"));
            assert_eq!(headers.get("requestid"), Some(id.as_str()));
            assert_eq!(headers.get("port"), None);
        }
    }

    #[test]
    fn instructions_of_a_stream_s_headers() {
        let sent = [("streamtype", "stdin"), ("requestid", "1")];
        let block = ClientEncoder::new().encode(&sent);
        let headers = counted(|| Decoder::default().decode(&block)).unwrap();
        assert_eq!(headers.get("streamtype"), Some("stdin"));
    }

    #[test]
    fn our_blocks_are_zlib_data_of_no_headers() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for _ in 0..3 {
            assert_eq!(
                decoder.decode(&encoder.empty()).unwrap(),
                Headers::default()
            );
        }
    }

    #[test]
    fn malformed_blocks_are_refused_and_the_next_understood() {
        let (mut client, mut decoder) = (ClientEncoder::new(), Decoder::default());
        let malformed: &[&[(&str, &str)]] = &[
            &[("UPPER", "x")],
            &[("", "x")],
            &[("twice", "x"), ("twice", "y")],
        ];
        for headers in malformed {
            let block = client.encode(headers);
            assert_eq!(decoder.decode(&block), Err(HeaderError::Malformed));
        }
        let long_name = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, b'x'];
        let too_many = [0xff; 4];
        let trailing = [0, 0, 0, 0, 1];
        for block in [&long_name[..], &too_many, &trailing, &[0, 0]] {
            let block = client.compress(block);
            assert_eq!(decoder.decode(&block), Err(HeaderError::Malformed));
        }
        let good = decoder.decode(&client.encode(&[("a", "b")])).unwrap();
        assert_eq!(good.get("a"), Some("b"));
    }

    #[test]
    fn a_block_that_would_decompress_to_megabytes_is_refused() {
        let mut client = ClientEncoder::new();
        let bomb = client.compress(&vec![0; 10 << 20]);
        assert!(bomb.len() < MAX_BLOCK, "{}", bomb.len());
        let result = Decoder::default().decompress(&bomb);
        assert_eq!(result, Err(HeaderError::TooLong));
        let mut client = ClientEncoder::new();
        for (length, fits) in [(MAX_BLOCK, true), (MAX_BLOCK + 1, false)] {
            let block = client.compress(&vec![0; length]);
            let result = Decoder::default().decompress(&block);
            assert_eq!(result.is_ok(), fits, "{length}");
            client = ClientEncoder::new();
        }
    }

    #[test]
    fn data_that_is_not_zlib_is_refused() {
        for block in [&b"not zlib at all"[..], &[0x78, 0xbb, 1, 2, 3, 4, 5, 6]] {
            let result = Decoder::default().decode(block);
            assert_eq!(result, Err(HeaderError::Compression));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_headers_or_an_error(
            block in prop::collection::vec(any::<u8>(), 0..300),
            compressed: bool,
        ) {
            let block = if compressed { ClientEncoder::new().compress(&block) } else { block };
            if let Ok(output) = Decoder::default().decompress(&block) {
                prop_assert!(output.capacity() <= MAX_BLOCK + 1);
            }
            let _ = Decoder::default().decode(&block);
        }

        #[test]
        fn headers_round_trip(headers in prop::collection::btree_map("[a-z:-]{1,20}", "[ -~]{0,100}", 0..20)) {
            let sent: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let block = ClientEncoder::new().encode(&sent);
            let decoded = Decoder::default().decode(&block).unwrap();
            for (name, value) in &headers {
                prop_assert_eq!(decoded.get(name), Some(value.as_str()));
            }
        }
    }
}
