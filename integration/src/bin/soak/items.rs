//! What is counted, whose it is, and what it may differ by beside the two percent.

use crate::census::Census;

/// Whose counts they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The daemon's that is tested.
    Own,
    /// All of the machine's: whatever else runs there changes them too.
    Machine,
}

/// A difference that is no leak, though the count is so small that it is more than two percent of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Allowance {
    /// None.
    Nothing,
    /// What each processor may keep for itself.
    PerProcessor(f64),
}

impl Allowance {
    pub(crate) fn amount(self) -> f64 {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        match self {
            Self::Nothing => 0.0,
            Self::PerProcessor(amount) => amount * processors as f64,
        }
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) scope: Scope,
    pub(crate) allowance: Allowance,
    /// Nothing where the machine does not tell it.
    pub(crate) count: fn(&Census) -> Option<f64>,
}

const fn own(what: &'static str, unit: &'static str, count: fn(&Census) -> Option<f64>) -> Item {
    Item {
        what,
        unit,
        scope: Scope::Own,
        allowance: Allowance::Nothing,
        count,
    }
}

const fn machine(
    what: &'static str,
    unit: &'static str,
    allowance: Allowance,
    count: fn(&Census) -> Option<f64>,
) -> Item {
    Item {
        what,
        unit,
        scope: Scope::Machine,
        allowance,
        count,
    }
}

const fn slab(what: &'static str, count: fn(&Census) -> Option<f64>) -> Item {
    machine(what, "KiB", FREE_OBJECTS, count)
}

/// Each processor's memory cgroup stock holds charges of up to seven groups, and its stock of objects those of one, until another group's
/// take their place; a group that is held so is gone but not freed (mm/memcontrol.c).
const HELD_GROUPS: Allowance = Allowance::PerProcessor(8.0);
/// What those groups have of memory for each processor: five to eleven allocations each, by their controller.
const ALLOCATIONS: Allowance = Allowance::PerProcessor(64.0);
/// Each processor keeps free objects of each cache for itself, which slabinfo counts as used; shrinking does not take all.
const FREE_OBJECTS: Allowance = Allowance::PerProcessor(32.0);
/// The same for the dozen caches of sizes from 8 bytes to 8 KiB.
const FREE_OBJECTS_OF_SIZES: Allowance = Allowance::PerProcessor(128.0);
/// Sixteen pages of 4 KiB, each of which one of those allocations keeps (mm/percpu.c).
const PAGES: Allowance = Allowance::PerProcessor(64.0);

/// All lines, in order.
pub(crate) const ITEMS: &[Item] = &[
    own("daemon, memory (PSS)", "KiB", |c| Some(c.daemon_pss)),
    own("daemon, memory (RSS)", "KiB", |c| Some(c.daemon_rss)),
    own("daemon, descriptors", "", |c| {
        Some(c.usage.descriptors.values().sum::<usize>() as f64)
    }),
    own("daemon, threads", "", |c| Some(c.usage.threads as f64)),
    own("daemon, child processes", "", |c| Some(c.children as f64)),
    own("children's memory (PSS)", "KiB", |c| Some(c.children_pss)),
    own("processes of pods", "", |c| c.left("process")),
    own("files, state and run directories", "", |c| c.left("file")),
    own("their size", "KiB", |c| Some(c.files_size)),
    own("mounts below them", "", |c| c.left("mount")),
    own("cgroups, all hierarchies", "", |c| c.left("cgroup")),
    own("links at the bridge", "", |c| c.left("link")),
    own("nftables rules and elements", "", |c| c.left("nftables")),
    machine("mounts", "", Allowance::Nothing, |c| {
        Some(c.kernel.mounts() as f64)
    }),
    machine("cgroups v2", "", Allowance::Nothing, |c| {
        c.kernel.unified_cgroups("nr_descendants")
    }),
    machine("cgroups v2, dying", "", HELD_GROUPS, |c| {
        c.kernel.unified_cgroups("nr_dying_descendants")
    }),
    machine("cgroups v1, dying ones too", "", HELD_GROUPS, |c| {
        c.kernel.v1_cgroups()
    }),
    machine("sockets", "", Allowance::Nothing, |c| {
        c.kernel.sockets("sockets", "used")
    }),
    machine("TCP sockets", "", Allowance::Nothing, |c| {
        c.kernel.sockets("TCP", "alloc")
    }),
    machine("SUnreclaim", "KiB", Allowance::Nothing, |c| {
        c.kernel.memory("SUnreclaim")
    }),
    machine(
        "memory for each processor, allocations",
        "",
        ALLOCATIONS,
        |c| c.kernel.percpu_allocations(),
    ),
    machine("their pages", "KiB", PAGES, |c| c.kernel.percpu_memory()),
    slab("slab net_namespace", |c| c.kernel.cache("net_namespace")),
    slab("slab mnt_cache", |c| c.kernel.cache("mnt_cache")),
    slab("slab mem_cgroup", |c| c.kernel.cache("mem_cgroup")),
    slab("slab kernfs_node_cache", |c| {
        c.kernel.cache("kernfs_node_cache")
    }),
    slab("slab task_struct", |c| c.kernel.cache("task_struct")),
    slab("slab pid", |c| c.kernel.cache("pid")),
    slab("slab filp", |c| c.kernel.cache("filp")),
    slab("slab sock_inode_cache", |c| {
        c.kernel.cache("sock_inode_cache")
    }),
    machine("slab kmalloc-cg-*", "KiB", FREE_OBJECTS_OF_SIZES, |c| {
        c.kernel.slab("kmalloc-cg-")
    }),
    machine("slab kmalloc-*", "KiB", FREE_OBJECTS_OF_SIZES, |c| {
        c.kernel.slab("kmalloc-")
    }),
];
