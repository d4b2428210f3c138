//! The arguments that `ps -f` shows.
#![allow(unsafe_code)] // the kernel's copy of the arguments, by its address

use std::ops::Range;
use std::ptr;

/// Overwrites the first argument that this process was executed with, as far as there is room.
///
/// prctl(2) could do it at any length (PR_SET_MM), but asks for CAP_SYS_RESOURCE, which a daemon in a container may lack.
pub(crate) fn set(title: &[u8]) {
    let Some(place) = std::fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|stat| arguments(&stat))
    else {
        return;
    };
    let length = title.len().min(place.len());
    // SAFETY: the range is that of the arguments, which the kernel has put on this process's stack for its whole life. std reads
    // them only when it is asked for them, which nothing here does; there is one thread.
    unsafe {
        ptr::copy_nonoverlapping(title.as_ptr(), place.start as *mut u8, length);
        ptr::write_bytes((place.start + length) as *mut u8, 0, place.len() - length);
    }
}

/// Where they are, as `/proc/PID/stat` says in its fields 48 and 49 (proc_pid_stat(5)).
fn arguments(stat: &str) -> Option<Range<usize>> {
    // The second field, a name in parentheses, may have spaces and parentheses in it.
    let (_, from_third) = stat.rsplit_once(')')?;
    let mut fields = from_third.split_ascii_whitespace().skip(48 - 3);
    let mut next = || fields.next()?.parse::<usize>().ok();
    let range = next()?..next()?;
    (range.start > 0 && range.start <= range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_found_behind_any_name() {
        let fields: Vec<_> = (3..=52).map(|field| field.to_string()).collect();
        for name in ["pause", "a b", "a) R 1 2"] {
            let stat = format!("1 ({name}) {}\n", fields.join(" "));
            assert_eq!(arguments(&stat), Some(48..49), "{name}");
        }
    }

    #[test]
    fn what_is_hidden_is_none() {
        for stat in ["", "1 (pause) S 1", "1 (pause"] {
            assert_eq!(arguments(stat), None, "{stat:?}");
        }
        let hidden = format!("1 (pause) {}", "0 ".repeat(50));
        assert_eq!(arguments(&hidden), None);
    }
}
