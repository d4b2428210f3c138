//! Times as log records show them.

/// `2026-11-21T01:26:42.123456789Z`.
pub(crate) const LENGTH: usize = 30;

/// Nanoseconds since the epoch as RFC 3339 text in UTC. Years outside 0000 to 9999 wrap.
pub(super) fn rfc3339(nanoseconds: i64) -> [u8; LENGTH] {
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    put(&mut text, 0..4, year);
    put(&mut text, 5..7, month);
    put(&mut text, 8..10, day);
    put(&mut text, 11..13, second / 3600);
    put(&mut text, 14..16, second / 60 % 60);
    put(&mut text, 17..19, second % 60);
    put(&mut text, 20..29, nanoseconds.rem_euclid(1_000_000_000));
    text
}

/// Writes a number right-aligned into zeros.
fn put(text: &mut [u8; LENGTH], digits: std::ops::Range<usize>, mut number: i64) {
    for digit in text[digits].iter_mut().rev() {
        *digit = b'0' + (number.rem_euclid(10)) as u8;
        number = number.div_euclid(10);
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years start in March, so
/// that the leap day is their last; 400 years are always 146097 days.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468; // from 0000-03-01
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(nanoseconds: i64) -> String {
        String::from_utf8_lossy(&rfc3339(nanoseconds)).into_owned()
    }

    #[test]
    fn known_times() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_795_224_402, "2026-11-21T01:26:42"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (-1, "1969-12-31T23:59:59"),
        ] {
            assert_eq!(
                text(seconds * 1_000_000_000 + 42),
                format!("{expected}.000000042Z")
            );
        }
        assert_eq!(text(-1), "1969-12-31T23:59:59.999999999Z");
    }

    /// The day after, by the calendar's rules.
    fn next((year, month, day): (i64, i64, i64)) -> (i64, i64, i64) {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        match (month, day) {
            (12, 31) => (year + 1, 1, 1),
            (_, day) if day == length => (year, month + 1, 1),
            _ => (year, month, day + 1),
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        for day in 0..200_000 {
            assert_eq!(civil(day + 1), next(civil(day)));
        }
    }
}
