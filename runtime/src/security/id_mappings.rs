//! A pod's user namespace as it is asked for: which ids of the pod are which on the host.

use podwright_pause::mapping::{IdMappings, IdRange, MAX_RANGES, outside};

/// One range as CRI has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedRange {
    /// The first id in the container.
    pub container: u32,
    /// The first id on the host.
    pub host: u32,
    /// How many.
    pub length: u32,
}

/// Which list of ids is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// User ids.
    User,
    /// Group ids.
    Group,
}

impl std::fmt::Display for IdKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Group => "group",
        })
    }
}

/// Mappings are refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdMappingError {
    /// None at all.
    #[error("there are no {kind} id mappings: a user namespace needs them for users and groups")]
    Missing {
        /// Which list.
        kind: IdKind,
    },
    /// The kernel has a limit.
    #[error("there are {count} {kind} id mappings, the kernel takes {MAX_RANGES}")]
    TooMany {
        /// Which list.
        kind: IdKind,
        /// Its length.
        count: usize,
    },
    /// A range that maps nothing or ends beyond the last id.
    #[error(
        "the {kind} id mapping of {length} ids from {container} to the host's {host} is impossible: it maps 1 id at least and ends at {} at most",
        u32::MAX - 1
    )]
    Range {
        /// Which list.
        kind: IdKind,
        /// The first id in the container.
        container: u32,
        /// The first id on the host.
        host: u32,
        /// How many.
        length: u32,
    },
    /// One id would mean two.
    #[error("two {kind} id mappings overlap {side}: at {first} and at {second}")]
    Overlap {
        /// Which list.
        kind: IdKind,
        /// Where they do.
        side: &'static str,
        /// The start of one range.
        first: u32,
        /// The start of the other.
        second: u32,
    },
    /// The container would have no root, which makes its mounts.
    #[error("no {kind} id mapping holds the container's id 0")]
    NoRoot {
        /// Which list.
        kind: IdKind,
    },
    /// The host's root must not be in the pod.
    #[error(
        "a {kind} id mapping holds the host's id 0: the pod would own what the host's root owns"
    )]
    HostRoot {
        /// Which list.
        kind: IdKind,
    },
}

/// The checked mappings of a pod.
///
/// # Errors
/// [`IdMappingError`] says which rule is broken.
pub fn check(
    users: &[RequestedRange],
    groups: &[RequestedRange],
) -> Result<IdMappings, IdMappingError> {
    Ok(IdMappings {
        uids: check_kind(IdKind::User, users)?,
        gids: check_kind(IdKind::Group, groups)?,
    })
}

fn check_kind(kind: IdKind, ranges: &[RequestedRange]) -> Result<Vec<IdRange>, IdMappingError> {
    if ranges.is_empty() {
        return Err(IdMappingError::Missing { kind });
    }
    if ranges.len() > MAX_RANGES {
        let count = ranges.len();
        return Err(IdMappingError::TooMany { kind, count });
    }
    for range in ranges {
        check_range(kind, *range)?;
    }
    disjoint(kind, "in the container", ranges, |range| range.container)?;
    disjoint(kind, "on the host", ranges, |range| range.host)?;
    let ranges: Vec<IdRange> = ranges
        .iter()
        .map(|range| IdRange {
            inside: range.container,
            outside: range.host,
            length: range.length,
        })
        .collect();
    match outside(&ranges, 0) {
        Some(_) => Ok(ranges),
        None => Err(IdMappingError::NoRoot { kind }),
    }
}

fn check_range(kind: IdKind, range: RequestedRange) -> Result<(), IdMappingError> {
    let RequestedRange {
        container,
        host,
        length,
    } = range;
    // The last number, (uid_t)-1, is no id.
    let fits = |first: u32| first.checked_add(length).is_some();
    if length == 0 || !fits(container) || !fits(host) {
        return Err(IdMappingError::Range {
            kind,
            container,
            host,
            length,
        });
    }
    if host == 0 {
        return Err(IdMappingError::HostRoot { kind });
    }
    Ok(())
}

fn disjoint(
    kind: IdKind,
    side: &'static str,
    ranges: &[RequestedRange],
    start: impl Fn(&RequestedRange) -> u32,
) -> Result<(), IdMappingError> {
    let mut sorted: Vec<&RequestedRange> = ranges.iter().collect();
    sorted.sort_by_key(|range| start(range));
    for pair in sorted.windows(2) {
        let (first, second) = (start(pair[0]), start(pair[1]));
        if second - first < pair[0].length {
            return Err(IdMappingError::Overlap {
                kind,
                side,
                first,
                second,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(container: u32, host: u32, length: u32) -> RequestedRange {
        RequestedRange {
            container,
            host,
            length,
        }
    }

    #[test]
    fn what_kubelets_send_is_taken() {
        let one = [range(0, 65_536, 65_536)];
        let mappings = check(&one, &one).unwrap();
        assert_eq!(mappings.uids, mappings.gids);
        assert_eq!(outside(&mappings.uids, 65_535), Some(131_071));
        // critest's.
        assert!(check(&[range(0, 1000, 100_000)], &[range(0, 1000, 100_000)]).is_ok());
        let two = [range(1000, 300_000, 1), range(0, 100_000, 1000)];
        assert!(check(&two, &one).is_ok(), "in any order");
    }

    #[test]
    fn impossible_mappings_are_named() {
        let good = [range(0, 65_536, 65_536)];
        let many: Vec<_> = (0..341).map(|at| range(at, 1000 + at, 1)).collect();
        let cases: [(&[RequestedRange], &str); 9] = [
            (&[], "no user id mappings"),
            (&many, "341"),
            (&[range(0, 65_536, 0)], "impossible"),
            (&[range(0, u32::MAX - 1, 2)], "impossible"),
            (&[range(u32::MAX, 65_536, 1)], "impossible"),
            (
                &[range(0, 1000, 100), range(0, 2000, 100)],
                "overlap in the container",
            ),
            (
                &[range(0, 1000, 100), range(100, 1099, 1)],
                "overlap on the host",
            ),
            (&[range(1, 1000, 100)], "container's id 0"),
            (&[range(0, 0, 100)], "host's id 0"),
        ];
        for (ranges, expected) in cases {
            let error = check(ranges, &good).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            let error = check(&good, ranges).unwrap_err().to_string();
            assert!(
                error.contains(&expected.replace("user", "group")),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn accepted_mappings_are_one_to_one(raw in prop::collection::vec((0u32..50, 1u32..50, 0u32..20), 1..6)) {
            let ranges: Vec<_> = raw.iter().map(|&(container, host, length)| range(container, host, length)).collect();
            if let Ok(mappings) = check(&ranges, &ranges) {
                let hosts: Vec<u32> = (0..100).filter_map(|id| outside(&mappings.uids, id)).collect();
                let mut distinct = hosts.clone();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), hosts.len());
                prop_assert_eq!(hosts.len(), ranges.iter().map(|range| range.length as usize).sum::<usize>());
                prop_assert!(!hosts.contains(&0));
            }
        }
    }
}
