//! Lines of 100 bytes that carry their number, so that one that is missing is seen.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::logs::records;

/// Decimal digits of a number.
const DIGITS: usize = 8;
/// What comes after them.
const TAIL: [u8; 100 - DIGITS] = {
    let mut tail = [b'.'; 100 - DIGITS];
    tail[tail.len() - 1] = b'\n';
    tail
};

/// The line of this number, with its newline.
pub(crate) fn line(number: u64) -> [u8; 100] {
    let mut line = [0; 100];
    let digits = format!("{number:0DIGITS$}");
    line[..DIGITS].copy_from_slice(digits.as_bytes());
    line[DIGITS..].copy_from_slice(&TAIL);
    line
}

/// The number of a line, if it is whole.
fn number(line: &[u8]) -> Option<u64> {
    let (digits, tail) = line.split_at_checked(DIGITS)?;
    let digits = (tail == TAIL).then(|| str::from_utf8(digits).ok())?;
    digits?.parse().ok()
}

/// What has been read of one container's lines, over all files that its log was rotated to.
#[derive(Debug, Default)]
pub(crate) struct Numbered {
    /// The number that follows.
    next: u64,
    lost: u64,
    /// The beginning of a line whose record is marked as partial.
    begun: Vec<u8>,
}

impl Numbered {
    /// Reads the log's next file.
    pub(crate) fn read(&mut self, path: &Path) -> Result<()> {
        records(path, |record| self.take(record)).with_context(|| format!("{}", path.display()))
    }

    /// How many lines of `all` are missing, when there is no more to read.
    pub(crate) fn missing(&self, all: u64) -> u64 {
        self.lost + all.saturating_sub(self.next)
    }

    /// Takes a record, `TIME STREAM TAG TEXT`.
    fn take(&mut self, record: &[u8]) -> Result<()> {
        let mut parts = record.splitn(4, |byte| *byte == b' ');
        let (Some(_time), Some(b"stdout"), Some(tag), Some(text)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            bail!("{:?} is no record", String::from_utf8_lossy(record));
        };
        match (tag, self.begun.is_empty()) {
            (b"P", _) => {
                self.begun.extend(text.strip_suffix(b"\n").unwrap_or(text));
                Ok(())
            }
            (_, true) => self.count(text),
            (_, false) => {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend(text);
                self.count(&whole)
            }
        }
    }

    fn count(&mut self, text: &[u8]) -> Result<()> {
        let number = number(text)
            .with_context(|| format!("a torn line: {:?}", String::from_utf8_lossy(text)))?;
        ensure!(
            number >= self.next,
            "line {number} comes after line {}",
            self.next - 1
        );
        self.lost += number - self.next;
        self.next = number + 1;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(tag: &str, text: &[u8]) -> Vec<u8> {
        let head = format!("2026-01-02T03:04:05.123456789Z stdout {tag} ");
        [head.as_bytes(), text].concat()
    }

    #[test]
    fn a_line_is_a_hundred_bytes() {
        assert!(line(7).starts_with(b"00000007.."));
        assert!(line(99_999_999).ends_with(b"..\n"));
    }

    #[test]
    fn lines_that_are_missing_are_counted_wherever_they_were() {
        let mut numbered = Numbered::default();
        for number in [2, 3, 6] {
            numbered.take(&record("F", &line(number))).unwrap();
        }
        assert_eq!(numbered.missing(7), 4);
        assert_eq!(numbered.missing(10), 7);
        assert_eq!(Numbered::default().missing(3), 3);
    }

    #[test]
    fn a_line_of_two_records_is_one() {
        let mut numbered = Numbered::default();
        let text = line(0);
        numbered
            .take(&record("P", &[&text[..40], b"\n"].concat()))
            .unwrap();
        numbered.take(&record("F", &text[40..])).unwrap();
        assert_eq!(numbered.missing(1), 0);
    }

    #[test]
    fn lines_that_come_twice_or_torn_are_refused() {
        let mut numbered = Numbered::default();
        numbered.take(&record("F", &line(0))).unwrap();
        assert!(numbered.take(&record("F", &line(0))).is_err());
        assert!(numbered.take(&record("F", &line(1)[1..])).is_err());
        assert!(numbered.take(&line(1)).is_err());
    }
}
