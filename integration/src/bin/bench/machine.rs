//! What the machine is like at this time. A virtual one shares its last cache with neighbours: when they fill it, everything takes
//! longer that a kernel does, though the machine itself has nothing else to do.

use std::{hint::black_box, time::Instant};

use podwright_integration::random::Random;

use crate::{Figure, Measured};

/// More than a core's own caches hold, and less than the last one of a server's processor.
const SIZE: usize = 16 << 20;
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
