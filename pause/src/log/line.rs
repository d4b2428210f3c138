//! Cuts a byte stream into log records.

use super::stamp;
use memchr::memchr_iter;

/// Which stream a record is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamName {
    Stdout,
    Stderr,
}

/// The longest text of one record: containerd's `max_container_log_line_size` and what the kubelet expects.
pub(super) const MAX_TEXT: usize = 16 * 1024;

/// What stands before a record's text: time, stream, tag and spaces.
pub(super) const PREFIX: usize = stamp::LENGTH + " stdout F ".len();

/// A batch's prefixes: all its records have one time.
pub(super) struct Prefixes {
    full: [u8; PREFIX],
    partial: [u8; PREFIX],
}

impl Prefixes {
    pub(super) fn new(stream: StreamName, nanoseconds: i64) -> Self {
        let mut full = [0; PREFIX];
        let (time, rest) = full.split_at_mut(stamp::LENGTH);
        time.copy_from_slice(&stamp::rfc3339(nanoseconds));
        rest.copy_from_slice(match stream {
            StreamName::Stdout => b" stdout F ",
            StreamName::Stderr => b" stderr F ",
        });
        let mut partial = full;
        partial[PREFIX - 2] = b'P';
        Self { full, partial }
    }

    /// For a text that ended with a newline.
    pub(super) fn full(&self) -> &[u8; PREFIX] {
        &self.full
    }
}

/// Takes records. A text comes in two parts: what an earlier batch left, and what this one adds.
pub(super) trait Records {
    fn record(&mut self, prefix: &[u8; PREFIX], start: &[u8], rest: &[u8]);
}

/// The state between batches of one stream: the start of a line whose end has not come, at most [`MAX_TEXT`] bytes.
#[derive(Default)]
pub(super) struct Lines {
    tail: Vec<u8>,
}

impl Lines {
    /// Cuts `batch`. A line is only cut into partial records when it is longer than [`MAX_TEXT`].
    pub(super) fn push(&mut self, batch: &[u8], prefixes: &Prefixes, records: &mut impl Records) {
        let mut begin = 0;
        for end in memchr_iter(b'\n', batch) {
            let line = self.cut_long(&batch[begin..end], prefixes, records);
            records.record(&prefixes.full, &self.tail, line);
            if self.tail.capacity() > 0 {
                self.tail = Vec::new();
            }
            begin = end + 1;
        }
        let rest = self.cut_long(&batch[begin..], prefixes, records);
        self.tail.reserve_exact(rest.len());
        self.tail.extend_from_slice(rest);
    }

    /// Makes partial records until tail and line fit into one, and gives what is left of the line.
    fn cut_long<'a>(
        &mut self,
        mut line: &'a [u8],
        prefixes: &Prefixes,
        records: &mut impl Records,
    ) -> &'a [u8] {
        while self.tail.len() + line.len() > MAX_TEXT {
            let (now, later) = line.split_at(MAX_TEXT - self.tail.len());
            records.record(&prefixes.partial, &self.tail, now);
            self.tail = Vec::new();
            line = later;
        }
        line
    }

    /// Writes what has no newline yet, as a partial record: no newline is invented, as containerd does it, so that a
    /// reader gets exactly the bytes that the container wrote.
    pub(super) fn flush(&mut self, prefixes: &Prefixes, records: &mut impl Records) {
        if !self.tail.is_empty() {
            records.record(&prefixes.partial, &self.tail, &[]);
            self.tail = Vec::new();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tags and texts of the records of a stream.
    #[derive(Default)]
    struct Kept(Vec<(u8, Vec<u8>)>);

    impl Records for Kept {
        fn record(&mut self, prefix: &[u8; PREFIX], start: &[u8], rest: &[u8]) {
            self.0.push((prefix[PREFIX - 2], [start, rest].concat()));
        }
    }

    /// What the records of a whole stream must be, whatever batches it came in.
    fn model(stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut records = Vec::new();
        for line in stream.split_inclusive(|&byte| byte == b'\n') {
            let (text, tag) = line
                .strip_suffix(b"\n")
                .map_or((line, b'P'), |text| (text, b'F'));
            let pieces: Vec<&[u8]> = if text.is_empty() {
                vec![text]
            } else {
                text.chunks(MAX_TEXT).collect()
            };
            records.extend(pieces.iter().map(|piece| (b'P', piece.to_vec())));
            records.last_mut().expect("a line has a piece").0 = tag;
        }
        records
    }

    fn cut(batches: &[Vec<u8>]) -> Vec<(u8, Vec<u8>)> {
        let (mut lines, mut kept) = (Lines::default(), Kept::default());
        let prefixes = Prefixes::new(StreamName::Stdout, 0);
        for batch in batches {
            lines.push(batch, &prefixes, &mut kept);
            assert!(lines.tail.len() <= MAX_TEXT && lines.tail.capacity() <= MAX_TEXT);
        }
        lines.flush(&prefixes, &mut kept);
        kept.0
    }

    /// Short and long lines and pieces around the limit, often cut within a line.
    fn batch() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(prop_oneof![4 => Just(b'x'), 1 => Just(b'\n')], 0..40),
            (MAX_TEXT - 2..MAX_TEXT + 3).prop_map(|length| vec![b'y'; length]),
            (0..3 * MAX_TEXT).prop_map(|length| vec![b'z'; length]),
            Just(b"\n".to_vec()),
        ]
    }

    proptest! {
        #[test]
        fn batches_do_not_matter(batches in proptest::collection::vec(batch(), 0..12)) {
            prop_assert_eq!(cut(&batches), model(&batches.concat()));
        }
    }

    #[test]
    fn prefixes() {
        let prefixes = Prefixes::new(StreamName::Stderr, 1);
        assert_eq!(prefixes.full(), b"1970-01-01T00:00:00.000000001Z stderr F ");
        assert_eq!(
            &prefixes.partial,
            b"1970-01-01T00:00:00.000000001Z stderr P "
        );
    }
}
