//! The pieces of the one pass over a layer: pipe → digest → decompression → diff id.

use std::io::{self, BufRead, Read};

use bytes::{Buf as _, Bytes};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::digest::Digest;
use crate::manifest::Compression;

/// Bytes decompressed at a time.
const CHUNK: usize = 128 << 10;

/// The blocking end of a download: what arrives is counted, hashed and handed on.
pub(crate) struct Pipe {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
    hasher: Sha256,
    received: u64,
}

impl Pipe {
    /// Reads until every sender is dropped. Whether that was too early, the caller sees by the count.
    pub(crate) fn new(receiver: mpsc::Receiver<Bytes>) -> Pipe {
        Pipe {
            receiver,
            piece: Bytes::new(),
            hasher: Sha256::new(),
            received: 0,
        }
    }

    /// Digest and count of all that came; what the decoder left unread is read first.
    pub(super) fn finish(mut self) -> (Digest, u64) {
        while self.next_piece() {}
        (Digest::from_hasher(self.hasher), self.received)
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    fn next_piece(&mut self) -> bool {
        match self.receiver.blocking_recv() {
            None => false,
            Some(piece) => {
                self.hasher.update(&piece);
                self.received += piece.len() as u64;
                self.piece = piece;
                true
            }
        }
    }
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && self.next_piece() {}
        Ok(&self.piece)
    }

    fn consume(&mut self, read: usize) {
        self.piece.advance(read);
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(buffer.len());
        buffer[..read].copy_from_slice(&available[..read]);
        self.consume(read);
        Ok(read)
    }
}

/// A layer's decompressor. Streams of several gzip members or zstd frames are read to their end.
enum Decoder {
    Plain(Pipe),
    Gzip(Box<MultiGzDecoder<Pipe>>),
    Zstd(zstd::Decoder<'static, Pipe>),
}

impl Decoder {
    fn new(compression: Compression, pipe: Pipe) -> io::Result<Decoder> {
        Ok(match compression {
            Compression::None => Decoder::Plain(pipe),
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(pipe))),
            Compression::Zstd => Decoder::Zstd(zstd::Decoder::with_buffer(pipe)?),
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(pipe) => pipe.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }

    fn pipe(&self) -> &Pipe {
        match self {
            Decoder::Plain(pipe) => pipe,
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref(),
        }
    }

    fn into_pipe(self) -> Pipe {
        match self {
            Decoder::Plain(pipe) => pipe,
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.finish(),
        }
    }
}

/// The archive's bytes, hashed as they are decompressed, no more than a bound.
pub(super) struct Unpacked {
    decoder: Decoder,
    hasher: Sha256,
    buffer: Vec<u8>,
    /// What of the buffer is filled and not consumed yet.
    filled: std::ops::Range<usize>,
    total: u64,
    most: u64,
}

impl Unpacked {
    pub(super) fn new(compression: Compression, pipe: Pipe, most: u64) -> io::Result<Unpacked> {
        let decoder = Decoder::new(compression, pipe)?;
        Ok(Unpacked {
            decoder,
            hasher: Sha256::new(),
            buffer: vec![0; CHUNK],
            filled: 0..0,
            total: 0,
            most,
        })
    }

    /// Compressed bytes that have arrived so far.
    pub(super) fn received(&self) -> u64 {
        self.decoder.pipe().received()
    }

    /// Whether the bound was passed.
    pub(super) fn is_too_large(&self) -> bool {
        self.total > self.most
    }

    /// Reads on to the end, for what stands behind the archive is part of both digests.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        loop {
            let left = self.fill_buf()?.len();
            if left == 0 {
                return Ok(());
            }
            self.consume(left);
        }
    }

    /// The diff id, and the pipe to finish.
    pub(super) fn finish(self) -> (Digest, Pipe) {
        (Digest::from_hasher(self.hasher), self.decoder.into_pipe())
    }
}

impl BufRead for Unpacked {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.filled.is_empty() {
            // Whole chunks make whole writes: decoders return less than they could.
            let mut end = 0;
            while end < CHUNK {
                match self.decoder.read(&mut self.buffer[end..])? {
                    0 => break,
                    read => end += read,
                }
            }
            self.total += end as u64;
            if self.is_too_large() {
                return Err(io::Error::other("larger than max_unpacked_layer_bytes"));
            }
            self.hasher.update(&self.buffer[..end]);
            self.filled = 0..end;
        }
        Ok(&self.buffer[self.filled.clone()])
    }

    fn consume(&mut self, read: usize) {
        self.filled.start = (self.filled.start + read).min(self.filled.end);
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(buffer.len());
        buffer[..read].copy_from_slice(&available[..read]);
        self.consume(read);
        Ok(read)
    }
}
