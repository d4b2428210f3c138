//! Paths of /proc and /sys that a container must not read or write, as the peers have them.

/// Hidden: a file is covered by /dev/null, a directory by an empty read-only tmpfs.
pub const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Readable, not writable.
pub const READONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_absolute_and_distinct() {
        for path in MASKED.iter().chain(READONLY) {
            assert!(
                path.starts_with("/proc/") || path.starts_with("/sys/"),
                "{path}"
            );
        }
        assert!(MASKED.iter().all(|path| !READONLY.contains(path)));
        assert!(MASKED.is_sorted() && READONLY.is_sorted());
    }
}
