//! Levels that keep pods from each other (MCS): two categories for each pod, of which no two pods have both.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Categories of the policies in use (`c0` to `c1023`).
const CATEGORIES: u32 = 1024;

/// Pairs of two different categories, the lower one first.
const PAIRS: u32 = CATEGORIES * (CATEGORIES - 1) / 2;

/// Two different categories, the lower one first.
type Pair = (u32, u32);

/// The pairs that pods have, and how many pods each: more than one where requests say so.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// Guards the map alone.
    taken: Mutex<HashMap<Pair, usize>>,
}

impl Levels {
    /// A pair that no pod has, as `c1,c2`; none when all are taken. The search begins where the pod's id says, so that a
    /// level does not come back soon after its pod has gone.
    pub(super) fn reserve(&self, pod: &str) -> Option<String> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let first = crc32fast::hash(pod.as_bytes()) % PAIRS;
        let mut tried = (0..PAIRS).map(|step| pair((first + step) % PAIRS));
        let free = tried.find(|pair| !taken.contains_key(pair))?;
        taken.insert(free, 1);
        Some(text(free))
    }

    /// Takes the categories of a level that a pod has, when they are such a pair.
    pub(super) fn take(&self, level: &str) {
        if let Some(pair) = parse(level) {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            *taken.entry(pair).or_default() += 1;
        }
    }

    /// Gives them back.
    pub(super) fn release(&self, level: &str) {
        if let Some(pair) = parse(level) {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = taken.get_mut(&pair) {
                *count -= 1;
                if *count == 0 {
                    taken.remove(&pair);
                }
            }
        }
    }
}

fn text((low, high): Pair) -> String {
    format!("c{low},c{high}")
}

/// The categories in `s0:c1,c2`.
fn parse(level: &str) -> Option<Pair> {
    let (_, categories) = level.split_once(':')?;
    let (low, high) = categories.split_once(',')?;
    let number = |category: &str| category.strip_prefix('c')?.parse::<u32>().ok();
    let (one, other) = (number(low)?, number(high)?);
    Some((one.min(other), one.max(other)))
}

/// The pair with this number: (0,1) is 0, (0,2) is 1, (1,2) is 2, and so on.
fn pair(number: u32) -> Pair {
    // The pairs before the first with this higher category are high·(high-1)/2.
    let mut high = (f64::from(number) * 2.0).sqrt() as u32;
    while high * (high + 1) / 2 <= number {
        high += 1;
    }
    while high * (high - 1) / 2 > number {
        high -= 1;
    }
    (number - high * (high - 1) / 2, high)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_number_is_a_pair_of_its_own() {
        let all: HashSet<Pair> = (0..PAIRS).map(pair).collect();
        assert_eq!(all.len(), PAIRS as usize);
        assert!(
            all.iter()
                .all(|(low, high)| low < high && *high < CATEGORIES)
        );
        assert_eq!(
            (pair(0), pair(1), pair(2), pair(3)),
            ((0, 1), (0, 2), (1, 2), (0, 3))
        );
    }

    #[test]
    fn no_two_pods_have_one_level() {
        let levels = Levels::default();
        let reserved: HashSet<String> = (0..20_000)
            .map(|number| levels.reserve(&number.to_string()).unwrap())
            .collect();
        assert_eq!(reserved.len(), 20_000);
    }

    #[test]
    fn what_is_taken_is_not_given_until_it_is_released() {
        let levels = Levels::default();
        let first = levels.reserve("pod").unwrap();
        let second = levels.reserve("pod").unwrap();
        assert_ne!(first, second);
        let restarted = Levels::default();
        restarted.take(&format!("s0:{first}"));
        assert_eq!(restarted.reserve("pod").unwrap(), second);
        restarted.release(&format!("s0:{first}"));
        assert_eq!(restarted.reserve("pod").unwrap(), first);
        for other in ["", "s0", "s0:c1.c5", "s0-s0:c0.c1023", "s0:c1,c2,c3"] {
            restarted.take(other);
            restarted.release(other);
        }
    }

    #[test]
    fn all_can_be_taken() {
        let levels = Levels::default();
        let all = (0..PAIRS).map(|number| (pair(number), 1));
        levels.taken.lock().unwrap().extend(all);
        assert_eq!(levels.reserve("pod"), None);
        levels.release("s0:c7,c9");
        assert_eq!(levels.reserve("pod").as_deref(), Some("c7,c9"));
    }
}
