//! The id mappings of a pod's user namespace (user_namespaces(7)).

use crate::wire_struct;

wire_struct! {
    /// A range of ids that are shown as others.
    IdRange {
        /// The first id as processes in the namespace see it.
        inside: u32,
        /// The first id on the host.
        outside: u32,
        /// How many.
        length: u32,
    }
}

wire_struct! {
    /// What a user namespace maps.
    IdMappings {
        /// User ids.
        uids: Vec<IdRange>,
        /// Group ids.
        gids: Vec<IdRange>,
    }
}

/// The most ranges that the kernel takes (UID_GID_MAP_MAX_EXTENTS, Linux 4.15).
pub const MAX_RANGES: usize = 340;

/// The host's id of one inside; none when it is not mapped.
pub fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let at = id.checked_sub(range.inside)?;
        (at < range.length).then(|| range.outside.checked_add(at))?
    })
}

/// The lines that /proc/PID/uid_map and gid_map take, in one write.
pub fn map_file(ranges: &[IdRange]) -> String {
    let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.length);
    ranges.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, length: u32) -> IdRange {
        IdRange {
            inside,
            outside,
            length,
        }
    }

    #[test]
    fn ids_are_found_in_their_range_and_nowhere_else() {
        let ranges = [range(0, 100_000, 1000), range(5000, 300_000, 1)];
        for (id, expected) in [
            (0, Some(100_000)),
            (999, Some(100_999)),
            (1000, None),
            (4999, None),
            (5000, Some(300_000)),
            (5001, None),
            (u32::MAX, None),
        ] {
            assert_eq!(outside(&ranges, id), expected, "{id}");
        }
        assert_eq!(outside(&[range(0, u32::MAX, 2)], 1), None, "no wrap");
    }

    #[test]
    fn the_file_has_a_line_for_each_range() {
        let ranges = [range(0, 65_536, 65_536), range(70_000, 7, 1)];
        assert_eq!(map_file(&ranges), "0 65536 65536\n70000 7 1\n");
    }
}
