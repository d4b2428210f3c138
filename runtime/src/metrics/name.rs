//! Which metrics there are, as cAdvisor names and explains them.

use podwright_cri_api::v1 as cri;

/// The labels that every metric has, in this order, as a kubelet's cAdvisor gives them; a metric's own come after.
pub(super) const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

macro_rules! metrics {
    ($($name:ident: $text:literal, $kind:ident, $help:literal, [$($label:literal),*];)*) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Name { $(#[doc = $help] $name,)* }

        impl Name {
            /// All, in the order of the descriptors.
            pub(super) const ALL: &[Name] = &[$(Name::$name,)*];

            fn about(self) -> (&'static str, cri::MetricType, &'static str, &'static [&'static str]) {
                match self {
                    $(Name::$name => ($text, cri::MetricType::$kind, $help, &[$($label),*]),)*
                }
            }
        }
    };
}

metrics! {
    LastSeen: "container_last_seen", Gauge, "Last time a container was seen by the exporter", [];
    StartTime: "container_start_time_seconds", Gauge, "Start time of the container since unix epoch in seconds.", [];
    CpuUser: "container_cpu_user_seconds_total", Counter, "Cumulative user cpu time consumed in seconds.", [];
    CpuSystem: "container_cpu_system_seconds_total", Counter, "Cumulative system cpu time consumed in seconds.", [];
    CpuUsage: "container_cpu_usage_seconds_total", Counter, "Cumulative cpu time consumed in seconds.", ["cpu"];
    CfsPeriods: "container_cpu_cfs_periods_total", Counter, "Number of elapsed enforcement period intervals.", [];
    CfsThrottledPeriods: "container_cpu_cfs_throttled_periods_total", Counter, "Number of throttled period intervals.", [];
    CfsThrottledTime: "container_cpu_cfs_throttled_seconds_total", Counter, "Total time duration the container has been throttled.", [];
    MemoryCache: "container_memory_cache", Gauge, "Number of bytes of page cache memory.", [];
    MemoryRss: "container_memory_rss", Gauge, "Size of RSS in bytes.", [];
    MemoryKernel: "container_memory_kernel_usage", Gauge, "Size of kernel memory allocated in bytes.", [];
    MemoryMappedFile: "container_memory_mapped_file", Gauge, "Size of memory mapped files in bytes.", [];
    MemorySwap: "container_memory_swap", Gauge, "Container swap usage in bytes.", [];
    MemoryFailcnt: "container_memory_failcnt", Counter, "Number of memory usage hits limits", [];
    MemoryUsage: "container_memory_usage_bytes", Gauge, "Current memory usage in bytes, including all memory regardless of when it was accessed", [];
    MemoryMaxUsage: "container_memory_max_usage_bytes", Gauge, "Maximum memory usage recorded in bytes", [];
    MemoryWorkingSet: "container_memory_working_set_bytes", Gauge, "Current working set in bytes.", [];
    MemoryActiveFile: "container_memory_total_active_file_bytes", Gauge, "Current total active file in bytes.", [];
    MemoryInactiveFile: "container_memory_total_inactive_file_bytes", Gauge, "Current total inactive file in bytes.", [];
    MemoryFailures: "container_memory_failures_total", Counter, "Cumulative count of memory allocation failures.", ["failure_type", "scope"];
    OomEvents: "container_oom_events_total", Counter, "Count of out of memory events observed for the container", [];
    HugetlbFailcnt: "container_hugetlb_failcnt", Counter, "Number of hugepage usage hits limits", ["pagesize"];
    HugetlbUsage: "container_hugetlb_usage_bytes", Gauge, "Current hugepage usage in bytes", ["pagesize"];
    HugetlbMaxUsage: "container_hugetlb_max_usage_bytes", Gauge, "Maximum hugepage usage recorded in bytes", ["pagesize"];
    FsInodesFree: "container_fs_inodes_free", Gauge, "Number of available Inodes", ["device"];
    FsInodesTotal: "container_fs_inodes_total", Gauge, "Number of Inodes", ["device"];
    FsLimit: "container_fs_limit_bytes", Gauge, "Number of bytes that can be consumed by the container on this filesystem.", ["device"];
    FsUsage: "container_fs_usage_bytes", Gauge, "Number of bytes that are consumed by the container on this filesystem.", ["device"];
    FsReadsBytes: "container_fs_reads_bytes_total", Counter, "Cumulative count of bytes read", ["device"];
    FsReads: "container_fs_reads_total", Counter, "Cumulative count of reads completed", ["device"];
    FsWritesBytes: "container_fs_writes_bytes_total", Counter, "Cumulative count of bytes written", ["device"];
    FsWrites: "container_fs_writes_total", Counter, "Cumulative count of writes completed", ["device"];
    BlkioDeviceUsage: "container_blkio_device_usage_total", Counter, "Blkio Device bytes usage", ["device", "major", "minor", "operation"];
    ReceiveBytes: "container_network_receive_bytes_total", Counter, "Cumulative count of bytes received", ["interface"];
    ReceivePackets: "container_network_receive_packets_total", Counter, "Cumulative count of packets received", ["interface"];
    ReceiveDropped: "container_network_receive_packets_dropped_total", Counter, "Cumulative count of packets dropped while receiving", ["interface"];
    ReceiveErrors: "container_network_receive_errors_total", Counter, "Cumulative count of errors encountered while receiving", ["interface"];
    TransmitBytes: "container_network_transmit_bytes_total", Counter, "Cumulative count of bytes transmitted", ["interface"];
    TransmitPackets: "container_network_transmit_packets_total", Counter, "Cumulative count of packets transmitted", ["interface"];
    TransmitDropped: "container_network_transmit_packets_dropped_total", Counter, "Cumulative count of packets dropped while transmitting", ["interface"];
    TransmitErrors: "container_network_transmit_errors_total", Counter, "Cumulative count of errors encountered while transmitting", ["interface"];
    Processes: "container_processes", Gauge, "Number of processes running inside the container.", [];
    FileDescriptors: "container_file_descriptors", Gauge, "Number of open file descriptors for the container.", [];
    Sockets: "container_sockets", Gauge, "Number of open sockets for the container.", [];
    ThreadsMax: "container_threads_max", Gauge, "Maximum number of threads allowed inside the container, infinity if value is zero", [];
    Threads: "container_threads", Gauge, "Number of threads running inside the container", [];
    UlimitsSoft: "container_ulimits_soft", Gauge, "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice", ["ulimit"];
    PressureCpuStalled: "container_pressure_cpu_stalled_seconds_total", Counter, "Total time duration no tasks in the container could make progress due to CPU congestion.", [];
    PressureCpuWaiting: "container_pressure_cpu_waiting_seconds_total", Counter, "Total time duration tasks in the container have waited due to CPU congestion.", [];
    PressureMemoryStalled: "container_pressure_memory_stalled_seconds_total", Counter, "Total time duration no tasks in the container could make progress due to memory congestion.", [];
    PressureMemoryWaiting: "container_pressure_memory_waiting_seconds_total", Counter, "Total time duration tasks in the container have waited due to memory congestion.", [];
    PressureIoStalled: "container_pressure_io_stalled_seconds_total", Counter, "Total time duration no tasks in the container could make progress due to IO congestion.", [];
    PressureIoWaiting: "container_pressure_io_waiting_seconds_total", Counter, "Total time duration tasks in the container have waited due to IO congestion.", [];
    SpecCpuPeriod: "container_spec_cpu_period", Gauge, "CPU period of the container.", [];
    SpecCpuQuota: "container_spec_cpu_quota", Gauge, "CPU quota of the container.", [];
    SpecCpuShares: "container_spec_cpu_shares", Gauge, "CPU share of the container.", [];
    SpecMemoryLimit: "container_spec_memory_limit_bytes", Gauge, "Memory limit for the container.", [];
    SpecMemorySwapLimit: "container_spec_memory_swap_limit_bytes", Gauge, "Memory swap limit for the container.", [];
    SpecMemoryReservation: "container_spec_memory_reservation_limit_bytes", Gauge, "Memory reservation limit for the container.", [];
}

impl Name {
    /// As Prometheus and CRI name it.
    pub(super) fn text(self) -> &'static str {
        self.about().0
    }

    pub(super) fn kind(self) -> cri::MetricType {
        self.about().1
    }

    /// The labels that it has beside [`LABELS`].
    pub(super) fn own_labels(self) -> &'static [&'static str] {
        self.about().3
    }

    pub(super) fn descriptor(self) -> cri::MetricDescriptor {
        let (name, _, help, own) = self.about();
        let labels = LABELS.iter().chain(own);
        cri::MetricDescriptor {
            name: name.into(),
            help: help.into(),
            label_keys: labels.map(ToString::to_string).collect(),
        }
    }
}
