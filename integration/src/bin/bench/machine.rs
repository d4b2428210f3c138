//! What the machine is like at this time. A virtual one shares its last cache with neighbours: when they fill it, everything takes
//! longer that a kernel does, though the machine itself has nothing else to do.

use std::{fs::File, hint::black_box, io::Write as _, path::Path, time::Instant};

use anyhow::{Context as _, Result};
use podwright_integration::random::Random;

use crate::{Figure, Measured};

/// More than a core's own caches hold, and less than the last one of a server's processor.
const SIZE: usize = 16 << 20;
/// As much as a log of 256 MiB of lines is, and as much at once as is written to it.
const FILE: usize = 360 << 20;
const PIECE: usize = 128 << 10;
/// A cache line, which is what an access fetches.
const LINE: usize = 64;
const NUMBERS: usize = LINE / size_of::<usize>();
const ACCESSES: u32 = 1_000_000;

/// How long an access takes whose address is the result of the one before.
pub(crate) fn measure(measured: &mut Measured) {
    let chain = Chain::new(SIZE / LINE);
    // The first way around takes in the pages.
    chain.walk(ACCESSES);
    let start = Instant::now();
    black_box(chain.walk(ACCESSES));
    let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(ACCESSES);
    measured.add(Figure::Access, each);
}

/// How fast a new file takes what is in the cache already. A virtual machine's memory may have to be given to it anew for that, more or
/// less of it from one minute to the next.
pub(crate) fn measure_file(directory: &Path, measured: &mut Measured) -> Result<()> {
    let path = directory.join("new");
    let context = || format!("writing {}", path.display());
    let piece = vec![b'0'; PIECE];
    let mut file = File::create(&path).with_context(context)?;
    let start = Instant::now();
    for _ in 0..FILE / PIECE {
        file.write_all(&piece).with_context(context)?;
    }
    let rate = (FILE >> 20) as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(&path).with_context(context)?;
    measured.add(Figure::NewFile, rate);
    Ok(())
}

/// Lines of which each names the next one: all of them in one circle, in no order.
struct Chain(Vec<[usize; NUMBERS]>);

impl Chain {
    /// Sattolo's shuffle makes one circle of them.
    fn new(lines: usize) -> Self {
        let mut random = Random::new(1);
        let mut chain: Vec<_> = (0..lines).map(|line| [line; NUMBERS]).collect();
        for line in (1..lines).rev() {
            chain.swap(line, random.index(line));
        }
        Self(chain)
    }

    fn walk(&self, accesses: u32) -> usize {
        (0..accesses).fold(0, |line, _| self.0[line][0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_passes_all_lines_before_it_is_back() {
        let chain = Chain::new(1000);
        assert_eq!(chain.walk(1000), 0);
        assert!((1..1000).all(|accesses| chain.walk(accesses) != 0));
    }
}
