//! What a group uses, and how the kernel's texts tell it. Pure.

use super::format::{self, Pressure};

/// A group's use of the machine, its subtree included: what is asked for often, in few files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory in bytes.
    pub memory: MemoryStats,
    /// Swap; absent when it is not accounted.
    pub swap: Option<SwapStats>,
    /// Processes and their threads; absent without the controller.
    pub tasks: Option<u64>,
    /// Time lost waiting for I/O.
    pub io_pressure: Option<Pressure>,
}

/// CPU time since the group was made, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuStats {
    /// All of it.
    pub usage_ns: u64,
    /// Time lost waiting for a CPU.
    pub pressure: Option<Pressure>,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryStats {
    /// Everything charged, page cache included.
    pub usage: u64,
    /// Usage without the inactive page cache: what the kubelet's eviction looks at.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    /// Mapped files.
    pub mapped_file: u64,
    /// Page cache on the active list.
    pub active_file: u64,
    /// Page cache on the inactive list.
    pub inactive_file: u64,
    /// Page faults since the group was made.
    pub page_faults: u64,
    /// Those that needed I/O.
    pub major_page_faults: u64,
    /// The group's own limit.
    pub limit: Option<u64>,
    /// The limit minus the working set.
    pub available: Option<u64>,
    /// Time lost waiting for memory.
    pub pressure: Option<Pressure>,
}

/// Swap, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapStats {
    /// In use.
    pub usage: u64,
    /// What the limit leaves; absent without a limit.
    pub available: Option<u64>,
}

/// What the files say of swap, before its limit and use are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RawSwap {
    pub(super) usage: Option<u64>,
    /// v1: of memory and swap together.
    pub(super) memsw_limit: Option<u64>,
    /// v2: of swap alone.
    pub(super) limit: Option<u64>,
}

impl MemoryStats {
    /// Takes in v1's memory.stat, where sums over the subtree are called `total_`.
    pub(super) fn take_v1(&mut self, text: &str, swap: &mut RawSwap) {
        for (name, value) in format::pairs(text) {
            match name {
                "total_rss" => self.rss = value,
                "total_cache" => self.cache = value,
                "total_mapped_file" => self.mapped_file = value,
                "total_active_file" => self.active_file = value,
                "total_inactive_file" => self.inactive_file = value,
                "total_pgfault" => self.page_faults = value,
                "total_pgmajfault" => self.major_page_faults = value,
                "total_swap" => swap.usage = Some(value),
                "hierarchical_memsw_limit" => swap.memsw_limit = format::v1_limit(value),
                _ => {}
            }
        }
    }

    /// Takes in v2's memory.stat.
    pub(super) fn take_v2(&mut self, text: &str) {
        for (name, value) in format::pairs(text) {
            match name {
                "anon" => self.rss = value,
                "file" => self.cache = value,
                "file_mapped" => self.mapped_file = value,
                "active_file" => self.active_file = value,
                "inactive_file" => self.inactive_file = value,
                "pgfault" => self.page_faults = value,
                "pgmajfault" => self.major_page_faults = value,
                _ => {}
            }
        }
    }
}

impl Stats {
    /// What follows from the rest.
    pub(super) fn derive(&mut self, swap: RawSwap) {
        let memory = &mut self.memory;
        memory.working_set = memory.usage.saturating_sub(memory.inactive_file);
        memory.available = memory
            .limit
            .map(|limit| limit.saturating_sub(memory.working_set));
        self.swap = swap.usage.map(|usage| SwapStats {
            usage,
            available: match swap.memsw_limit {
                // Memory and swap are limited together: what that leaves after both.
                Some(limit) => Some(limit.saturating_sub(memory.usage).saturating_sub(usage)),
                None => swap.limit.map(|limit| limit.saturating_sub(usage)),
            },
        });
    }
}
