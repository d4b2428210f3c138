//! The node's specification files, read again when they have changed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::check::check;
use super::model::{Edits, Spec};
use crate::error::{CallError, Kind};

/// Vendors' files are some kilobytes.
const LONGEST_FILE: u64 = 8 * 1024 * 1024;
/// Files of all directories together.
const MOST_FILES: usize = 1024;
/// Files that an error tells about.
const MOST_TOLD: usize = 16;
/// A file that changes twice within its file system's unit of time shows the second change by nothing if its length stays: one
/// tick of the clock on most, a second on ext4 with small inodes, two on FAT. What had just changed when it was read is read again.
const SETTLES: Duration = Duration::from_secs(3);

/// The specification files of some directories. Reading is left out while nothing has changed there.
#[derive(Debug)]
pub(crate) struct Cache {
    /// A later directory's devices take the place of an earlier one's.
    directories: Vec<PathBuf>,
    /// Guards what was read; also so that it is read once for all who wait.
    read: Mutex<Option<Arc<Library>>>,
}

/// What the directories held when they were read.
#[derive(Debug)]
struct Library {
    /// When reading began.
    read: SystemTime,
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    files: Vec<File>,
    /// By qualified name, where it is.
    devices: HashMap<String, Source>,
}

/// By what a change of a file or directory shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    device: u64,
    bytes: u64,
    changed: (i64, i64),
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    spec: Result<Spec, String>,
}

#[derive(Debug, Clone)]
enum Source {
    /// Places in the lists of files and devices.
    Of {
        file: usize,
        device: usize,
        rank: usize,
    },
    /// Two files of one directory have it.
    Conflict { files: Vec<usize>, rank: usize },
}

impl Cache {
    pub(crate) fn new(directories: Vec<PathBuf>) -> Self {
        Self {
            directories,
            read: Mutex::new(None),
        }
    }

    /// What these devices change of a container, in their order; each file's general changes come before those of its first
    /// device.
    pub(crate) fn edits(&self, devices: &[String]) -> Result<Edits, CallError> {
        let library = self.library();
        let mut edits = Edits::default();
        let mut seen = Vec::new();
        let mut unknown = Vec::new();
        for name in devices {
            match library.devices.get(name) {
                Some(Source::Of { file, device, .. }) => {
                    let Ok(spec) = &library.files[*file].spec else {
                        continue;
                    };
                    if !seen.contains(file) {
                        seen.push(*file);
                        edits.append(&spec.container_edits);
                    }
                    edits.append(&spec.devices[*device].container_edits);
                }
                Some(Source::Conflict { files, .. }) => {
                    let files = files.iter().map(|file| library.files[*file].path.display());
                    let files: Vec<String> = files.map(|path| path.to_string()).collect();
                    unknown.push(format!("{name} (both in {})", files.join(" and in ")));
                }
                None => unknown.push(name.clone()),
            }
        }
        if unknown.is_empty() {
            return Ok(edits);
        }
        let what = format!(
            "unresolvable CDI devices {}: {}",
            unknown.join(", "),
            self.told(&library)
        );
        Err(CallError::new(Kind::InvalidArgument, what))
    }

    /// Which files were read, and what was wrong with each.
    fn told(&self, library: &Library) -> String {
        let directories: Vec<String> = self
            .directories
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let directories = directories.join(", ");
        if library.files.is_empty() {
            return format!("there is no specification file in {directories}");
        }
        let told = library.files.iter().take(MOST_TOLD).map(|file| {
            let path = file.path.display();
            match &file.spec {
                Ok(spec) => {
                    let names: Vec<&str> = spec
                        .devices
                        .iter()
                        .take(MOST_TOLD)
                        .map(|device| device.name.as_str())
                        .collect();
                    format!("{path} has {}={}", spec.kind, names.join(","))
                }
                Err(why) => format!("{path} cannot be used: {why}"),
            }
        });
        let told: Vec<String> = told.collect();
        let more = match library.files.len().saturating_sub(MOST_TOLD) {
            0 => String::new(),
            more => format!("; and {more} more files"),
        };
        format!("{}{more}", told.join("; "))
    }

    fn library(&self) -> Arc<Library> {
        self.library_at(SystemTime::now())
    }

    fn library_at(&self, now: SystemTime) -> Arc<Library> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = &*read
            && library.is_current()
        {
            return Arc::clone(library);
        }
        let library = Arc::new(read_all(&self.directories, now));
        for file in &library.files {
            if let Err(why) = &file.spec {
                tracing::warn!(path = %file.path.display(), why, "a CDI specification file cannot be used");
            }
        }
        *read = Some(Arc::clone(&library));
        library
    }
}

impl Library {
    /// Whether the directories and files are those that were read.
    fn is_current(&self) -> bool {
        let same = |(path, then): &(PathBuf, Option<Stamp>)| {
            stamp(path) == *then && then.is_none_or(|then| then.had_settled(self.read))
        };
        self.stamps.iter().all(same)
    }
}

impl Stamp {
    /// Whether a change after this time would show. One that is dated later, by a clock that was set back, has not settled.
    fn had_settled(self, at: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(seconds), u32::try_from(nanoseconds))
        else {
            return true; // before 1970
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        at.duration_since(changed).is_ok_and(|ago| ago >= SETTLES)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        device: metadata.dev(),
        bytes: metadata.len(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn read_all(directories: &[PathBuf], now: SystemTime) -> Library {
    let mut library = Library {
        read: now,
        stamps: Vec::new(),
        files: Vec::new(),
        devices: HashMap::new(),
    };
    for (rank, directory) in directories.iter().enumerate() {
        // Before its files: a change that comes meanwhile is seen the next time.
        library.stamps.push((directory.clone(), stamp(directory)));
        for path in spec_files(directory) {
            if library.files.len() == MOST_FILES {
                tracing::warn!(directory = %directory.display(), "there are too many CDI specification files; the rest is not read");
                return library;
            }
            library.stamps.push((path.clone(), stamp(&path)));
            let spec = read_file(&path);
            let file = library.files.len();
            for (device, name) in spec.iter().flat_map(names) {
                add(
                    &mut library.devices,
                    name,
                    Source::Of { file, device, rank },
                );
            }
            library.files.push(File { path, spec });
        }
    }
    library
}

/// A file's devices: their places and their qualified names.
fn names(spec: &Spec) -> impl Iterator<Item = (usize, String)> + '_ {
    let devices = spec.devices.iter().enumerate();
    devices.map(|(place, device)| (place, format!("{}={}", spec.kind, device.name)))
}

fn add(devices: &mut HashMap<String, Source>, name: String, new: Source) {
    let Source::Of { file, rank, .. } = new else {
        return;
    };
    let conflict = match devices.get(&name) {
        Some(Source::Of {
            file: other,
            rank: old,
            ..
        }) if *old == rank => Some(vec![*other, file]),
        Some(Source::Conflict { files, rank: old }) if *old == rank => {
            Some(files.iter().copied().chain([file]).collect())
        }
        _ => None,
    };
    let source = match conflict {
        Some(files) => Source::Conflict { files, rank },
        None => new,
    };
    devices.insert(name, source);
}

/// The files of a directory that are specifications by their names, in the names' order. One that is missing has none.
fn spec_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let named = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("json" | "yaml"))
    };
    let mut files: Vec<PathBuf> = paths.filter(named).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn read_file(path: &Path) -> Result<Spec, String> {
    let text = read_text(path).map_err(|error| format!("cannot read it: {error}"))?;
    let json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let spec: Spec = match json {
        true => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        false => serde_yaml_ng::from_str(&text).map_err(|error| error.to_string())?,
    };
    check(&spec)?;
    Ok(spec)
}

fn read_text(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    if length > LONGEST_FILE {
        let what = format!("it is {length} bytes long, {LONGEST_FILE} are the limit");
        return Err(io::Error::other(what));
    }
    fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, text: &str) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(name), text).unwrap();
    }

    fn spec(device: &str, value: &str) -> String {
        format!(
            r#"{{"cdiVersion":"1.0.0","kind":"v/c","containerEdits":{{"env":["ALL=1"]}},
                "devices":[{{"name":"{device}","containerEdits":{{"env":["D={value}"]}}}}]}}"#
        )
    }

    fn env(cache: &Cache, devices: &[&str]) -> Result<Vec<String>, String> {
        let devices: Vec<String> = devices.iter().map(ToString::to_string).collect();
        let edits = cache.edits(&devices);
        edits
            .map(|edits| edits.env)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn later_directories_win_and_conflicts_are_told() {
        let root = tempfile::tempdir().unwrap();
        let (low, high) = (root.path().join("low"), root.path().join("high"));
        let cache = Cache::new(vec![low.clone(), high.clone()]);
        let error = env(&cache, &["v/c=a"]).unwrap_err();
        assert!(error.contains("no specification file in"), "{error}");
        write(&low, "a.json", &spec("a", "low"));
        assert_eq!(env(&cache, &["v/c=a"]).unwrap(), ["ALL=1", "D=low"]);
        write(&high, "a.json", &spec("a", "high"));
        assert_eq!(env(&cache, &["v/c=a"]).unwrap(), ["ALL=1", "D=high"]);
        write(&high, "b.json", &spec("a", "other"));
        let error = env(&cache, &["v/c=a"]).unwrap_err();
        assert!(
            error.contains("a.json") && error.contains("b.json"),
            "{error}"
        );
        fs::remove_file(high.join("a.json")).unwrap();
        assert_eq!(env(&cache, &["v/c=a"]).unwrap(), ["ALL=1", "D=other"]);
    }

    #[test]
    fn files_are_read_again_only_when_they_have_changed() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(vec![root.path().to_owned()]);
        write(root.path(), "a.json", &spec("a", "1"));
        let later = SystemTime::now() + 2 * SETTLES;
        let first = cache.library_at(later);
        assert!(Arc::ptr_eq(&first, &cache.library()));
        assert_eq!(env(&cache, &["v/c=a"]).unwrap()[1], "D=1");
        // In place: the directory's own times stay.
        write(root.path(), "a.json", &spec("a", "22"));
        assert_eq!(env(&cache, &["v/c=a"]).unwrap()[1], "D=22");
    }

    #[test]
    fn changes_within_a_tick_of_the_clock_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(vec![root.path().to_owned()]);
        // Where files have times of their own, fewer of these fall into one tick.
        for value in 10..60 {
            write(root.path(), "a.json", &spec("a", &value.to_string()));
            assert_eq!(env(&cache, &["v/c=a"]).unwrap()[1], format!("D={value}"));
        }
        let read = cache.library();
        let (_, stamp) = &read.stamps[1];
        assert!(!stamp.unwrap().had_settled(read.read));
    }

    #[test]
    fn yaml_is_as_good_and_bad_files_leave_others_alone() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(vec![root.path().to_owned()]);
        let yaml = "---\ncdiVersion: \"0.6.0\"\nkind: vendor.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    env: [GPU=0]\n    deviceNodes:\n    - {path: /dev/x, fileMode: 0o660}\n";
        write(root.path(), "gpu.yaml", &yaml.replace("0o660", "432"));
        write(root.path(), "bad.json", "{\"cdiVersion\":");
        write(root.path(), "note.txt", "none");
        assert_eq!(env(&cache, &["vendor.com/gpu=0"]).unwrap(), ["GPU=0"]);
        let error = env(&cache, &["vendor.com/gpu=0", "vendor.com/gpu=1"]).unwrap_err();
        for part in [
            "vendor.com/gpu=1:",
            "bad.json cannot be used: EOF",
            "gpu.yaml has vendor.com/gpu=0",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("note.txt"), "{error}");
    }
}
