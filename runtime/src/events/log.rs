//! The log of events between those who tell and those who listen: bounded, shared by all readers, kept only while
//! somebody is to read it. Pure: time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What a log may hold. Beyond that the oldest entries go, and readers that have not had them are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Entries.
    pub(super) entries: usize,
    /// Bytes of all entries, as their messages count.
    pub(super) bytes: usize,
    /// Readers at the same time.
    pub(super) readers: usize,
    /// How long entries are kept for a reader that has gone.
    pub(super) absence: Duration,
}

/// A reader's name in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reader(u64);

/// What there is for a reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// The next entry.
    Entry(T),
    /// It has had everything.
    Nothing,
    /// Entries that it has not had are gone.
    Lost,
}

/// Where a reader that has gone had come to.
#[derive(Debug)]
struct Absent {
    next: u64,
    since: Instant,
}

/// Entries have numbers that count up. Those from `first` on are here.
#[derive(Debug)]
pub(super) struct Log<T> {
    bounds: Bounds,
    first: u64,
    /// With the bytes of each.
    entries: VecDeque<(T, usize)>,
    bytes: usize,
    /// What each reader gets next.
    readers: BTreeMap<Reader, u64>,
    /// In the order of their going.
    absent: VecDeque<Absent>,
    last_reader: u64,
}

impl<T: Clone> Log<T> {
    /// An empty log that keeps what comes for a first reader: one that an earlier daemon may have had.
    pub(super) fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            bounds,
            first: 0,
            entries: VecDeque::new(),
            bytes: 0,
            readers: BTreeMap::new(),
            absent: VecDeque::from([Absent {
                next: 0,
                since: now,
            }]),
            last_reader: 0,
        }
    }

    /// Whether anybody reads.
    pub(super) fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }

    /// Whether anybody reads, or may come back.
    pub(super) fn is_wanted(&mut self, now: Instant) -> bool {
        self.expire(now);
        !(self.readers.is_empty() && self.absent.is_empty())
    }

    /// Adds an entry of `bytes`.
    pub(super) fn append(&mut self, entry: T, bytes: usize, now: Instant) {
        if !self.is_wanted(now) {
            self.first += 1;
            return;
        }
        self.entries.push_back((entry, bytes));
        self.bytes += bytes;
        // The newest stays, whatever its size.
        while self.entries.len() > 1
            && (self.entries.len() > self.bounds.entries || self.bytes > self.bounds.bytes)
        {
            self.drop_oldest();
        }
    }

    /// As [`Self::append`] of `count` entries that are lost at once, with all before them: every reader is told.
    pub(super) fn lose(&mut self, count: u64) {
        while !self.entries.is_empty() {
            self.drop_oldest();
        }
        self.first += count;
    }

    /// Takes on a reader. It begins where the one that had come least far of those that have gone stopped, and is told
    /// when what came then is lost; else with what comes from now on. None when there are too many.
    pub(super) fn open(&mut self, now: Instant) -> Option<Reader> {
        self.expire(now);
        if self.readers.len() >= self.bounds.readers {
            return None;
        }
        let least = self
            .absent
            .iter()
            .enumerate()
            .min_by_key(|(_, absent)| absent.next);
        let next = match least.map(|(index, _)| index) {
            Some(index) => self.absent.remove(index).map(|absent| absent.next),
            None => None,
        };
        self.last_reader += 1;
        let reader = Reader(self.last_reader);
        self.readers
            .insert(reader, next.unwrap_or_else(|| self.end()));
        Some(reader)
    }

    /// What `reader` gets next; it counts as had.
    pub(super) fn next(&mut self, reader: Reader) -> Next<T> {
        let (first, end) = (self.first, self.end());
        let Some(next) = self.readers.get_mut(&reader) else {
            return Next::Lost;
        };
        if *next < first {
            // Told once; whatever comes from now on is new to it.
            *next = end;
            return Next::Lost;
        }
        let index = usize::try_from(*next - first).unwrap_or(usize::MAX);
        let Some((entry, _)) = self.entries.get(index) else {
            return Next::Nothing;
        };
        let entry = entry.clone();
        *next += 1;
        self.forget_read();
        Next::Entry(entry)
    }

    /// A reader has gone. What comes is kept for the one that takes its place.
    pub(super) fn close(&mut self, reader: Reader, now: Instant) {
        if let Some(next) = self.readers.remove(&reader) {
            if self.absent.len() >= self.bounds.readers {
                self.absent.pop_front();
            }
            self.absent.push_back(Absent { next, since: now });
        }
        self.forget_read();
    }

    /// Forgets readers that have been away for too long, and what was kept for them; when to do so again.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let absence = self.bounds.absence;
        self.absent
            .retain(|absent| now.saturating_duration_since(absent.since) < absence);
        self.forget_read();
        self.absent.front().map(|absent| absent.since + absence)
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Drops what nobody is to read any more.
    fn forget_read(&mut self) {
        let wanted = self
            .readers
            .values()
            .copied()
            .chain(self.absent.iter().map(|absent| absent.next));
        let least = wanted.min().unwrap_or_else(|| self.end());
        while self.first < least && !self.entries.is_empty() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_front() {
            self.bytes -= bytes;
            self.first += 1;
        }
        if self.entries.is_empty() {
            // After a burst that nobody needs any more.
            self.entries.shrink_to(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds {
        entries: 4,
        bytes: 100,
        readers: 2,
        absence: Duration::from_secs(10),
    };

    fn rest(log: &mut Log<u32>, reader: Reader) -> Vec<Next<u32>> {
        let mut all = Vec::new();
        loop {
            match log.next(reader) {
                Next::Nothing => return all,
                next => all.push(next),
            }
        }
    }

    #[test]
    fn the_first_reader_gets_what_came_before_it() {
        let now = Instant::now();
        let mut log = Log::new(BOUNDS, now);
        log.append(1, 1, now);
        let reader = log.open(now).unwrap();
        log.append(2, 1, now);
        assert_eq!(rest(&mut log, reader), [Next::Entry(1), Next::Entry(2)]);
        // A second one does not.
        let second = log.open(now).unwrap();
        log.append(3, 1, now);
        assert_eq!(rest(&mut log, second), [Next::Entry(3)]);
        assert!(log.open(now).is_none(), "two are allowed");
    }

    #[test]
    fn a_reader_that_falls_behind_is_told_once() {
        let now = Instant::now();
        let mut log = Log::new(BOUNDS, now);
        let (slow, fast) = (log.open(now).unwrap(), log.open(now).unwrap());
        for entry in 0..5 {
            log.append(entry, 1, now);
            assert_eq!(rest(&mut log, fast), [Next::Entry(entry)]);
        }
        assert_eq!(rest(&mut log, slow), [Next::Lost]);
        log.append(9, 1, now);
        assert_eq!(rest(&mut log, slow), [Next::Entry(9)]);
        assert_eq!(rest(&mut log, fast), [Next::Entry(9)]);
        // Bytes count too, and an entry larger than all is still told.
        log.append(10, 60, now);
        log.append(11, 200, now);
        assert_eq!(rest(&mut log, slow), [Next::Lost]);
        assert!(log.bytes <= 200);
    }

    #[test]
    fn who_comes_back_goes_on_where_it_stopped_and_only_for_a_while() {
        let start = Instant::now();
        let mut log = Log::new(BOUNDS, start);
        let (first, second) = (log.open(start).unwrap(), log.open(start).unwrap());
        log.append(1, 1, start);
        log.close(second, start);
        assert_eq!(rest(&mut log, first), [Next::Entry(1)]);
        log.append(2, 1, start);
        log.close(first, start);
        let back = log.open(start).unwrap();
        assert_eq!(
            rest(&mut log, back),
            [Next::Entry(1), Next::Entry(2)],
            "the least far comes first"
        );
        log.close(back, start);
        assert!(log.expire(start).is_some());
        let later = start + BOUNDS.absence;
        assert_eq!(log.expire(later), None);
        assert!(!log.is_wanted(later) && log.entries.is_empty() && log.bytes == 0);
        log.append(3, 1, later);
        assert!(log.entries.is_empty(), "nobody is to read it");
        let new = log.open(later).unwrap();
        log.append(4, 1, later);
        assert_eq!(rest(&mut log, new), [Next::Entry(4)]);
    }

    #[test]
    fn who_comes_back_is_told_of_what_was_lost_meanwhile() {
        let now = Instant::now();
        let mut log = Log::new(BOUNDS, now);
        for entry in 0..5 {
            log.append(entry, 1, now);
        }
        let reader = log.open(now).unwrap();
        assert_eq!(rest(&mut log, reader), [Next::Lost]);
        log.close(reader, now);
        log.append(5, 1, now);
        log.lose(3);
        log.append(9, 1, now);
        let (back, new) = (log.open(now).unwrap(), log.open(now).unwrap());
        log.append(10, 1, now);
        assert_eq!(rest(&mut log, back), [Next::Lost]);
        assert_eq!(rest(&mut log, new), [Next::Entry(10)]);
        assert_eq!(log.end(), 11);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(usize),
        Lose,
        Open,
        Read(usize),
        Close(usize),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1_usize..40).prop_map(Step::Append),
            Just(Step::Open),
            Just(Step::Lose),
            (0_usize..3).prop_map(Step::Read),
            (0_usize..3).prop_map(Step::Close),
            (0_u64..6).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Every reader sees numbers that count up by one, unless it was told of a loss in between; and the bounds hold.
        #[test]
        fn none_is_lost_without_being_told(steps in steps()) {
            let mut now = Instant::now();
            let mut log = Log::new(BOUNDS, now);
            let mut told = 0_u32;
            let mut readers: Vec<(Reader, Option<u32>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Append(bytes) => {
                        log.append(told, bytes, now);
                        told += 1;
                    }
                    Step::Lose => {
                        log.lose(1);
                        told += 1;
                    }
                    Step::Open => readers.extend(log.open(now).map(|reader| (reader, None))),
                    Step::Read(index) => {
                        let Some((reader, expected)) = readers.get_mut(index) else { continue };
                        match log.next(*reader) {
                            Next::Entry(entry) => {
                                prop_assert_eq!(expected.unwrap_or(entry), entry);
                                *expected = Some(entry + 1);
                            }
                            Next::Lost => *expected = Some(told),
                            Next::Nothing => if let Some(expected) = expected {
                                prop_assert_eq!(*expected, told);
                            }
                        }
                    }
                    Step::Close(index) => if index < readers.len() {
                        log.close(readers.remove(index).0, now);
                    }
                    Step::Pass(seconds) => now += Duration::from_secs(seconds),
                }
                prop_assert!(log.entries.len() <= BOUNDS.entries);
                prop_assert!(log.entries.len() <= 1 || log.bytes <= BOUNDS.bytes);
                prop_assert_eq!(log.end(), u64::from(told));
            }
        }
    }
}
