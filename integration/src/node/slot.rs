//! Names and addresses that belong to one test daemon at a time.

use std::{
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{TMPFS_MAGIC, statfs},
};

use super::{CgroupDriver, reclaim};

/// As many as there are /24 networks from 10.200.0.0 to 10.254.255.0.
const SLOTS: u32 = 55 * 256;

/// Where slots have their directories, if not in the one for temporary files.
static PLACE: OnceLock<PathBuf> = OnceLock::new();

/// Has this process's slots keep their directories in `place`.
pub(super) fn keep_in(place: PathBuf) -> Result<()> {
    PLACE
        .set(place)
        .map_err(|place| anyhow!("slots have a place, and cannot be in {}", place.display()))
}

/// Where slots have their locks, whoever holds them.
pub(super) fn locks() -> PathBuf {
    std::env::temp_dir().join("podwright-test-slots")
}

/// A directory on a tmpfs, if this machine has one of them.
fn in_memory() -> PathBuf {
    let usual = ["/run", "/dev/shm"].map(PathBuf::from);
    let on_tmpfs =
        |path: &PathBuf| statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
    usual
        .into_iter()
        .find(on_tmpfs)
        .unwrap_or_else(std::env::temp_dir)
}

/// A number that this process holds, and everything that is named after it.
#[derive(Debug)]
pub struct Slot {
    number: u32,
    directory: PathBuf,
    run_directory: PathBuf,
    /// Released by the kernel however this process ends.
    _held: Flock<File>,
}

impl Slot {
    /// Takes the first free slot, and clears what an earlier holder may have left in it.
    ///
    /// # Errors
    /// When no slot is free, or an old one cannot be cleared.
    pub fn take() -> Result<Self> {
        let locks = locks();
        fs::create_dir_all(&locks).with_context(|| format!("creating {}", locks.display()))?;
        for number in 0..SLOTS {
            let path = locks.join(number.to_string());
            let file =
                File::create(&path).with_context(|| format!("creating {}", path.display()))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => {
                    let place = PLACE.get().cloned().unwrap_or_else(std::env::temp_dir);
                    let directory = place.join(format!("podwright-test-{number}"));
                    let slot = Self {
                        number,
                        directory,
                        run_directory: in_memory().join(format!("podwright-test-{number}-run")),
                        _held: held,
                    };
                    reclaim::reclaim(&slot).context("clearing what an earlier run left")?;
                    for part in ["hosts", "logs"] {
                        fs::create_dir_all(slot.path(part))?;
                    }
                    return Ok(slot);
                }
                Err((_, Errno::EWOULDBLOCK)) => {}
                Err((_, errno)) => {
                    return Err(errno).with_context(|| format!("locking {}", path.display()));
                }
            }
        }
        bail!(
            "all {SLOTS} test slots are in use (locks in {})",
            locks.display()
        )
    }

    /// Kills the slot's processes, and removes its cgroups, mounts, links, rules and files.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub(crate) fn clear(&self) -> Result<()> {
        reclaim::reclaim(self)
    }

    /// The directory that holds everything of this slot.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The daemon's run directory: in memory, as /run is on a node.
    pub fn run_directory(&self) -> &Path {
        &self.run_directory
    }

    /// The CRI socket.
    pub fn socket(&self) -> PathBuf {
        self.run_directory.join("cri.sock")
    }

    /// A path below [`directory`](Self::directory).
    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.join(below)
    }

    /// The bridge's name.
    pub fn bridge(&self) -> String {
        format!("pwt{}", self.number)
    }

    /// The nftables table's name.
    pub fn table(&self) -> String {
        format!("podwright_test_{}", self.number)
    }

    /// The cgroup below which all of this slot's cgroups are, with a leading slash.
    pub fn cgroup(&self) -> String {
        match CgroupDriver::of_this_run() {
            CgroupDriver::Cgroupfs => format!("/podwright-test-{}", self.number),
            CgroupDriver::Systemd => format!("/podwright_test_{}.slice", self.number),
        }
    }

    /// The groups of commands (`exec-…`) in this slot's containers, in every mount of cgroups: with and without processes.
    pub fn exec_groups(&self) -> Result<Vec<PathBuf>> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
        let mut found = Vec::new();
        for mount in mounts.lines() {
            let mut fields = mount.split(' ').skip(1);
            if let (Some(point), Some("cgroup" | "cgroup2")) = (fields.next(), fields.next()) {
                let top = Path::new(point).join(self.cgroup().trim_start_matches('/'));
                find_exec_groups(&top, &mut found);
            }
        }
        Ok(found)
    }

    /// The pods' address ranges: an IPv4 /24 and an IPv6 /64.
    pub fn subnets(&self) -> [String; 2] {
        let (high, low) = (self.number / 256, self.number % 256);
        [
            format!("10.{}.{low}.0/24", 200 + high),
            format!("fd70:7764:{:x}::/64", self.number),
        ]
    }

    /// Address ranges for thousands of pods, to be given to the daemon: an IPv4 /20 and the same IPv6 /64. Slots beyond
    /// the first 1,024 would share them, which no machine reaches.
    pub fn wide_subnets(&self) -> [String; 2] {
        let number = self.number % 1024;
        let [_, v6] = self.subnets();
        let v4 = format!("10.{}.{}.0/20", 128 + number / 16, number % 16 * 16);
        [v4, v6]
    }

    /// Whether `address` is one of this slot's.
    pub fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => {
                let (high, low) = (self.number / 256, self.number % 256);
                let [a, b, c, _] = v4.octets();
                [u32::from(a), u32::from(b), u32::from(c)] == [10, 200 + high, low]
            }
            IpAddr::V6(v6) => {
                let head = v6.segments();
                head[..2] == [0xfd70, 0x7764] && u32::from(head[2]) == self.number && head[3] == 0
            }
        }
    }

    /// A host port that no other slot uses; `index` is below 2. Slots beyond the first 10,000
    /// would share them, which no machine reaches.
    pub fn host_port(&self, index: u16) -> i32 {
        let slot = i32::try_from(self.number % 10_000).unwrap_or_default();
        20_000 + 2 * slot + i32::from(index)
    }
}

fn find_exec_groups(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with("exec-") {
                found.push(entry.path());
            }
            find_exec_groups(&entry.path(), found);
        }
    }
}
