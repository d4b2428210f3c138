//! What the kernel holds for the whole machine: see proc(5), cgroups(7), slabinfo(5).

use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    unistd::{SysconfVar, sysconf},
};

/// The kernel's own counts at a moment.
#[derive(Debug)]
pub(crate) struct Kernel {
    mounts: usize,
    meminfo: String,
    slabinfo: String,
    sockstat: String,
    /// Of the unified hierarchy; empty where it is not mounted.
    cgroup_stat: String,
    cgroups: String,
    /// Empty where the kernel does not have it.
    percpu_stats: String,
    /// Processors that the machine may ever have, as ranges: each has a part of each page of [`Self::percpu_stats`].
    possible_processors: String,
}

const DEBUG: &str = "/sys/kernel/debug";

/// Has the kernel show what it tells in debugfs only, to this process's own mount namespace. What it does not show is not judged.
pub(crate) fn show_debug() {
    let (none, kind) = (Some("none"), Some("debugfs"));
    let _ = mount(none, DEBUG, kind, MsFlags::empty(), None::<&str>);
}

impl Kernel {
    pub(crate) fn now() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
        let mountinfo = read("/proc/self/mountinfo")?;
        let cgroup_stat = match unified(&mountinfo) {
            Some(unified) => read(&format!("{unified}/cgroup.stat"))?,
            None => String::new(),
        };
        Ok(Self {
            mounts: mountinfo.lines().count(),
            meminfo: read("/proc/meminfo")?,
            slabinfo: read("/proc/slabinfo")?,
            sockstat: read("/proc/net/sockstat")?,
            cgroup_stat,
            cgroups: read("/proc/cgroups")?,
            percpu_stats: read(&format!("{DEBUG}/percpu_stats")).unwrap_or_default(),
            possible_processors: read("/sys/devices/system/cpu/possible")?,
        })
    }

    pub(crate) fn mounts(&self) -> usize {
        self.mounts
    }

    /// KiB of a line of /proc/meminfo.
    pub(crate) fn memory(&self, name: &str) -> Option<f64> {
        let value = keyed(&self.meminfo, &format!("{name}:"))?;
        value.split_whitespace().next()?.parse().ok()
    }

    /// KiB of the objects in all slab caches whose name begins so. A cache that the kernel has merged with another of its
    /// size has no name of its own.
    pub(crate) fn slab(&self, start: &str) -> Option<f64> {
        let caches = self.caches().into_iter();
        caches
            .filter(|(name, _)| name.starts_with(start))
            .map(|(_, size)| size)
            .reduce(|sum, one| sum + one)
    }

    /// KiB of the objects in the slab cache of this name.
    pub(crate) fn cache(&self, name: &str) -> Option<f64> {
        self.caches().get(name).copied()
    }

    /// KiB of the objects in each slab cache.
    pub(crate) fn caches(&self) -> BTreeMap<&str, f64> {
        let sizes = self.slabinfo.lines().filter_map(|line| {
            let mut figures = line.split_whitespace();
            let name = figures.next()?;
            let active: f64 = figures.next()?.parse().ok()?;
            let size: f64 = figures.nth(1)?.parse().ok()?;
            Some((name, active * size / 1024.0))
        });
        sizes.collect()
    }

    /// How many allocations of memory for each processor there are.
    pub(crate) fn percpu_allocations(&self) -> Option<f64> {
        self.percpu("nr_cur_alloc")
    }

    /// KiB of the pages that those are in. The allocator keeps empty pages for later, a hundred of them or none, and nothing has it let go of
    /// them (mm/percpu.c). Where it does not tell of them they are in the sum.
    pub(crate) fn percpu_memory(&self) -> Option<f64> {
        let empty = self.percpu("empty_pop_pages").unwrap_or(0.0);
        let page = sysconf(SysconfVar::PAGE_SIZE).ok()?? as f64 / 1024.0;
        let processors = range_lengths(&self.possible_processors)?;
        Some(self.memory("Percpu")? - empty * page * processors)
    }

    /// The first figure of a name in percpu_stats, which is that of all chunks.
    fn percpu(&self, name: &str) -> Option<f64> {
        let mut lines = self.percpu_stats.lines();
        let count = lines.find_map(|line| line.trim_start().strip_prefix(name))?;
        count.trim_start_matches([' ', ':']).trim_end().parse().ok()
    }

    /// A figure after `name` in a line of /proc/net/sockstat.
    pub(crate) fn sockets(&self, line: &str, name: &str) -> Option<f64> {
        let words = keyed(&self.sockstat, &format!("{line}:"))?;
        let mut words = words.split_whitespace();
        words.find(|word| *word == name)?;
        words.next()?.parse().ok()
    }

    /// A line of the unified hierarchy's cgroup.stat, such as `nr_dying_descendants`.
    pub(crate) fn unified_cgroups(&self, name: &str) -> Option<f64> {
        keyed(&self.cgroup_stat, name)?.trim().parse().ok()
    }

    /// Groups of v1's hierarchies, those that are deleted and still referred to included; no sum when v1 has no
    /// controller.
    pub(crate) fn v1_cgroups(&self) -> Option<f64> {
        let hierarchies = self.cgroups.lines().filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let hierarchy: u32 = words.next()?.parse().ok()?;
            let count: f64 = words.next()?.parse().ok()?;
            (hierarchy != 0).then_some(count)
        });
        hierarchies.reduce(|sum, one| sum + one)
    }
}

/// How many numbers are in ranges such as `0-3,8`.
fn range_lengths(ranges: &str) -> Option<f64> {
    let length = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        Some(f64::from(last.checked_sub(first)? + 1))
    };
    ranges.trim_end().split(',').map(length).sum()
}

/// What follows `key` in the line that begins with it.
fn keyed<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}

/// Where the unified hierarchy is mounted.
fn unified(mountinfo: &str) -> Option<&str> {
    let is_unified = |line: &&str| line.contains(" - cgroup2 ");
    mountinfo.lines().find(is_unified)?.split(' ').nth(4)
}

/// Has the kernel let go of what it only caches: pages, dentries, inodes, and free objects that processors keep for themselves,
/// which slabinfo counts as used.
pub(crate) fn drop_caches() -> Result<()> {
    // What is dirty is not dropped.
    nix::unistd::sync();
    write("/proc/sys/vm/drop_caches".as_ref(), "3")?;
    let caches = fs::read_dir("/sys/kernel/slab").into_iter().flatten();
    for cache in caches.flatten() {
        // A link is another name of a merged cache. One that was destroyed meanwhile holds nothing.
        if cache.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = write(&cache.path().join("shrink"), "1");
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn kernel() -> Kernel {
        Kernel {
            mounts: 3,
            meminfo: "MemTotal:  24105 kB\nSUnreclaim:   88836 kB\nPercpu:   1536 kB\n".to_owned(),
            slabinfo: "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n\
                kmalloc-cg-1k 115 272 1024 16 4 : tunables 0 0 0\n\
                kmalloc-cg-512 10 176 512 16 2 : tunables 0 0 0\n\
                kmalloc-8 3441 7680 8 512 1 : tunables 0 0 0\n"
                .to_owned(),
            sockstat: "sockets: used 32\nTCP: inuse 1 orphan 0 tw 0 alloc 4 mem 363\n".to_owned(),
            cgroup_stat: "nr_descendants 5\nnr_dying_descendants 7\n".to_owned(),
            cgroups: "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\n\
                memory\t4\t33\t1\nhugetlb\t0\t9\t1\n"
                .to_owned(),
            percpu_stats: "Global Stats:\n  nr_dealloc          :     4321\n  nr_cur_alloc        :         1230\n  \
                empty_pop_pages     :           99\n\nChunk:\n  empty_pop_pages     :           57\n"
                .to_owned(),
            possible_processors: "0-1\n".to_owned(),
        }
    }

    #[test]
    fn each_count_is_found_in_its_file() {
        let kernel = kernel();
        assert_eq!(kernel.memory("SUnreclaim"), Some(88836.0));
        assert_eq!(kernel.slab("kmalloc-cg-"), Some(120.0));
        assert_eq!(kernel.cache("kmalloc-cg-512"), Some(5.0));
        assert_eq!(kernel.sockets("sockets", "used"), Some(32.0));
        assert_eq!(kernel.sockets("TCP", "alloc"), Some(4.0));
        assert_eq!(kernel.unified_cgroups("nr_dying_descendants"), Some(7.0));
        assert_eq!(kernel.v1_cgroups(), Some(34.0));
        assert_eq!(kernel.percpu_allocations(), Some(1230.0));
        let page = sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap() as f64 / 1024.0;
        assert_eq!(kernel.percpu_memory(), Some(1536.0 - 99.0 * 2.0 * page));
    }

    #[test]
    fn what_a_kernel_does_not_tell_is_not_zero() {
        let kernel = Kernel {
            percpu_stats: String::new(),
            ..kernel()
        };
        assert_eq!(kernel.percpu_allocations(), None);
        assert_eq!(kernel.percpu_memory(), Some(1536.0));
        assert_eq!(kernel.memory("Slab"), None);
        assert_eq!(kernel.slab("mnt_cache"), None);
        assert_eq!(kernel.cache("kmalloc-cg"), None);
        assert_eq!(kernel.sockets("UDP", "inuse"), None);
        assert_eq!(kernel.unified_cgroups("nr_subsys_memory"), None);
    }

    #[test]
    fn processors_are_counted_by_their_ranges() {
        for (ranges, count) in [
            ("0\n", Some(1.0)),
            ("0-3,8-9,11\n", Some(7.0)),
            ("3-0", None),
            ("", None),
        ] {
            assert_eq!(range_lengths(ranges), count, "{ranges:?}");
        }
    }

    #[test]
    fn the_unified_hierarchy_is_known_by_its_type() {
        let mountinfo = "24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            25 24 0:23 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu\n\
            26 24 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(unified(mountinfo), Some("/sys/fs/cgroup/unified"));
        assert_eq!(unified("25 24 0:23 / /x rw - cgroup cgroup rw,cpu\n"), None);
    }

    #[test]
    fn this_kernel_tells() {
        let now = Kernel::now().unwrap();
        assert!(now.mounts() > 0);
        assert!(now.memory("SUnreclaim").is_some());
        assert!(now.percpu_memory().is_some_and(|size| size > 0.0));
        assert!(now.slab("kmalloc-").is_some());
        assert!(now.sockets("sockets", "used").is_some());
        assert!(now.unified_cgroups("nr_dying_descendants").is_some());
    }
}
