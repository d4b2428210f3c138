//! What a tree takes on disk. The tree is a container's, which changes it meanwhile as it likes: every step goes by
//! descriptor and follows no link, and depth, width and hard links cost bounded memory and few descriptors.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

/// Directories that are open at the same time; above them, the way back is found by `..`.
const OPEN: usize = 64;

/// Names of directories still to be visited, and files with several links, that are remembered: some 50 MiB of the worst.
/// Beyond, directories are counted but not what is in them, and files once for each link.
const REMEMBERED: usize = 500_000;

/// What a tree takes, its top not included.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tree {
    /// In blocks of the file system.
    pub(super) bytes: u64,
    /// Files, directories and all else that has an inode, each once.
    pub(super) inodes: u64,
}

/// Which directory it is, however it is reached.
type Identity = (u64, u64);

/// A directory on the way down.
struct Level {
    /// Closed while many are open below.
    dir: Option<OwnedFd>,
    identity: Identity,
    /// The directories in it that are still to be visited.
    below: Vec<OsString>,
}

#[derive(Default)]
struct Walk {
    tree: Tree,
    linked: HashSet<Identity>,
    remembered: usize,
}

/// Adds up a tree. What vanishes meanwhile is not counted, and what moves may be counted twice or not at all.
pub(super) fn tree(top: &Path) -> Tree {
    let mut walk = Walk::default();
    let Ok(dir) = open(None, top.as_os_str()) else {
        return walk.tree;
    };
    let mut levels: Vec<Level> = walk.enter(dir).into_iter().collect();
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.below.pop() else {
            if !leave(&mut levels) {
                break;
            }
            continue;
        };
        walk.remembered -= 1;
        let Some(entered) = open(level.dir.as_ref(), &name)
            .ok()
            .and_then(|dir| walk.enter(dir))
        else {
            continue;
        };
        levels.push(entered);
        if let Some(high) = levels.len().checked_sub(OPEN + 1) {
            levels[high].dir = None;
        }
    }
    walk.tree
}

/// Goes one level up; whether there is one that can be gone on with.
fn leave(levels: &mut Vec<Level>) -> bool {
    let Some(left) = levels.pop() else {
        return false;
    };
    let Some(level) = levels.last_mut() else {
        return false;
    };
    if level.dir.is_none() {
        let up = open(left.dir.as_ref(), "..".as_ref()).ok();
        // Moved elsewhere meanwhile: from there, the way is not known any more.
        level.dir = up.filter(|dir| identity_of(dir) == Some(level.identity));
    }
    level.dir.is_some()
}

fn open(dir: Option<&OwnedFd>, name: &std::ffi::OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match dir {
        Some(dir) => openat(dir, name, flags, Mode::empty()),
        None => openat(AT_FDCWD, name, flags, Mode::empty()),
    }
}

fn identity(stat: &FileStat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

fn identity_of(dir: &OwnedFd) -> Option<Identity> {
    fstat(dir).ok().as_ref().map(identity)
}

impl Walk {
    /// Counts what is in a directory.
    fn enter(&mut self, dir: OwnedFd) -> Option<Level> {
        let identity = identity_of(&dir)?;
        // The same directory, read by its descriptor (proc(5), /proc/pid/fd).
        let listed = std::fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())).ok()?;
        let mut below = Vec::new();
        for entry in listed.filter_map(Result::ok) {
            let name = entry.file_name();
            let Ok(stat) = fstatat(&dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            if self.count(&stat) && self.remembered < REMEMBERED {
                self.remembered += 1;
                below.push(name);
            }
        }
        Some(Level {
            dir: Some(dir),
            identity,
            below,
        })
    }

    /// Counts one file; whether it is a directory.
    fn count(&mut self, stat: &FileStat) -> bool {
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        let is_directory = kind == SFlag::S_IFDIR;
        if !is_directory && stat.st_nlink > 1 && self.linked.len() < REMEMBERED {
            let is_new = self.linked.insert(identity(stat));
            if !is_new {
                return false;
            }
        }
        self.tree.inodes += 1;
        // stat(2): blocks of 512 bytes.
        self.tree.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        is_directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    /// What du(1) would say, the top left out.
    fn expected(paths: &[std::path::PathBuf]) -> Tree {
        let mut tree = Tree::default();
        for path in paths {
            let metadata = std::fs::symlink_metadata(path).unwrap();
            tree.inodes += 1;
            tree.bytes += metadata.blocks() * 512;
        }
        tree
    }

    #[test]
    fn files_count_once_and_links_are_not_followed() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        std::fs::create_dir_all(path("a/b")).unwrap();
        std::fs::write(path("a/big"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(path("a/big"), path("a/b/same")).unwrap();
        symlink("/usr", path("a/usr")).unwrap();
        symlink("../..", path("a/up")).unwrap();
        let sparse = std::fs::File::create(path("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let all = ["a", "a/b", "a/big", "a/usr", "a/up", "sparse"].map(path);
        assert_eq!(tree(top.path()), expected(&all));
        assert!(tree(top.path()).bytes < 1 << 20);
        assert_eq!(tree(&path("absent")), Tree::default());
        assert_eq!(tree(&path("a/usr")), Tree::default(), "a link at the top");
    }

    /// Deeper than descriptors are held open, and deeper than a path can name.
    #[test]
    fn depth_costs_no_descriptors() {
        const DEPTH: u64 = 3000;
        let top = tempfile::tempdir().unwrap();
        let mut dir = open(None, top.path().as_os_str()).unwrap();
        let name = std::ffi::OsStr::new("dd");
        for _ in 0..DEPTH {
            for name in ["dd", "side"] {
                nix::sys::stat::mkdirat(&dir, name, Mode::S_IRWXU).unwrap();
            }
            dir = open(Some(&dir), name).unwrap();
        }
        assert_eq!(tree(top.path()).inodes, 2 * DEPTH);
    }

    #[test]
    fn a_level_that_moved_away_ends_the_walk() {
        let (top, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(top.path().join("a/b")).unwrap();
        let mut walk = Walk::default();
        let enter = |walk: &mut Walk, path: &Path| {
            walk.enter(open(None, path.as_os_str()).unwrap()).unwrap()
        };
        let mut levels = vec![
            enter(&mut walk, top.path()),
            enter(&mut walk, &top.path().join("a")),
            enter(&mut walk, &top.path().join("a/b")),
        ];
        levels[1].dir = None;
        assert!(leave(&mut levels), "the way back is found");
        levels.push(enter(&mut walk, &top.path().join("a/b")));
        levels[1].dir = None;
        std::fs::rename(top.path().join("a/b"), elsewhere.path().join("b")).unwrap();
        assert!(!leave(&mut levels));
    }
}
