//! A stream of a container: the reading end of its pipe, or its terminal's master.

use super::buffers::{Batch, Buffers};
use super::file::LogFile;
use super::line::{Lines, Prefixes, StreamName};
use crate::sys::process::now;
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

    /// Copies one batch to the log; at the end of the stream, also what has no newline.
    pub(crate) fn copy_batch(&mut self, log: &mut LogFile, buffers: &mut Buffers) -> Progress {
        let input = buffers.input.bytes();
        let length = match file::read(self.source.as_fd(), input) {
            Err(Errno(libc::EAGAIN | libc::EINTR)) => return Progress::Drained,
            // EIO: nobody has the terminal open any more. Any other error ends the stream as well.
            Ok(0) | Err(_) => {
                self.flush(log, buffers);
                return Progress::Ended;
            }
            Ok(length) => length,
        };
        let now = now();
        let mut batch = Batch::new(buffers.output.bytes(), log, now);
        self.lines
            .push(&input[..length], &Prefixes::new(self.name, now), &mut batch);
        batch.finish();
        buffers.mark_used(length, now);
        Progress::Read(length)
    }

    /// Writes what has no newline yet.
    pub(crate) fn flush(&mut self, log: &mut LogFile, buffers: &mut Buffers) {
        let now = now();
        let mut batch = Batch::new(buffers.output.bytes(), log, now);
        self.lines.flush(&Prefixes::new(self.name, now), &mut batch);
        batch.finish();
    }
}
