//! The samples of one group: numbers in, messages out. Pure.

use podwright_cri_api::v1 as cri;
use podwright_netns::Counters;

use super::devices::Devices;
use super::name::{LABELS, Name};
use super::processes::Processes;
use crate::cgroup::{Detail, HeldResources, Operation, Pressure, Stats};
use crate::stats::{INTERFACE, LayerUsage};

/// Samples of the same labels.
pub(super) struct Samples {
    labels: [String; LABELS.len()],
    metrics: Vec<cri::Metric>,
}

/// A file system, as statvfs(3) tells it.
#[derive(Debug, Clone, Default)]
pub(super) struct FileSystem {
    /// Its device, as `/dev/vda1`.
    pub(super) device: String,
    pub(super) bytes: u64,
    pub(super) inodes: u64,
    pub(super) inodes_free: u64,
}

impl Samples {
    /// `labels` are the values of [`LABELS`].
    pub(super) fn new(labels: [String; LABELS.len()]) -> Self {
        Self {
            labels,
            metrics: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Vec<cri::Metric> {
        self.metrics
    }

    fn add(&mut self, name: Name, value: u64, own: &[&str]) {
        // CRI: the time is 0 for what is read when it is asked for.
        self.add_from(name, value, own, 0);
    }

    fn add_from(&mut self, name: Name, value: u64, own: &[&str], at: i64) {
        debug_assert_eq!(own.len(), name.own_labels().len(), "{}", name.text());
        let labels = self.labels.iter().map(String::as_str);
        self.metrics.push(cri::Metric {
            name: name.text().into(),
            timestamp: at,
            metric_type: name.kind().into(),
            label_values: labels.chain(own.iter().copied()).map(Into::into).collect(),
            value: Some(cri::UInt64Value { value }),
        });
    }

    pub(super) fn times(&mut self, now: i64, started: i64) {
        self.add(Name::LastSeen, seconds(now), &[]);
        self.add(Name::StartTime, seconds(started), &[]);
    }

    /// What is known of pods and containers.
    pub(super) fn stats(&mut self, stats: &Stats) {
        self.add(
            Name::CpuUsage,
            stats.cpu.usage_ns / 1_000_000_000,
            &["total"],
        );
        let memory = &stats.memory;
        for (name, value) in [
            (Name::MemoryUsage, memory.usage),
            (Name::MemoryWorkingSet, memory.working_set),
            (Name::MemoryRss, memory.rss),
            (Name::MemoryCache, memory.cache),
            (Name::MemoryMappedFile, memory.mapped_file),
            (Name::MemoryActiveFile, memory.active_file),
            (Name::MemoryInactiveFile, memory.inactive_file),
            (Name::MemorySwap, stats.swap.map_or(0, |swap| swap.usage)),
        ] {
            self.add(name, value, &[]);
        }
        // The kernel counts a group with all below it; cAdvisor tells the same number for both scopes.
        for scope in ["container", "hierarchy"] {
            self.add(
                Name::MemoryFailures,
                memory.page_faults,
                &["pgfault", scope],
            );
            self.add(
                Name::MemoryFailures,
                memory.major_page_faults,
                &["pgmajfault", scope],
            );
        }
        if let Some(tasks) = stats.tasks {
            self.add(Name::Threads, tasks, &[]);
        }
        for (pressure, stalled, waiting) in [
            (
                stats.cpu.pressure,
                Name::PressureCpuStalled,
                Name::PressureCpuWaiting,
            ),
            (
                stats.memory.pressure,
                Name::PressureMemoryStalled,
                Name::PressureMemoryWaiting,
            ),
            (
                stats.io_pressure,
                Name::PressureIoStalled,
                Name::PressureIoWaiting,
            ),
        ] {
            self.pressure(pressure, stalled, waiting);
        }
    }

    fn pressure(&mut self, pressure: Option<Pressure>, stalled: Name, waiting: Name) {
        if let Some(pressure) = pressure {
            self.add(stalled, pressure.full.total_us / 1_000_000, &[]);
            self.add(waiting, pressure.some.total_us / 1_000_000, &[]);
        }
    }

    pub(super) fn detail(&mut self, detail: &Detail, devices: &Devices) {
        self.add(Name::CpuUser, detail.cpu_user_ns / 1_000_000_000, &[]);
        self.add(Name::CpuSystem, detail.cpu_system_ns / 1_000_000_000, &[]);
        if let Some(throttling) = detail.throttling {
            self.add(Name::CfsPeriods, throttling.periods, &[]);
            self.add(Name::CfsThrottledPeriods, throttling.throttled_periods, &[]);
            self.add(
                Name::CfsThrottledTime,
                throttling.throttled_ns / 1_000_000_000,
                &[],
            );
        }
        for (name, value) in [
            (Name::MemoryKernel, detail.memory_kernel),
            (Name::MemoryMaxUsage, detail.memory_peak),
            (Name::MemoryFailcnt, detail.memory_limit_hits),
            (Name::OomEvents, Some(detail.oom_kills)),
            (Name::ThreadsMax, Some(detail.tasks_limit.unwrap_or(0))),
            (
                Name::SpecMemoryReservation,
                Some(detail.memory_reservation.unwrap_or(0)),
            ),
        ] {
            if let Some(value) = value {
                self.add(name, value, &[]);
            }
        }
        for huge in &detail.hugetlb {
            let size = &[huge.page_size.as_str()];
            self.add(Name::HugetlbUsage, huge.usage, size);
            self.add(Name::HugetlbFailcnt, huge.limit_hits, size);
            if let Some(most) = huge.max_usage {
                self.add(Name::HugetlbMaxUsage, most, size);
            }
        }
        self.spec(&detail.limits);
        self.io(detail, devices);
    }

    fn io(&mut self, detail: &Detail, devices: &Devices) {
        for io in &detail.io {
            let device = devices.name(io.major, io.minor);
            let (operation, counters) = match io.operation {
                Operation::Read => ("Read", Some((Name::FsReadsBytes, Name::FsReads))),
                Operation::Write => ("Write", Some((Name::FsWritesBytes, Name::FsWrites))),
                Operation::Discard => ("Discard", None),
            };
            let (major, minor) = (io.major.to_string(), io.minor.to_string());
            self.add(
                Name::BlkioDeviceUsage,
                io.bytes,
                &[&device, &major, &minor, operation],
            );
            if let Some((bytes, requests)) = counters {
                self.add(bytes, io.bytes, &[&device]);
                self.add(requests, io.requests, &[&device]);
            }
        }
    }

    pub(super) fn layer(&mut self, usage: Option<LayerUsage>, file_system: &FileSystem) {
        let device = &[file_system.device.as_str()];
        self.add(Name::FsInodesFree, file_system.inodes_free, device);
        self.add(Name::FsInodesTotal, file_system.inodes, device);
        self.add(Name::FsLimit, file_system.bytes, device);
        if let Some(usage) = usage {
            self.add_from(Name::FsUsage, usage.bytes, device, usage.at);
        }
    }

    pub(super) fn network(&mut self, counters: &Counters) {
        for (name, value) in [
            (Name::ReceiveBytes, counters.rx_bytes),
            (Name::ReceivePackets, counters.rx_packets),
            (Name::ReceiveDropped, counters.rx_dropped),
            (Name::ReceiveErrors, counters.rx_errors),
            (Name::TransmitBytes, counters.tx_bytes),
            (Name::TransmitPackets, counters.tx_packets),
            (Name::TransmitDropped, counters.tx_dropped),
            (Name::TransmitErrors, counters.tx_errors),
        ] {
            self.add(name, value, &[INTERFACE]);
        }
    }

    pub(super) fn processes(&mut self, processes: &Processes) {
        self.add(Name::Processes, processes.count, &[]);
        self.add(Name::FileDescriptors, processes.descriptors, &[]);
        self.add(Name::Sockets, processes.sockets, &[]);
        if let Some(limit) = processes.open_files_limit {
            self.add(Name::UlimitsSoft, limit, &["max_open_files"]);
        }
    }

    /// The limits; none is told as 0, as cAdvisor does.
    fn spec(&mut self, held: &HeldResources) {
        for (name, value) in [
            (Name::SpecCpuPeriod, held.cpu_period),
            (
                Name::SpecCpuShares,
                held.cpu_shares.map(|shares| shares.like(0)),
            ),
            (Name::SpecMemoryLimit, Some(held.memory_limit.unwrap_or(0))),
            (
                Name::SpecMemorySwapLimit,
                Some(held.memory_swap_limit.unwrap_or(0)),
            ),
            (
                Name::SpecCpuQuota,
                held.cpu_quota.and_then(|quota| u64::try_from(quota).ok()),
            ),
        ] {
            if let Some(value) = value {
                self.add(name, value, &[]);
            }
        }
    }
}

fn seconds(ns: i64) -> u64 {
    u64::try_from(ns / 1_000_000_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{DeviceIo, HugetlbStats, SwapStats, Throttling};
    use std::collections::BTreeSet;

    fn labels() -> [String; LABELS.len()] {
        LABELS.map(|key| format!("<{key}>"))
    }

    /// Everything that a kernel can tell.
    fn all() -> Vec<cri::Metric> {
        let mut stats = Stats {
            tasks: Some(5),
            swap: Some(SwapStats {
                usage: 6,
                available: None,
            }),
            ..Stats::default()
        };
        stats.cpu.usage_ns = 2_999_999_999;
        let mut pressure = Pressure::default();
        (pressure.some.total_us, pressure.full.total_us) = (3_000_000, 1_500_000);
        stats.cpu.pressure = Some(pressure);
        stats.memory.pressure = Some(pressure);
        stats.io_pressure = Some(pressure);
        let io = |operation| DeviceIo {
            major: 8,
            minor: 1,
            operation,
            bytes: 4096,
            requests: 2,
        };
        let limits = HeldResources {
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            cpu_shares: Some(crate::cgroup::CpuShares::Exact(2)),
            ..HeldResources::default()
        };
        let detail = Detail {
            limits,
            throttling: Some(Throttling::default()),
            memory_peak: Some(1),
            memory_limit_hits: Some(2),
            memory_kernel: Some(3),
            hugetlb: vec![HugetlbStats {
                page_size: "2MB".into(),
                max_usage: Some(4),
                ..HugetlbStats::default()
            }],
            io: vec![
                io(Operation::Read),
                io(Operation::Write),
                io(Operation::Discard),
            ],
            ..Detail::default()
        };
        let processes = Processes {
            open_files_limit: Some(1024),
            ..Processes::default()
        };
        let mut samples = Samples::new(labels());
        samples.times(1_700_000_000_999_999_999, 1_600_000_000_000_000_000);
        samples.stats(&stats);
        samples.detail(&detail, &Devices::default());
        let usage = LayerUsage {
            at: 7,
            bytes: 8,
            inodes: 9,
        };
        samples.layer(Some(usage), &FileSystem::default());
        samples.network(&Counters::default());
        samples.processes(&processes);
        samples.finish()
    }

    #[test]
    fn every_descriptor_has_samples_and_every_sample_a_descriptor() {
        let descriptors: Vec<_> = Name::ALL.iter().map(|name| name.descriptor()).collect();
        let names: BTreeSet<_> = descriptors.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names.len(), descriptors.len(), "one is described twice");
        let metrics = all();
        let told: BTreeSet<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(told, names);
        let mut series = BTreeSet::new();
        for metric in &metrics {
            let descriptor = descriptors.iter().find(|one| one.name == metric.name);
            let keys = &descriptor.unwrap().label_keys;
            assert_eq!(metric.label_values.len(), keys.len(), "{}", metric.name);
            assert_eq!(metric.label_values[..LABELS.len()], labels());
            assert!(
                series.insert((&metric.name, &metric.label_values)),
                "{metric:?} twice"
            );
            assert!(metric.name.starts_with("container_") && metric.value.is_some());
            // cAdvisor's way: of all totals, that of inodes alone is no counter.
            let total = (metric.name.ends_with("_total") || metric.name.ends_with("_failcnt"))
                && metric.name != "container_fs_inodes_total";
            assert_eq!(metric.metric_type() == cri::MetricType::Counter, total);
        }
    }

    #[test]
    fn values_are_in_the_units_of_their_names() {
        let metrics = all();
        let value = |name: &str, own: &[&str]| {
            let mut found = metrics.iter().filter(|metric| {
                metric.name == name && metric.label_values[LABELS.len()..] == *own
            });
            let metric = found.next().unwrap();
            assert!(found.next().is_none());
            (metric.value.unwrap().value, metric.timestamp)
        };
        assert_eq!(
            value("container_cpu_usage_seconds_total", &["total"]),
            (2, 0)
        );
        assert_eq!(
            value("container_start_time_seconds", &[]),
            (1_600_000_000, 0)
        );
        assert_eq!(value("container_last_seen", &[]).0, 1_700_000_000);
        assert_eq!(
            value("container_pressure_cpu_waiting_seconds_total", &[]).0,
            3
        );
        assert_eq!(
            value("container_pressure_cpu_stalled_seconds_total", &[]).0,
            1
        );
        assert_eq!(
            value("container_fs_usage_bytes", &[""]),
            (8, 7),
            "read earlier"
        );
        let device = Devices::default().name(8, 1);
        let usage = value(
            "container_blkio_device_usage_total",
            &[&device, "8", "1", "Discard"],
        );
        assert_eq!(usage.0, 4096);
        assert_eq!(value("container_fs_reads_total", &[&device]).0, 2);
    }
}
