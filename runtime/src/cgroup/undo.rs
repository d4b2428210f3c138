//! Limits as they were before a change, so that one that fails in the middle leaves nothing half done.

use nix::errno::Errno;

use super::dir::Dir;
use super::{Cgroup, CgroupError};

/// What makes a device's line go from a file that has one line per device.
const NO_LINE: [(&str, &str); 3] = [
    ("io.max", "rbps=max wbps=max riops=max wiops=max"),
    ("io.latency", "target=0"),
    ("io.weight", "default"),
];

/// When limits are set.
#[derive(Debug)]
pub(super) enum Occasion {
    /// On a group that nothing is in yet: a failure is the end of it.
    New,
    /// On one that may be in use, with what its files held until then.
    Update(Vec<Old>),
}

/// What a file held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Old {
    mount: usize,
    file: String,
    /// To be written in one call each.
    values: Vec<String>,
}

/// A group's directory in one mount, while limits are written there.
pub(super) struct Target<'a> {
    pub(super) dir: Dir,
    pub(super) mount: usize,
    pub(super) occasion: &'a mut Occasion,
}

impl Target<'_> {
    /// Whether this kernel has the file for this group.
    pub(super) fn has(&self, file: &str) -> bool {
        self.dir.open_file(file, nix::fcntl::OFlag::O_PATH).is_ok()
    }

    /// Whether processes may have memory that a limit cuts into.
    pub(super) fn may_be_in_use(&self) -> bool {
        matches!(self.occasion, Occasion::Update(_))
    }

    pub(super) fn write(&mut self, file: &str, value: &str) -> Result<(), CgroupError> {
        self.try_write(file, value)
            .map_err(|source| self.dir.write_error(file, value, String::new(), source))
    }

    /// As [`Target::write`] with the bare errno.
    pub(super) fn try_write(&mut self, file: &str, value: &str) -> Result<(), Errno> {
        if let Occasion::Update(olds) = self.occasion {
            // A file that cannot be read is told of by the write.
            if let Ok(text) = self.dir.read(file) {
                remember(olds, self.mount, file, &text, value);
            }
        }
        self.dir.try_write(file, value)
    }
}

/// Notes what `file` reads now, unless that is known, and what undoes `value`.
fn remember(olds: &mut Vec<Old>, mount: usize, file: &str, text: &str, value: &str) {
    let known = |old: &Old| (old.mount, old.file.as_str()) == (mount, file);
    let at = match olds.iter().position(known) {
        Some(at) => at,
        None => {
            olds.push(Old {
                mount,
                file: file.to_owned(),
                values: values(file, text),
            });
            olds.len() - 1
        }
    };
    let device = value.split(' ').next().unwrap_or_default();
    let none = NO_LINE.iter().find(|(name, _)| *name == file);
    let has_line = |line: &String| line.split(' ').next() == Some(device);
    if let Some((_, none)) = none
        && device.contains(':')
        && !olds[at].values.iter().any(has_line)
    {
        olds[at].values.push(format!("{device} {none}"));
    }
}

/// What has to be written for a file to read `text` again.
fn values(file: &str, text: &str) -> Vec<String> {
    match file {
        // An empty list is written as a line; a write of no bytes does not reach the kernel's handler.
        _ if text.trim().is_empty() => vec!["\n".to_owned()],
        // "root invalid (…)" is how a partition reads that could not be made.
        "cpuset.cpus.partition" => {
            let state = text.split_whitespace().next();
            state.map(str::to_owned).into_iter().collect()
        }
        _ => text.lines().map(str::to_owned).collect(),
    }
}

/// The limits that a group held before [`Cgroup::update`]. Dropping it keeps the new ones.
#[derive(Debug)]
#[must_use = "when what follows fails, the limits have to be put back"]
pub struct Undo {
    group: Cgroup,
    olds: Vec<Old>,
}

impl Undo {
    pub(super) fn new(group: Cgroup, occasion: Occasion) -> Self {
        let olds = match occasion {
            Occasion::New => Vec::new(),
            Occasion::Update(olds) => olds,
        };
        Self { group, olds }
    }

    /// Puts the old limits back. What cannot be (the group uses more by now, say) is logged: there is nobody to tell who
    /// could do more.
    pub fn restore(self) {
        let mut pending: Vec<(usize, String, String)> = Vec::new();
        // The last first: a partition is given up before the CPUs that it was made of.
        for old in self.olds.into_iter().rev() {
            let Old {
                mount,
                file,
                values,
            } = old;
            pending.extend(values.into_iter().map(|value| (mount, file.clone(), value)));
        }
        // Limits that depend on each other are taken in one order only, so what is refused is tried again after the others.
        loop {
            let mut refused = Vec::new();
            let count = pending.len();
            for (mount, file, value) in pending {
                let dir = self.group.hierarchy.mounts()[mount]
                    .dir
                    .open(self.group.path.relative());
                match dir.and_then(|dir| dir.write(&file, &value)) {
                    Ok(()) => {}
                    Err(error) if error.is_missing() => {}
                    Err(error) => refused.push(((mount, file, value), error)),
                }
            }
            if refused.is_empty() {
                return;
            }
            if refused.len() == count {
                for (_, error) in refused {
                    tracing::warn!(cgroup = %self.group.path, error = %crate::error::chain(&error), "cannot put a limit back after a change that failed");
                }
                return;
            }
            pending = refused.into_iter().map(|(entry, _)| entry).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_back_as_they_read() {
        for (file, text, expected) in [
            ("memory.max", "max\n", vec!["max"]),
            ("cpu.max", "50000 100000\n", vec!["50000 100000"]),
            ("cpuset.cpus", "\n", vec!["\n"]),
            (
                "cpuset.cpus.partition",
                "root invalid (no CPUs)\n",
                vec!["root"],
            ),
            (
                "io.max",
                "8:0 rbps=1 wbps=max riops=max wiops=max\n",
                vec!["8:0 rbps=1 wbps=max riops=max wiops=max"],
            ),
        ] {
            assert_eq!(values(file, text), expected, "{file}");
        }
    }

    #[test]
    fn a_devices_new_line_goes_and_its_old_one_comes_back() {
        let mut olds = Vec::new();
        let text = "8:0 rbps=1 wbps=max riops=max wiops=max\n";
        remember(&mut olds, 0, "io.max", text, "8:0 rbps=2");
        remember(&mut olds, 0, "io.max", "changed meanwhile", "8:16 wbps=3");
        assert_eq!(olds.len(), 1);
        let expected = [
            "8:0 rbps=1 wbps=max riops=max wiops=max",
            "8:16 rbps=max wbps=max riops=max wiops=max",
        ];
        assert_eq!(olds[0].values, expected);
        remember(&mut olds, 0, "io.weight", "default 100\n", "200");
        assert_eq!(olds[1].values, ["default 100"]);
    }
}
