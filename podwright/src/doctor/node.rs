//! What is not the kernel's: the configuration, the directories, their disk, the daemon's socket.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;
use podwright_runtime::config::Config;
use podwright_runtime::doctor::{Area, Finding, Need, Verdict};

use crate::config::{ConfigError, DEFAULT_FILE, Daemon};

/// With less there is hardly room for an image: kubelets evict pods at 15 % of a disk that is far larger.
const LEAST_BYTES: u64 = 2 << 30;

/// An image may have some ten thousand files.
const LEAST_INODES: u64 = 100_000;

/// No clock that was ever set shows an earlier time (2026-01-01): certificates of registries are then not valid yet.
const EARLIEST: u64 = 1_767_225_600;

/// What each of these looks has of its own.
struct Look {
    name: &'static str,
    need: Need,
    tried: String,
    without: &'static str,
    remedy: &'static str,
}

impl Look {
    fn finding(self, verdict: Verdict, said: impl Into<String>) -> Finding {
        Finding {
            area: Area::Node,
            name: self.name.into(),
            need: self.need,
            verdict,
            tried: self.tried,
            said: said.into(),
            without: self.without.into(),
            remedy: self.remedy.into(),
        }
    }
}

/// The configuration file.
pub(super) fn configuration(file: Option<&Path>, loaded: &Result<Daemon, ConfigError>) -> Finding {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let look = Look {
        name: "configuration",
        need: Need::Required,
        tried: path.display().to_string(),
        without: "the daemon does not start",
        remedy: "correct the file: `podwright config default` prints one with every key",
    };
    match loaded {
        Ok(_) if path.exists() => look.finding(Verdict::There, "valid"),
        Ok(_) => look.finding(
            Verdict::There,
            "there is none: all settings have their defaults",
        ),
        Err(error) => look.finding(Verdict::Missing, error.to_string()),
    }
}

/// Everything else.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    vec![
        directory("state directory", &config.state_dir),
        directory("run directory", &config.run_dir),
        space(&config.state_dir),
        daemon(&config.socket),
        clock(),
    ]
}

/// The nearest directory that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"))
}

fn directory(name: &'static str, path: &Path) -> Finding {
    let look = Look {
        name,
        need: Need::Required,
        tried: path.display().to_string(),
        without: "the daemon does not start",
        remedy: "remove what is there, or set another directory: it has to be root's own, and no link",
    };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = existing(path).display().to_string();
            return look.finding(
                Verdict::There,
                format!("the daemon will make it in {parent}"),
            );
        }
        Err(error) => return look.finding(Verdict::Missing, error.to_string()),
    };
    let mode = metadata.mode() & 0o7777;
    match complaint(&metadata) {
        Some(complaint) => look.finding(Verdict::Missing, complaint),
        None if mode & 0o077 != 0 => {
            let said = format!("mode {mode:04o}; the daemon will close it to others");
            look.finding(Verdict::There, said)
        }
        None => look.finding(Verdict::There, format!("mode {mode:04o}")),
    }
}

/// Why the daemon would not take it.
fn complaint(metadata: &Metadata) -> Option<String> {
    let (owner, me) = (metadata.uid(), geteuid().as_raw());
    if !metadata.is_dir() {
        return Some("it is no directory".to_owned());
    }
    (owner != me).then(|| format!("it belongs to user {owner}, and this is user {me}"))
}

fn space(state_dir: &Path) -> Finding {
    let path = existing(state_dir);
    let look = Look {
        name: "room for images",
        need: Need::Optional,
        tried: format!("statvfs of {}", path.display()),
        without: "pulls fail, and kubelets evict pods",
        remedy: "free some room, or put the state directory on a larger disk",
    };
    let stat = match statvfs(path) {
        Ok(stat) => stat,
        Err(errno) => return look.finding(Verdict::Unknown, errno.to_string()),
    };
    let bytes = stat.blocks_available() * stat.fragment_size();
    let inodes = stat.files_available();
    let said = format!("{} MiB and {inodes} inodes are free", bytes >> 20);
    // Some file systems (btrfs) count no inodes.
    let is_enough = bytes >= LEAST_BYTES && (stat.files() == 0 || inodes >= LEAST_INODES);
    let verdict = match is_enough {
        true => Verdict::There,
        false => Verdict::Missing,
    };
    look.finding(verdict, said)
}

fn daemon(socket: &Path) -> Finding {
    let look = Look {
        name: "daemon",
        need: Need::Optional,
        tried: format!("connecting to {}", socket.display()),
        without: "there is no CRI runtime for clients to speak to; pods that are there run on",
        remedy: "start it: systemctl start podwright, or podwright runtime",
    };
    match std::fs::metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return look.finding(Verdict::Missing, "it does not run: there is no socket");
        }
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return look.finding(Verdict::Missing, "what is there is no socket");
        }
        _ => {}
    }
    match UnixStream::connect(socket) {
        Ok(_) => look.finding(Verdict::There, "it takes connections"),
        Err(error) => look.finding(Verdict::Missing, error.to_string()),
    }
}

fn clock() -> Finding {
    let look = Look {
        name: "clock",
        need: Need::Optional,
        tried: "the time".to_owned(),
        without: "pulls fail: certificates of registries are not valid yet",
        remedy: "set the clock, and keep it by NTP",
    };
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = seconds.map_or(0, |since| since.as_secs());
    let verdict = match seconds >= EARLIEST {
        true => Verdict::There,
        false => Verdict::Missing,
    };
    look.finding(verdict, format!("{seconds} seconds since 1970"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn directories_are_ours_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let mode = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(scratch.path(), permissions).unwrap();
            directory("d", scratch.path())
        };
        assert_eq!(mode(0o700).verdict, Verdict::There);
        let wide = mode(0o755);
        assert_eq!(wide.verdict, Verdict::There);
        assert!(wide.said.contains("close it"), "{}", wide.said);
        let absent = directory("d", &scratch.path().join("a/b"));
        assert_eq!(absent.verdict, Verdict::There);
        let file = scratch.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(directory("d", &file).verdict, Verdict::Missing);
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_no_daemon() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("cri.sock");
        assert!(daemon(&path).said.contains("does not run"));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(daemon(&path).verdict, Verdict::There);
        drop(listener);
        assert_eq!(daemon(&path).verdict, Verdict::Missing);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(daemon(&path).said.contains("no socket"));
    }
}
