//! The table of features: docs/kernel.md shows it, and `podwright doctor` goes through it.

use std::fmt::Write as _;

use super::calls::{self, Call};
use super::{Area, Feature, Need, cgroups, limits, mounts, network, processes, security};

/// In the order in which they are shown.
pub(super) const FEATURES: &[Feature] = &[
    Feature {
        area: Area::Processes,
        name: "Linux",
        since: "5.15",
        need: Need::Required,
        without: "nothing is promised",
        remedy: "run a newer kernel",
        look: processes::kernel,
    },
    Feature {
        area: Area::Processes,
        name: "clone3, pidfds",
        since: "5.3",
        need: Need::Required,
        without: "no container starts",
        remedy: "allow these calls to the daemon, if a seccomp filter forbids them",
        look: |_| calls::look(&[Call::Clone3, Call::PidfdOpen, Call::PidfdSendSignal]),
    },
    Feature {
        area: Area::Processes,
        name: "close_range, memfd_create",
        since: "5.9",
        need: Need::Required,
        without: "no pod starts",
        remedy: "allow these calls to the daemon, if a seccomp filter forbids them",
        look: |_| calls::look(&[Call::CloseRange, Call::MemfdCreate]),
    },
    Feature {
        area: Area::Processes,
        name: "namespaces",
        since: "4.6",
        need: Need::Required,
        without: "no pod starts",
        remedy: "run a kernel with CONFIG_NAMESPACES and all that it offers",
        look: processes::namespaces,
    },
    Feature {
        area: Area::Processes,
        name: "user namespaces with idmapped layers",
        since: "5.19",
        need: Need::Optional,
        without: "pods that ask for a user namespace (`hostUsers: false`) are refused, with the reason",
        remedy: "a newer kernel, user.max_user_namespaces above 0, the state directory on ext4, xfs or btrfs",
        look: processes::user_namespaces,
    },
    Feature {
        area: Area::Processes,
        name: "CRIU",
        since: "5.9, a program",
        need: Need::Optional,
        without: "checkpoints are refused (they are in any case, in this version)",
        remedy: "none is needed",
        look: processes::criu,
    },
    Feature {
        area: Area::Mounts,
        name: "openat2",
        since: "5.6",
        need: Need::Required,
        without: "no container starts: paths in images are not trusted to anything less",
        remedy: "allow this call to the daemon, if a seccomp filter forbids it",
        look: |_| calls::look(&[Call::Openat2]),
    },
    Feature {
        area: Area::Mounts,
        name: "mounts by descriptors",
        since: "5.2",
        need: Need::Required,
        without: "no container starts",
        remedy: "run the daemon with CAP_SYS_ADMIN, and allow these calls to it",
        look: |_| {
            calls::look(&[
                Call::OpenTree,
                Call::MoveMount,
                Call::Fsopen,
                Call::Fsconfig,
                Call::Fsmount,
            ])
        },
    },
    Feature {
        area: Area::Mounts,
        name: "mount_setattr",
        since: "5.12",
        need: Need::Required,
        without: "the daemon does not start: pause is executed from a read-only view of its file",
        remedy: "allow this call to the daemon, if a seccomp filter forbids it",
        look: mounts::mount_setattr,
    },
    Feature {
        area: Area::Mounts,
        name: "overlayfs on the state directory",
        since: "5.10",
        need: Need::Required,
        without: "no container starts",
        remedy: "put the state directory on ext4, xfs (ftype=1) or btrfs: not on overlayfs or NFS; load the module overlay",
        look: mounts::overlay,
    },
    Feature {
        area: Area::Mounts,
        name: "overlays by descriptors",
        since: "6.7",
        need: Need::Optional,
        without: "containers begin with a copy of the host's mounts and mount their roots themselves: they start later on nodes with many mounts, and memory cgroups of removed pods stay in the kernel until it reclaims what overlayfs has cached",
        remedy: "run a newer kernel",
        look: mounts::overlay_by_descriptor,
    },
    Feature {
        area: Area::Mounts,
        name: "idmapped tmpfs",
        since: "6.3",
        need: Need::Optional,
        without: "pods with a user namespace cannot have volumes on tmpfs: memory emptyDirs, secrets, tokens",
        remedy: "run a newer kernel",
        look: mounts::idmapped_tmpfs,
    },
    Feature {
        area: Area::Cgroups,
        name: "cgroup mounts",
        since: "any; v2 is best",
        need: Need::Required,
        without: "the daemon does not start",
        remedy: "mount cgroup2 on /sys/fs/cgroup",
        look: cgroups::layout,
    },
    Feature {
        area: Area::Cgroups,
        name: "cpu",
        since: "v1; v2: 4.15",
        need: Need::Required,
        without: "containers with a CPU limit or request are refused: kubelets' all have one",
        remedy: "enable the controller at the root: cgroup.subtree_control",
        look: cgroups::cpu,
    },
    Feature {
        area: Area::Cgroups,
        name: "memory",
        since: "v1; v2: 4.5",
        need: Need::Required,
        without: "containers with a memory limit are refused, and none is told to be OOMKilled",
        remedy: "boot with cgroup_enable=memory",
        look: cgroups::memory,
    },
    Feature {
        area: Area::Cgroups,
        name: "device rules",
        since: "v1; v2: 4.15, BPF",
        need: Need::Required,
        without: "no container starts: each could make and open any device",
        remedy: "a kernel with CONFIG_CGROUP_BPF, and CAP_BPF or CAP_SYS_ADMIN for the daemon; on v1, the controller devices",
        look: cgroups::devices,
    },
    Feature {
        area: Area::Cgroups,
        name: "pids",
        since: "4.3",
        need: Need::Optional,
        without: "limits of tasks are refused: a fork bomb is stopped by the machine's limits alone",
        remedy: "enable the controller at the root",
        look: cgroups::pids,
    },
    Feature {
        area: Area::Cgroups,
        name: "cpuset",
        since: "v1; v2: 5.0",
        need: Need::Optional,
        without: "containers that are bound to CPUs or memory nodes are refused (the kubelet's static CPU manager)",
        remedy: "enable the controller at the root",
        look: cgroups::cpuset,
    },
    Feature {
        area: Area::Cgroups,
        name: "io",
        since: "v1; v2: 4.5",
        need: Need::Optional,
        without: "limits of block devices are refused, and their metrics are missing",
        remedy: "enable the controller at the root",
        look: cgroups::block_io,
    },
    Feature {
        area: Area::Cgroups,
        name: "hugetlb",
        since: "v1; v2: 5.6",
        need: Need::Optional,
        without: "limits of huge pages are passed over",
        remedy: "enable the controller at the root",
        look: cgroups::hugetlb,
    },
    Feature {
        area: Area::Cgroups,
        name: "freezer",
        since: "v1; v2: 5.2",
        need: Need::Optional,
        without: "a group that is killed process by process may fork meanwhile; it is gone through again",
        remedy: "a newer kernel; on v1, the controller freezer",
        look: cgroups::freezer,
    },
    Feature {
        area: Area::Cgroups,
        name: "cgroup.kill",
        since: "5.14",
        need: Need::Optional,
        without: "groups are frozen, and their processes killed one by one",
        remedy: "mount cgroup2, also beside v1 controllers",
        look: cgroups::kill,
    },
    Feature {
        area: Area::Cgroups,
        name: "swap limits",
        since: "v1; v2: 4.5",
        need: Need::Optional,
        without: "containers with a limit of swap are refused",
        remedy: "a kernel with CONFIG_SWAP; on v1, boot with swapaccount=1",
        look: cgroups::swap,
    },
    Feature {
        area: Area::Cgroups,
        name: "CPU burst",
        since: "5.14",
        need: Need::Optional,
        without: "NRI plugins cannot ask for it",
        remedy: "run a newer kernel",
        look: cgroups::burst,
    },
    Feature {
        area: Area::Cgroups,
        name: "pressure (PSI)",
        since: "4.20",
        need: Need::Optional,
        without: "statistics have no pressure",
        remedy: "boot with psi=1",
        look: cgroups::pressure,
    },
    Feature {
        area: Area::Cgroups,
        name: "systemd",
        since: "a program",
        need: Need::Optional,
        without: "the cgroup driver `systemd` cannot be used: cgroups are made by the daemon itself",
        remedy: "none is needed with `cgroup.driver = \"cgroupfs\"`",
        look: cgroups::systemd,
    },
    Feature {
        area: Area::Security,
        name: "seccomp",
        since: "4.14",
        need: Need::Required,
        without: "containers with a seccomp profile are refused",
        remedy: "a kernel with CONFIG_SECCOMP_FILTER",
        look: security::seccomp,
    },
    Feature {
        area: Area::Security,
        name: "seccomp's log action",
        since: "4.14",
        need: Need::Optional,
        without: "profiles that log calls are refused",
        remedy: "run a newer kernel",
        look: security::seccomp_log,
    },
    Feature {
        area: Area::Security,
        name: "AppArmor with the default profile",
        since: "4.4",
        need: Need::Optional,
        without: "containers run without AppArmor; those that name a profile are refused",
        remedy: "boot with apparmor=1, and install apparmor_parser (package apparmor)",
        look: security::apparmor,
    },
    Feature {
        area: Area::Security,
        name: "SELinux with container labels",
        since: "any",
        need: Need::Optional,
        without: "containers run without SELinux labels",
        remedy: "boot with selinux=1, and install a policy with lxc_contexts (container-selinux)",
        look: security::selinux,
    },
    Feature {
        area: Area::Network,
        name: "bridge and nf_tables",
        since: "5.15",
        need: Need::Required,
        without: "the daemon does not start",
        remedy: "CAP_NET_ADMIN for the daemon; load the modules bridge, nf_tables, nft_chain_nat, nft_masq",
        look: network::bridge,
    },
    Feature {
        area: Area::Network,
        name: "veth",
        since: "5.15",
        need: Need::Required,
        without: "only pods on the host's network start",
        remedy: "load the module veth",
        look: network::veth,
    },
    Feature {
        area: Area::Network,
        name: "IPv6",
        since: "any",
        need: Need::Optional,
        without: "a pod subnet of IPv6 addresses keeps the daemon from starting",
        remedy: "boot without ipv6.disable=1",
        look: network::ipv6,
    },
    Feature {
        area: Area::Limits,
        name: "open files",
        since: "any",
        need: Need::Optional,
        without: "calls fail with EMFILE when there are many pods",
        remedy: "LimitNOFILE=1048576 in the daemon's unit",
        look: limits::descriptors,
    },
    Feature {
        area: Area::Limits,
        name: "processes",
        since: "any",
        need: Need::Optional,
        without: "starts fail with EAGAIN when there are many pods",
        remedy: "sysctl kernel.pid_max=4194304",
        look: limits::processes,
    },
    Feature {
        area: Area::Limits,
        name: "pipes of logs",
        since: "2.6.35",
        need: Need::Optional,
        without: "log pipes are smaller, and containers wait sooner when they say much at once",
        remedy: "sysctl fs.pipe-max-size=1048576",
        look: limits::log_pipes,
    },
];

/// The table as docs/kernel.md has it.
pub fn markdown() -> String {
    let mut text = String::new();
    let mut area = None;
    for feature in FEATURES {
        if area.replace(feature.area) != Some(feature.area) {
            let title = feature.area.title();
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n## {title}\n\n| feature | Linux | | without it | what to do |\n| --- | --- | --- | --- | --- |\n"
            );
        }
        let need = match feature.need {
            Need::Required => "required",
            Need::Optional => "",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {need} | {} | {} |",
            feature.name, feature.since, feature.without, feature.remedy
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_shows_the_table() {
        let page = include_str!("../../../docs/kernel.md");
        let seen = std::env::temp_dir().join("podwright-kernel-table.md");
        if !page.ends_with(&markdown()) {
            std::fs::write(&seen, markdown()).unwrap();
            panic!("docs/kernel.md does not end with {}", seen.display());
        }
    }

    #[test]
    fn names_are_not_given_twice() {
        let mut names: Vec<_> = FEATURES.iter().map(|feature| feature.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FEATURES.len());
    }
}
