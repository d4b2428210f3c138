//! A log file that survives a full disk.

use crate::log::line::{Prefixes, StreamName};
use podwright_pause::protocol::LogState;
use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom, Write};

/// Where a container's records go. A write that fails loses its records, never more: no record is left half-written, and
/// as soon as writing works again a record tells how much is missing.
pub(crate) struct LogFile {
    file: File,
    lost: u64,
    /// A half record could not be taken back; the next write must end its line first.
    torn: bool,
    /// None as long as nothing was ever lost.
    state: Option<LogState>,
    /// Whether the state has changed since it was last told.
    is_news: bool,
}

impl LogFile {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            lost: 0,
            torn: false,
            state: None,
            is_news: false,
        }
    }

    /// Goes on in another file.
    pub(crate) fn replace(&mut self, file: File) {
        self.file = file;
        self.torn = false;
    }

    /// Whether records get into it; none when all ever did.
    pub(crate) fn state(&self) -> Option<LogState> {
        self.state.clone()
    }

    /// The state, when it has changed since this was last asked.
    pub(crate) fn news(&mut self) -> Option<LogState> {
        std::mem::take(&mut self.is_news)
            .then(|| self.state.clone())
            .flatten()
    }

    /// Writes whole records; `now` stamps a record about earlier losses.
    pub(super) fn write(&mut self, records: &[u8], now: i64) {
        if (self.lost > 0 || self.torn) && !self.tell_losses(now) {
            self.lost += records.len() as u64;
            return;
        }
        self.lost += self.write_or_take_back(records);
    }

    /// Whether it worked.
    fn tell_losses(&mut self, now: i64) -> bool {
        let mut record = Vec::with_capacity(128);
        if self.torn {
            record.push(b'\n');
        }
        record.extend_from_slice(Prefixes::new(StreamName::Stderr, now).full());
        record.extend_from_slice(b"podwright: the log could not be written, bytes lost: ");
        record.extend_from_slice(self.lost.to_string().as_bytes());
        record.push(b'\n');
        let told = self.write_or_take_back(&record) == 0;
        if told {
            if self.lost > 0 {
                self.change(LogState::Resumed { lost: self.lost });
            }
            self.lost = 0;
            self.torn = false;
        }
        told
    }

    /// Gives the number of bytes, of whole records, that did not get into the file.
    fn write_or_take_back(&mut self, records: &[u8]) -> u64 {
        let mut done = 0;
        while done < records.len() {
            match self.file.write(&records[done..]) {
                Ok(0) => {
                    self.fail(libc::EIO);
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fail(error.raw_os_error().unwrap_or(libc::EIO));
                    break;
                }
            }
        }
        if done == records.len() {
            return 0;
        }
        let whole = records[..done]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |newline| newline + 1);
        if done > whole {
            self.take_back((done - whole) as u64);
        }
        (records.len() - whole) as u64
    }

    fn fail(&mut self, errno: i32) {
        if !matches!(self.state, Some(LogState::Failing { .. })) {
            self.change(LogState::Failing { errno });
        }
    }

    fn change(&mut self, state: LogState) {
        self.state = Some(state);
        self.is_news = true;
    }

    fn take_back(&mut self, count: u64) {
        let shorter = self.file.metadata().and_then(|metadata| {
            self.file.set_len(metadata.len().saturating_sub(count))?;
            // Matters only for a file that was not opened with O_APPEND.
            self.file.seek(SeekFrom::Current(-(count as i64)))
        });
        self.torn |= shorter.is_err();
    }
}
