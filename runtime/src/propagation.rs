//! How the host's mounts propagate (mount_namespaces(7)): whether a volume can share mounts with the host is the host's say.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::sys;

/// Of which peer groups a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// Its mounts go to others.
    pub(crate) shared: bool,
    /// Others' mounts come to it.
    pub(crate) slave: bool,
}

/// The propagation of the mount that a path is on. It reads the whole mount table, so it is for volumes that propagate
/// only.
pub(crate) fn of(path: &Path) -> io::Result<Propagation> {
    let place = sys::open_place(path)?;
    let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", place.as_raw_fd()))?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let id = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .map(str::trim);
    id.and_then(|id| find(&table, id)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "its mount is not in /proc/self/mountinfo",
        )
    })
}

/// Reads a line's optional fields (proc_pid_mountinfo(5)): from the seventh field to a hyphen.
fn find(table: &str, id: &str) -> Option<Propagation> {
    let mut lines = table.lines().map(|line| line.split(' '));
    let fields = lines.find_map(|mut fields| (fields.next() == Some(id)).then_some(fields))?;
    let optional: Vec<&str> = fields.skip(5).take_while(|field| *field != "-").collect();
    let has = |kind: &str| optional.iter().any(|field| field.starts_with(kind));
    Some(Propagation {
        shared: has("shared:"),
        slave: has("master:"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_tell_the_peer_groups() {
        let table = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                     22 21 0:5 / /a rw master:1 - tmpfs shared:x rw\n\
                     23 21 0:6 / /b rw shared:3 master:1 - tmpfs none rw\n\
                     24 21 0:7 / /c rw - tmpfs none rw\n";
        for (id, expected) in [
            ("21", Some((true, false))),
            ("22", Some((false, true))),
            ("23", Some((true, true))),
            ("24", Some((false, false))),
            ("2", None),
        ] {
            let found = find(table, id).map(|found| (found.shared, found.slave));
            assert_eq!(found, expected, "{id}");
        }
    }
}
