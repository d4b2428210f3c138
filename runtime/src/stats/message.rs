//! Numbers as CRI's messages carry them.

use podwright_cri_api::v1 as cri;
use podwright_netns::Counters;

use crate::cgroup::{MemoryStats, Pressure, PressureLine, Stats};

/// The name of every pod's interface, inside.
pub(crate) const INTERFACE: &str = "eth0";

pub(super) fn value(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

pub(super) fn cpu(stats: &Stats, rate: u64, now: i64) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: now,
        usage_core_nano_seconds: value(stats.cpu.usage_ns),
        usage_nano_cores: value(rate),
        psi: stats.cpu.pressure.as_ref().map(psi),
    }
}

pub(super) fn memory(memory: &MemoryStats, now: i64) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp: now,
        working_set_bytes: value(memory.working_set),
        available_bytes: memory.available.and_then(value),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        psi: memory.pressure.as_ref().map(psi),
    }
}

pub(super) fn swap(stats: &Stats, now: i64) -> Option<cri::SwapUsage> {
    stats.swap.map(|swap| cri::SwapUsage {
        timestamp: now,
        swap_available_bytes: swap.available.and_then(value),
        swap_usage_bytes: value(swap.usage),
    })
}

pub(super) fn io(stats: &Stats, now: i64) -> Option<cri::IoUsage> {
    stats.io_pressure.as_ref().map(|pressure| cri::IoUsage {
        timestamp: now,
        psi: Some(psi(pressure)),
    })
}

pub(super) fn network(counters: &Counters, now: i64) -> cri::NetworkUsage {
    cri::NetworkUsage {
        timestamp: now,
        default_interface: Some(cri::NetworkInterfaceUsage {
            name: INTERFACE.into(),
            rx_bytes: value(counters.rx_bytes),
            rx_errors: value(counters.rx_errors),
            tx_bytes: value(counters.tx_bytes),
            tx_errors: value(counters.tx_errors),
        }),
        interfaces: Vec::new(),
    }
}

fn psi(pressure: &Pressure) -> cri::PsiStats {
    // CRI counts the total in nanoseconds, the kernel in microseconds.
    let line = |line: &PressureLine| cri::PsiData {
        total: line.total_us.saturating_mul(1000),
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
    };
    cri::PsiStats {
        full: Some(line(&pressure.full)),
        some: Some(line(&pressure.some)),
    }
}
