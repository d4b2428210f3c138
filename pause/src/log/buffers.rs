//! The buffers that all containers share.

use crate::log::file::LogFile;
use crate::log::line::{PREFIX, Prefixes, Records, StreamName};
use crate::log::stream::Progress;
use crate::sys::Result;
use crate::sys::memory::{Region, copy};
use crate::sys::process::now;

/// The most that is read from a stream at once.
pub(crate) const INPUT: usize = 64 * 1024;
/// Records are written when this is full, or at the end of their batch: the longest record fits in several times, and four reads do of
/// lines of 100 bytes. So many bytes at once take the kernel less time for each than a read's do.
const OUTPUT: usize = 384 * 1024;
/// What the records of a full read take where lines have 80 bytes or more. Those of shorter ones may be written in two pieces.
const RECORDS_OF_INPUT: usize = INPUT + INPUT / 2;

/// A batch up to this length touches few pages, which stay.
const SMALL: usize = 8 * 1024;
/// How long no larger batch must have come before the pages are given back, in nanoseconds: those of a container that writes each second
/// stay.
const QUIET: i64 = 3_000_000_000;

/// Input and output of the batch at hand. Their pages are given back when logs are quiet.
pub(crate) struct Buffers {
    pub(super) input: Region,
    pub(super) output: Region,
    /// When the last large batch came, if its pages are still held.
    used_at: Option<i64>,
}

impl Buffers {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            input: Region::new(INPUT)?,
            output: Region::new(OUTPUT)?,
            used_at: None,
        })
    }

    /// What the last read found.
    pub(crate) fn batch(&mut self, length: usize) -> &[u8] {
        &self.input.bytes()[..length]
    }

    /// Whether there are pages to give back.
    pub(crate) fn are_used(&self) -> bool {
        self.used_at.is_some()
    }

    pub(super) fn mark_used(&mut self, progress: Progress, now: i64) {
        if let Progress::Read(SMALL..) = progress {
            self.used_at = Some(now);
        }
    }

    /// Gives the pages back if no large batch came for a while.
    pub(crate) fn release_when_quiet(&mut self) {
        if self
            .used_at
            .is_some_and(|at| !(0..QUIET).contains(&(now() - at)))
        {
            self.input.release();
            self.output.release();
            self.used_at = None;
        }
    }
}

/// Records of one batch on their way to their file.
pub(super) struct Batch<'a> {
    buffer: &'a mut [u8],
    used: usize,
    file: &'a mut LogFile,
    /// When the latest read was.
    now: i64,
}

impl<'a> Batch<'a> {
    pub(super) fn new(buffer: &'a mut [u8], file: &'a mut LogFile) -> Self {
        Self {
            buffer,
            used: 0,
            file,
            now: 0,
        }
    }

    /// Those of the records of a read that was just now.
    pub(super) fn prefixes(&mut self, stream: StreamName) -> Prefixes {
        self.now = now();
        Prefixes::new(stream, self.now)
    }

    /// Whether the records of another full read have room.
    pub(super) fn has_room(&self) -> bool {
        self.buffer.len() - self.used >= RECORDS_OF_INPUT
    }

    /// Writes what is gathered, and gives the time of the latest read.
    pub(super) fn finish(mut self) -> i64 {
        self.write();
        self.now
    }

    fn write(&mut self) {
        if self.used > 0 {
            self.file.write(&self.buffer[..self.used], self.now);
            self.used = 0;
        }
    }
}

impl Records for Batch<'_> {
    fn record(&mut self, prefix: &[u8; PREFIX], start: &[u8], rest: &[u8]) {
        let length = PREFIX + start.len() + rest.len() + 1;
        // Texts are at most MAX_TEXT long, so that an empty buffer holds any record.
        if self.used + length > self.buffer.len() {
            self.write();
        }
        // One bounds check for all parts: this is the hot path of every log line.
        let record = &mut self.buffer[self.used..self.used + length];
        let (head, text) = record.split_at_mut(PREFIX);
        copy(head, prefix);
        let (first, second) = text.split_at_mut(start.len());
        copy(first, start);
        let (second, newline) = second.split_at_mut(rest.len());
        copy(second, rest);
        newline.copy_from_slice(b"\n");
        self.used += length;
    }
}
