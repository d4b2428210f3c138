//! A stream of a container: the reading end of its pipe, or its terminal's master.

use super::buffers::{Batch, Buffers, INPUT};
use super::file::LogFile;
use super::line::{Lines, StreamName};
use crate::sys::{Errno, file};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most that is drained from a stream before its container's exit is told: all that a pipe holds, when nobody else
/// writes to it endlessly.
pub(crate) const DRAIN_LIMIT: usize = 1024 * 1024;

/// One of a container's streams.
pub(crate) struct Stream {
    source: OwnedFd,
    name: StreamName,
    lines: Lines,
}

/// What one read found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// This many bytes, which the buffers hold until the next read; there may be more.
    Read(usize),
    /// Nothing for now.
    Drained,
    /// The last writer has closed it.
    Ended,
}

impl Stream {
    /// `source` must not block.
    pub(crate) fn new(source: OwnedFd, name: StreamName) -> Self {
        Self {
            source,
            name,
            lines: Lines::default(),
        }
    }

    pub(crate) fn name(&self) -> StreamName {
        self.name
    }

    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    /// Copies one read to the log, which the buffers hold for clients; at the end of the stream, also what has no newline.
    pub(crate) fn copy_batch(&mut self, log: &mut LogFile, buffers: &mut Buffers) -> Progress {
        let mut batch = Batch::new(buffers.output.bytes(), log);
        let progress = self.read(buffers.input.bytes(), &mut batch);
        let now = batch.finish();
        buffers.mark_used(progress, now);
        progress
    }

    /// Copies read after read while they are full, for a stream without clients: a log that is written by longer pieces takes less of
    /// the kernel's time for each byte.
    pub(crate) fn copy_batches(&mut self, log: &mut LogFile, buffers: &mut Buffers) -> Progress {
        let mut batch = Batch::new(buffers.output.bytes(), log);
        let first = self.read(buffers.input.bytes(), &mut batch);
        let mut progress = first;
        while progress == Progress::Read(INPUT) && batch.has_room() {
            progress = self.read(buffers.input.bytes(), &mut batch);
        }
        let now = batch.finish();
        buffers.mark_used(first, now);
        progress
    }

    /// Gathers the records of one read.
    fn read(&mut self, input: &mut [u8], batch: &mut Batch<'_>) -> Progress {
        let progress = match file::read(self.source.as_fd(), input) {
            Err(Errno(libc::EAGAIN | libc::EINTR)) => return Progress::Drained,
            // EIO: nobody has the terminal open any more. Any other error ends the stream as well.
            Ok(0) | Err(_) => Progress::Ended,
            Ok(length) => Progress::Read(length),
        };
        let prefixes = batch.prefixes(self.name);
        match progress {
            Progress::Read(length) => self.lines.push(&input[..length], &prefixes, batch),
            _ => self.lines.flush(&prefixes, batch),
        }
        progress
    }

    /// Writes what has no newline yet.
    pub(crate) fn flush(&mut self, log: &mut LogFile, buffers: &mut Buffers) {
        let mut batch = Batch::new(buffers.output.bytes(), log);
        let prefixes = batch.prefixes(self.name);
        self.lines.flush(&prefixes, &mut batch);
        batch.finish();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use super::*;
    use crate::log::line::PREFIX;
    use std::io::{Read, Seek, Write};

    const LINE: &[u8] = b"a line of some forty bytes and no more..\n";
    const LINES: usize = 8_000;

    /// A pipe that holds [`LINES`] lines and has no writer any more.
    fn full_stream() -> Stream {
        let (reader, mut writer) = std::io::pipe().unwrap();
        file::set_nonblocking(reader.as_fd()).unwrap();
        file::set_pipe_capacity(reader.as_fd(), 1024 * 1024).unwrap();
        writer.write_all(&LINE.repeat(LINES)).unwrap();
        Stream::new(reader.into(), StreamName::Stdout)
    }

    /// How many times `copy` was called until the end, and what is in the log then.
    fn copied(copy: fn(&mut Stream, &mut LogFile, &mut Buffers) -> Progress) -> (usize, Vec<u8>) {
        let mut kept = tempfile::tempfile().unwrap();
        let mut log = LogFile::new(kept.try_clone().unwrap());
        let (mut stream, mut buffers) = (full_stream(), Buffers::new().unwrap());
        let mut calls = 1;
        while copy(&mut stream, &mut log, &mut buffers) != Progress::Ended {
            calls += 1;
        }
        let mut text = Vec::new();
        kept.rewind().unwrap();
        kept.read_to_end(&mut text).unwrap();
        (calls, text)
    }

    #[test]
    fn several_reads_are_one_batch_and_nothing_of_them_is_lost() {
        let reads = (LINE.len() * LINES).div_ceil(INPUT);
        for (copy, most) in [
            (
                Stream::copy_batch as fn(&mut _, &mut _, &mut _) -> _,
                reads + 1,
            ),
            (Stream::copy_batches, reads.div_ceil(2) + 1),
        ] {
            let (calls, text) = copied(copy);
            assert!(calls <= most, "{calls} calls for {reads} reads");
            let texts: Vec<_> = text
                .split_inclusive(|&byte| byte == b'\n')
                .map(|record| &record[PREFIX..])
                .collect();
            assert_eq!(texts.len(), LINES);
            assert!(texts.iter().all(|text| *text == LINE));
        }
    }
}
