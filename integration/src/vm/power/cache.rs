//! What a drive has taken and not yet made to last.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt as _};

use crate::random::Random;

/// What a drive writes as a whole: a cut leaves a sector old or new.
pub(super) const SECTOR: usize = 512;
/// A drive's cache is small: when it is full, all of it is written. 64 MiB.
const CAPACITY: usize = (64 << 20) / SECTOR;

/// What a cut has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Sectors written since the last flush.
    pub unflushed: usize,
    /// Those of them that are as they were before.
    pub lost: usize,
}

/// How a drive may have been writing its cache when the power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Not at all.
    NothingLasts,
    /// In the order of the writes, up to some point.
    InOrder,
    /// Whole writes, in an order of its own.
    SomeWrites,
    /// Sectors in an order of its own: writes are torn.
    SomeSectors,
}

impl Fate {
    const ALL: [Self; 4] = [
        Self::NothingLasts,
        Self::InOrder,
        Self::SomeWrites,
        Self::SomeSectors,
    ];
}

/// A sector that is not in the image yet.
#[derive(Debug)]
struct Pending {
    /// The number of the write that brought it.
    write: u64,
    content: Box<[u8; SECTOR]>,
}

/// A drive: the image is what lasts, the rest is in memory.
#[derive(Debug)]
pub(super) struct WriteCache {
    image: File,
    size: u64,
    pending: BTreeMap<u64, Pending>,
    writes: u64,
}

impl WriteCache {
    pub(super) fn new(image: File) -> io::Result<Self> {
        let size = image.metadata()?.len();
        Ok(Self {
            image,
            size,
            pending: BTreeMap::new(),
            writes: 0,
        })
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether whole sectors of the drive are meant.
    pub(super) fn has(&self, offset: u64, length: usize) -> bool {
        let end = offset.checked_add(length as u64);
        offset.is_multiple_of(SECTOR as u64)
            && length.is_multiple_of(SECTOR)
            && end.is_some_and(|end| end <= self.size)
    }

    /// Reads what was written last, whether it lasts or not.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.image.read_exact_at(buffer, offset)?;
        let first = offset / SECTOR as u64;
        let end = first + (buffer.len() / SECTOR) as u64;
        for (sector, pending) in self.pending.range(first..end) {
            let at = usize::try_from(sector - first).map_err(io::Error::other)? * SECTOR;
            buffer[at..at + SECTOR].copy_from_slice(&*pending.content);
        }
        Ok(())
    }

    /// Takes a write, which does not last yet.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writes += 1;
        let first = offset / SECTOR as u64;
        for (sector, content) in (first..).zip(data.chunks_exact(SECTOR)) {
            let mut copy = Box::new([0; SECTOR]);
            copy.copy_from_slice(content);
            let pending = Pending {
                write: self.writes,
                content: copy,
            };
            self.pending.insert(sector, pending);
        }
        if self.pending.len() > CAPACITY {
            self.flush()?;
        }
        Ok(())
    }

    /// A write that lasts when this returns, whatever becomes of earlier ones (force unit access).
    pub(super) fn write_through(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let first = offset / SECTOR as u64;
        for sector in first..first + (data.len() / SECTOR) as u64 {
            self.pending.remove(&sector);
        }
        self.image.write_all_at(data, offset)
    }

    /// Makes all that was written last.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        for (sector, pending) in pending {
            self.keep(sector, &pending)?;
        }
        Ok(())
    }

    /// Loses power.
    pub(super) fn cut(mut self, random: &mut Random) -> io::Result<Loss> {
        let fate = Fate::ALL[random.index(Fate::ALL.len())];
        let pending = std::mem::take(&mut self.pending);
        let first = pending.values().map(|pending| pending.write).min();
        let first = first.unwrap_or(self.writes);
        let last_kept = first + random.below(self.writes - first + 1);
        let seed = random.next_u64();
        let mut loss = Loss {
            unflushed: pending.len(),
            lost: 0,
        };
        for (sector, pending) in &pending {
            let lasts = match fate {
                Fate::NothingLasts => false,
                Fate::InOrder => pending.write <= last_kept,
                // All sectors of a write have one fate.
                Fate::SomeWrites => Random::new(seed ^ pending.write).chance(1, 2),
                Fate::SomeSectors => random.chance(1, 2),
            };
            if lasts {
                self.keep(*sector, pending)?;
            } else {
                loss.lost += 1;
            }
        }
        Ok(loss)
    }

    fn keep(&self, sector: u64, pending: &Pending) -> io::Result<()> {
        self.image
            .write_all_at(&*pending.content, sector * SECTOR as u64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const SECTORS: usize = 64;

    fn drive() -> (WriteCache, File) {
        let image = tempfile::tempfile().unwrap();
        image.set_len((SECTORS * SECTOR) as u64).unwrap();
        (WriteCache::new(image.try_clone().unwrap()).unwrap(), image)
    }

    /// The first byte of each sector.
    fn sectors(image: &File) -> Vec<u8> {
        let mut content = vec![0; SECTORS * SECTOR];
        image.read_exact_at(&mut content, 0).unwrap();
        content.chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    #[test]
    fn what_is_written_is_read_and_what_is_flushed_lasts() {
        let (mut drive, image) = drive();
        drive.write(SECTOR as u64, &[1; 3 * SECTOR]).unwrap();
        let mut read = [9; 5 * SECTOR];
        drive.read(0, &mut read).unwrap();
        let expected = [0, 1, 1, 1, 0];
        assert_eq!(read.map(usize::from)[..SECTOR], [0; SECTOR]);
        assert!(
            read.chunks(SECTOR)
                .zip(expected)
                .all(|(sector, byte)| sector == [byte; SECTOR])
        );
        assert_eq!(sectors(&image)[..5], [0; 5], "not before a flush");
        drive.flush().unwrap();
        assert_eq!(sectors(&image)[..5], expected);
        let loss = drive.cut(&mut Random::new(1)).unwrap();
        assert_eq!(loss, Loss::default());
        assert_eq!(sectors(&image)[..5], expected);
    }

    #[test]
    fn a_write_through_lasts_and_no_earlier_write_comes_back_over_it() {
        for seed in 0..32 {
            let (mut drive, image) = drive();
            drive.write(0, &[1; 2 * SECTOR]).unwrap();
            drive.write_through(0, &[2; SECTOR]).unwrap();
            drive.cut(&mut Random::new(seed)).unwrap();
            assert_eq!(sectors(&image)[0], 2);
        }
    }

    #[test]
    fn cuts_lose_nothing_everything_and_parts() {
        let (mut none, mut all, mut torn, mut reordered) = (0, 0, 0, 0);
        for seed in 0..256 {
            let (mut drive, image) = drive();
            drive.write(0, &[9; SECTORS * SECTOR]).unwrap();
            drive.flush().unwrap();
            for write in 0..8 {
                drive
                    .write((write * 8 * SECTOR) as u64, &[1; 8 * SECTOR])
                    .unwrap();
            }
            let loss = drive.cut(&mut Random::new(seed)).unwrap();
            let after = sectors(&image);
            assert!(after.iter().all(|byte| [1, 9].contains(byte)), "{after:?}");
            let lost = after.iter().filter(|byte| **byte == 9).count();
            let expected = Loss {
                unflushed: SECTORS,
                lost,
            };
            assert_eq!(loss, expected);
            let whole = |write: &[u8]| write.iter().all(|byte| *byte == write[0]);
            none += usize::from(lost == 0);
            all += usize::from(lost == SECTORS);
            torn += usize::from(!after.chunks(8).all(whole));
            let order: Vec<_> = after.chunks(8).map(|write| write[0]).collect();
            reordered += usize::from(after.chunks(8).all(whole) && !order.is_sorted());
        }
        assert!(
            none > 0 && all > 0 && torn > 0 && reordered > 0,
            "{none} {all} {torn} {reordered}"
        );
    }

    #[test]
    fn only_whole_sectors_of_the_drive_are_there() {
        let (drive, _) = drive();
        for (offset, length, expected) in [
            (0, SECTOR, true),
            (0, SECTORS * SECTOR, true),
            (1, SECTOR, false),
            (0, 1, false),
            (SECTOR as u64, SECTORS * SECTOR, false),
            (u64::MAX - 511, SECTOR, false),
        ] {
            assert_eq!(drive.has(offset, length), expected, "{offset} {length}");
        }
    }
}
