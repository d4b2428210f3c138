//! What a container's processes have open: read from proc(5).

use nix::unistd::Pid;

/// Descriptors of one container that are looked at to find sockets. Beyond, they are only counted: each look is a call.
const MOST_LOOKS: u64 = 16 * 1024;

/// Processes and what they have open.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Processes {
    pub(super) count: u64,
    pub(super) descriptors: u64,
    pub(super) sockets: u64,
    /// The soft limit of open files of the container's first process.
    pub(super) open_files_limit: Option<u64>,
}

/// Those that end meanwhile have nothing open.
pub(super) fn read(pids: &[Pid], first: u32) -> Processes {
    let mut found = Processes {
        count: pids.len() as u64,
        ..Processes::default()
    };
    for pid in pids {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd"));
        for entry in entries.into_iter().flatten().flatten() {
            found.descriptors += 1;
            if found.descriptors <= MOST_LOOKS
                && let Ok(target) = std::fs::read_link(entry.path())
                && target
                    .as_os_str()
                    .as_encoded_bytes()
                    .starts_with(b"socket:")
            {
                found.sockets += 1;
            }
        }
    }
    let limits = std::fs::read_to_string(format!("/proc/{first}/limits"));
    found.open_files_limit = limits.ok().as_deref().and_then(open_files);
    found
}

/// The soft limit in the line `Max open files  1024  4096  files`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_and_sockets_of_this_process() {
        let before = read(&[Pid::this()], std::process::id());
        let _pair = std::os::unix::net::UnixStream::pair().unwrap();
        let after = read(&[Pid::this()], std::process::id());
        // Other tests open and close theirs meanwhile.
        assert!(before.count == 1 && after.sockets >= 2 && after.descriptors > after.sockets);
        let (soft, _) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(after.open_files_limit, Some(soft));
        let gone = Pid::from_raw(i32::MAX);
        assert_eq!(read(&[gone], u32::MAX).descriptors, 0);
    }

    #[test]
    fn a_limit_that_is_none_is_not_told() {
        assert_eq!(
            open_files("Limit\nMax open files            unlimited unlimited files\n"),
            None
        );
        assert_eq!(open_files(""), None);
    }
}
