//! CPU time per second, from two readings of a counter.

use std::sync::{Mutex, PoisonError};

/// A rate over less says little; who asks sooner gets the last one.
const SHORTEST: i64 = 1_000_000_000;

/// The last reading, and the rate up to it. Guards the value alone.
#[derive(Debug, Default)]
pub(crate) struct CpuRate(Mutex<Option<Reading>>);

/// Times are nanoseconds since the epoch, use and rate nanoseconds of CPU time, in all and per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    at: i64,
    usage: u64,
    rate: u64,
}

impl CpuRate {
    /// The rate at `now`, when `usage` is used up. The first is the mean since `began`, when none was.
    pub(super) fn at(&self, now: i64, usage: u64, began: i64) -> u64 {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = next(*last, now, usage, began);
        *last = Some(reading);
        reading.rate
    }
}

fn next(last: Option<Reading>, now: i64, usage: u64, began: i64) -> Reading {
    let from = last.unwrap_or(Reading {
        at: began,
        usage: 0,
        rate: 0,
    });
    let elapsed = now.saturating_sub(from.at);
    if elapsed < 0 || usage < from.usage {
        // The clock was set back, or the counter began anew: the next window begins here.
        return Reading {
            at: now,
            usage,
            rate: from.rate,
        };
    }
    if let (Some(last), true) = (last, elapsed < SHORTEST) {
        return last;
    }
    let used = u128::from(usage - from.usage) * 1_000_000_000;
    let rate = used / u128::from(elapsed.unsigned_abs().max(1));
    Reading {
        at: now,
        usage,
        rate: u64::try_from(rate).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn rates_come_from_two_readings() {
        let rate = CpuRate::default();
        let began = 100 * SECOND;
        // The mean since the start: 1 s of CPU in 4 s.
        assert_eq!(
            rate.at(began + 4 * SECOND, 1_000_000_000, began),
            250_000_000
        );
        // Two cores for 10 s.
        assert_eq!(
            rate.at(began + 14 * SECOND, 21_000_000_000, began),
            2_000_000_000
        );
        // Too soon: the same again, and the window stays open.
        assert_eq!(
            rate.at(began + 14 * SECOND + 1, 22_000_000_000, began),
            2_000_000_000
        );
        assert_eq!(
            rate.at(began + 16 * SECOND, 22_000_000_000, began),
            500_000_000
        );
        assert_eq!(rate.at(began + 26 * SECOND, 22_000_000_000, began), 0);
    }

    #[test]
    fn clocks_and_counters_that_go_back_give_no_nonsense() {
        let rate = CpuRate::default();
        assert_eq!(rate.at(10 * SECOND, 5_000_000_000, 0), 500_000_000);
        assert_eq!(rate.at(5 * SECOND, 6_000_000_000, 0), 500_000_000);
        assert_eq!(rate.at(7 * SECOND, 7_000_000_000, 0), 500_000_000);
        assert_eq!(
            rate.at(9 * SECOND, 1_000_000_000, 0),
            500_000_000,
            "a counter anew"
        );
        assert_eq!(rate.at(10 * SECOND, 2_000_000_000, 0), 1_000_000_000);
        // A start that lies in the future, at the very same time.
        assert_eq!(CpuRate::default().at(SECOND, 5, SECOND), 5_000_000_000);
        assert_eq!(CpuRate::default().at(SECOND, 5, 2 * SECOND), 0);
    }
}
