//! Processes that belong to a slot, found in /proc (see proc_pid(5)).

use std::fs;

use super::Slot;

/// A process of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Its command line, or its name for one that has none.
    pub(super) command: String,
}

/// All processes, zombies too, whose executable, command line or cgroup names `slot`. This process
/// is never among them.
pub(super) fn of(slot: &Slot) -> Vec<Process> {
    let directories = [slot.directory(), slot.run_directory()];
    let inside = directories.map(|directory| format!("{}/", directory.display()));
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let executable = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        let in_cgroup = in_cgroup(&String::from_utf8_lossy(&read("cgroup")), &slot.cgroup());
        let named = inside.iter().any(|directory| command.contains(directory))
            || directories
                .iter()
                .any(|directory| executable.starts_with(directory));
        if pid != own && (in_cgroup || named) {
            let name = || String::from_utf8_lossy(&read("comm")).trim().to_owned();
            let command = if command.is_empty() {
                name()
            } else {
                command.trim().to_owned()
            };
            found.push(Process { pid, command });
        }
    }
    found
}

/// Whether a line of cgroups(7)' /proc/PID/cgroup is `cgroup` or below it.
fn in_cgroup(lines: &str, cgroup: &str) -> bool {
    lines
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .any(|path| {
            path.match_indices(cgroup).any(|(start, _)| {
                let rest = &path[start + cgroup.len()..];
                rest.is_empty() || rest.starts_with('/')
            })
        })
}

#[cfg(test)]
mod tests {
    use super::in_cgroup;

    #[test]
    fn only_whole_names_count() {
        for (line, expected) in [
            ("4:memory:/podwright-test-1", true),
            ("4:memory:/podwright-test-1/pod/x", true),
            ("0::/user/podwright-test-1/pod", true),
            ("4:memory:/podwright-test-12/pod", false),
            ("4:memory:/", false),
        ] {
            assert_eq!(in_cgroup(line, "/podwright-test-1"), expected, "{line}");
        }
    }
}
