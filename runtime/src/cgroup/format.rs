//! The text formats of cgroup interface files. Pure; what does not parse is absent, never a panic.

use std::collections::BTreeMap;

use super::detail::{DeviceIo, Operation};

/// Pressure stall information of one resource (`Documentation/accounting/psi.rst`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Some tasks waited.
    pub some: PressureLine,
    /// All tasks waited at the same time.
    pub full: PressureLine,
}

/// One line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PressureLine {
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last 60 s.
    pub avg60: f64,
    /// Percent of the last 300 s.
    pub avg300: f64,
    /// Total stall time in microseconds.
    pub total_us: u64,
}

/// The lines `name value`; others are passed over.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

/// The value of the line `name value`.
pub(super) fn value(text: &str, name: &str) -> Option<u64> {
    pairs(text)
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// A file that is one number.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A v1 memory limit: the kernel counts pages in a signed long, so "none" reads as the largest such multiple of the
/// page size, which depends on the architecture. No machine has 2^62 bytes.
pub(super) fn v1_limit(bytes: u64) -> Option<u64> {
    (bytes < 1 << 62).then_some(bytes)
}

/// A v2 limit: a number or `max`. The outer option is absent when it is neither.
pub(super) fn v2_limit(text: &str) -> Option<Option<u64>> {
    match text.trim() {
        "max" => Some(None),
        value => value.parse().ok().map(Some),
    }
}

/// A pressure file. Kernels before 5.13 have no `full` line for CPU.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let mut found = Pressure::default();
    let mut any = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let slot = match words.next() {
            Some("some") => &mut found.some,
            Some("full") => &mut found.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let average = value.parse().unwrap_or(0.0);
            match key {
                "avg10" => slot.avg10 = average,
                "avg60" => slot.avg60 = average,
                "avg300" => slot.avg300 = average,
                "total" => slot.total_us = value.parse().unwrap_or(0),
                _ => continue,
            }
            any = true;
        }
    }
    any.then_some(found)
}

/// v1's files of block devices: lines `major:minor Operation value`, one file for bytes and one for requests.
pub(super) fn blkio(bytes: &str, requests: &str) -> Vec<DeviceIo> {
    let mut found: BTreeMap<(u32, u32, Operation), (u64, u64)> = BTreeMap::new();
    for (line, of_requests) in bytes
        .lines()
        .map(|line| (line, false))
        .chain(requests.lines().map(|line| (line, true)))
    {
        let mut words = line.split_ascii_whitespace();
        let (Some(device), Some(operation), Some(value)) = (
            words.next().and_then(device),
            words.next().and_then(operation),
            words.next().and_then(number),
        ) else {
            // `Sync`, `Async` and `Total` count the same once more.
            continue;
        };
        let entry = found.entry((device.0, device.1, operation)).or_default();
        if of_requests {
            entry.1 = value;
        } else {
            entry.0 = value;
        }
    }
    found
        .into_iter()
        .map(|((major, minor, operation), (bytes, requests))| DeviceIo {
            major,
            minor,
            operation,
            bytes,
            requests,
        })
        .collect()
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn operation(name: &str) -> Option<Operation> {
    match name {
        "Read" => Some(Operation::Read),
        "Write" => Some(Operation::Write),
        "Discard" => Some(Operation::Discard),
        _ => None,
    }
}

/// v2's io.stat: lines `major:minor rbytes=… wbytes=… rios=… wios=… dbytes=… dios=…`.
pub(super) fn io_stat(text: &str) -> Vec<DeviceIo> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else {
            continue;
        };
        let values: BTreeMap<&str, u64> = words
            .filter_map(|word| word.split_once('='))
            .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
            .collect();
        let of = |key| values.get(key).copied().unwrap_or_default();
        for (operation, bytes, requests) in [
            (Operation::Read, "rbytes", "rios"),
            (Operation::Write, "wbytes", "wios"),
            (Operation::Discard, "dbytes", "dios"),
        ] {
            // A device without a line of its own has had no I/O; one with a line tells all of it.
            if values.contains_key(bytes) {
                found.push(DeviceIo {
                    major,
                    minor,
                    operation,
                    bytes: of(bytes),
                    requests: of(requests),
                });
            }
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_pressure() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=123456\nfull avg10=0.50 avg60=0.00 avg300=0.10 total=99\n";
        let found = pressure(text).unwrap();
        assert_eq!(
            found.some,
            PressureLine {
                avg10: 1.5,
                avg60: 0.25,
                avg300: 0.0,
                total_us: 123_456
            }
        );
        assert_eq!(found.full.total_us, 99);
        assert_eq!(
            pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")
                .unwrap()
                .some
                .total_us,
            7
        );
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn reads_limits() {
        assert_eq!(v2_limit("max\n"), Some(None));
        assert_eq!(v2_limit("4096\n"), Some(Some(4096)));
        assert_eq!(v2_limit("many"), None);
        assert_eq!(v1_limit(9_223_372_036_854_771_712), None);
        assert_eq!(v1_limit(1 << 30), Some(1 << 30));
    }

    #[test]
    fn reads_block_devices() {
        let bytes = "8:0 Read 4096\n8:0 Write 10\n8:0 Sync 4106\n8:0 Discard 3\n8:0 Total 4109\n253:1 Read 7\nTotal 4116\n";
        let requests = "8:0 Read 2\n8:0 Write 1\n8:0 Discard 1\n253:1 Read 1\nTotal 5\n";
        let io = |major, minor, operation, bytes, requests| DeviceIo {
            major,
            minor,
            operation,
            bytes,
            requests,
        };
        let v1 = [
            io(8, 0, Operation::Read, 4096, 2),
            io(8, 0, Operation::Write, 10, 1),
            io(8, 0, Operation::Discard, 3, 1),
            io(253, 1, Operation::Read, 7, 1),
        ];
        assert_eq!(blkio(bytes, requests), v1);
        assert_eq!(blkio("Total 0\n", ""), []);
        let v2 =
            "8:0 rbytes=4096 wbytes=10 rios=2 wios=1 dbytes=3 dios=1\n253:1 rbytes=7 rios=1\n7:0\n";
        assert_eq!(io_stat(v2), v1);
    }

    proptest! {
        #[test]
        fn pairs_survive_junk(rows in prop::collection::vec(("[a-z_]{1,12}", any::<u64>()), 0..20), junk in "[a-z =]{0,20}") {
            prop_assume!(pairs(&junk).next().is_none());
            let mut text = format!("{junk}\n");
            for (name, value) in &rows {
                text.push_str(&format!("{name} {value}\n"));
            }
            let read: Vec<_> = pairs(&text).map(|(name, value)| (name.to_owned(), value)).collect();
            prop_assert_eq!(read, rows);
        }

        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = (pressure(&text), pairs(&text).count(), number(&text), v2_limit(&text));
            let _ = (blkio(&text, &text), io_stat(&text));
        }
    }
}
