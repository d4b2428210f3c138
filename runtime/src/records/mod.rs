//! What is on disk about pods and containers.
//!
//! A record is one small file: a header line with its version, length and checksum, and a protobuf body. It is written
//! whole under a temporary name and renamed, so that a process crash at any instruction leaves the old one, the new
//! one or none. Nothing is synced: after a power loss a torn record is recognized by its checksum and dropped
//! (docs/architecture.md, "Records").
//!
//! # Versions
//! The body may get fields: who does not know them passes over them, and who misses them takes their defaults, so that a
//! daemon reads the records of one before it and of one after it. Where that does not do, the form gets a new number, and a
//! daemon that finds a number above its own does not start: to drop such a record would be to kill its pod.
//!
//! Facts are added, not changed: a container has a `record` from its creation, a `started` once it was started and an
//! `exit` once it has ended. What holds now is what is there.

mod container;
mod sandbox;

pub(crate) use container::{
    ConfinementRecord, ContainerRecord, ExitRecord, NriRecord, ResourcesRecord, StartedRecord,
    UserRecord, VolumeImageRecord,
};
pub(crate) use sandbox::{PodResourcesRecord, ReadyRecord, SandboxRecord, StoppedRecord};

use std::cmp::Ordering;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::chain;

/// What a record begins with, before the number of its form.
const MAGIC: &str = "podwright-record ";

/// The number of the form that is written here.
const FORM: u32 = 1;

/// Records are far smaller; a larger file is not one.
const MAX_RECORD: u64 = 16 * 1024 * 1024;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system does not let it be read.
    #[error("cannot read the record {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system does not let it be changed.
    #[error("cannot {action} the record {path}")]
    Change {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A later version has written it.
    #[error(
        "the record {path} has form {form}, and this version of podwright reads forms up to {FORM}: start the newer version \
         that wrote it, and remove what it made before you go back; pods run on meanwhile"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The number of its form.
        form: u32,
    },
    /// The file is not what was written: a power loss, a full disk or another hand.
    #[error("the record {path} is damaged: {what}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How it shows.
        what: String,
    },
}

/// A message that is kept in a file of its own.
pub(crate) trait Record: prost::Message + Default {
    /// The file's name in its object's directory.
    const FILE: &'static str;

    /// Writes it into `directory`, in place of an earlier one.
    fn write(&self, directory: &Path) -> Result<(), RecordError> {
        let path = directory.join(Self::FILE);
        let temporary = directory.join(format!("{}.new", Self::FILE));
        let written = fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(&encode(self)))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|source| {
            // The error below is the one to report.
            let _ = fs::remove_file(&temporary);
            RecordError::Change {
                action: "write",
                path,
                source,
            }
        })
    }

    /// Reads it from `directory`; none when there is no such file.
    fn read(directory: &Path) -> Result<Option<Self>, RecordError> {
        let path = directory.join(Self::FILE);
        let io = |source| RecordError::unread(path.clone(), source);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_RECORD => {
                return Err(RecordError::Damaged {
                    path,
                    what: format!("it is {} bytes long", metadata.len()),
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        }
        let bytes = fs::read(&path).map_err(io)?;
        match decode(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(Unreadable::Newer(form)) => Err(RecordError::Newer { path, form }),
            Err(Unreadable::Damaged(what)) => Err(RecordError::Damaged { path, what }),
        }
    }

    /// Reads it as a start does, after which no torn one is there. What a torn one said is lost, but its file tells that
    /// it was said: `told` gives what is still known of that, which is written anew; without it the fact never was. A disk that
    /// does not take that changes nothing now: the next start finds the same.
    fn recover(
        directory: &Path,
        told: impl FnOnce() -> Option<Self>,
    ) -> Result<Option<Self>, RecordError> {
        let (path, what) = match Self::read(directory) {
            Err(RecordError::Damaged { path, what }) => (path, what),
            read => return read,
        };
        tracing::warn!(path = %path.display(), what, "dropped a torn record");
        let known = told();
        let mended = match &known {
            Some(known) => known.write(directory),
            None => fs::remove_file(&path).map_err(|source| RecordError::Change {
                action: "remove",
                path,
                source,
            }),
        };
        if let Err(error) = mended {
            tracing::error!(error = %chain(&error), "a torn record stays");
        }
        Ok(known)
    }
}

impl RecordError {
    /// Why the file at `path` was not read.
    pub(crate) fn unread(path: PathBuf, source: io::Error) -> Self {
        match is_damage(&source) {
            true => Self::Damaged {
                path,
                what: source.to_string(),
            },
            false => Self::Read { path, source },
        }
    }
}

/// Whether it is the file's own, and so the same at each start: its blocks, its file system's structures, its kind.
fn is_damage(error: &io::Error) -> bool {
    use libc::{EBADMSG, EIO, EISDIR, ELOOP, ENOTDIR, EUCLEAN};
    matches!(
        error.raw_os_error(),
        Some(EIO | EUCLEAN | EBADMSG | EISDIR | ENOTDIR | ELOOP)
    )
}

fn encode(message: &impl prost::Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut out = header(FORM, &body).into_bytes();
    out.push(b'\n');
    out.extend_from_slice(&body);
    out
}

fn header(form: u32, body: &[u8]) -> String {
    format!("{MAGIC}{form} {} {:08x}", body.len(), crc32fast::hash(body))
}

/// Why bytes are no record.
#[derive(Debug, PartialEq, Eq)]
enum Unreadable {
    /// They are whole, and of this form.
    Newer(u32),
    /// How it shows that they are not whole.
    Damaged(String),
}

impl From<&str> for Unreadable {
    fn from(what: &str) -> Self {
        Self::Damaged(what.to_owned())
    }
}

fn decode<T: prost::Message + Default>(bytes: &[u8]) -> Result<T, Unreadable> {
    let end = bytes
        .iter()
        .take(80)
        .position(|byte| *byte == b'\n')
        .ok_or("it has no header")?;
    let (header, body) = (&bytes[..end], &bytes[end + 1..]);
    let header = str::from_utf8(header).map_err(|_| "its header is not text")?;
    let form = header.strip_prefix(MAGIC);
    let form = form.and_then(|fields| fields.split(' ').next()?.parse().ok());
    let form: u32 = form.ok_or("its header is unknown")?;
    // Every form begins like this: a number that a power loss has left is not taken for a newer form.
    let expected = self::header(form, body);
    if header != expected {
        return Err(Unreadable::Damaged(format!(
            "its header says {header}, its contents say {expected}"
        )));
    }
    match form.cmp(&FORM) {
        Ordering::Less => return Err("its form is unknown".into()),
        Ordering::Equal => {}
        Ordering::Greater => return Err(Unreadable::Newer(form)),
    }
    T::decode(body).map_err(|error| Unreadable::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use podwright_cri_api::v1::PodSandboxConfig;
    use podwright_instructions::counted;

    use super::*;

    fn sample() -> ExitRecord {
        ExitRecord {
            exit_code: 137,
            signal: 9,
            finished_at: 1_700_000_000_000_000_000,
            reason: "OOMKilled".into(),
            message: String::new(),
        }
    }

    #[test]
    fn what_was_written_is_read_and_absence_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(ExitRecord::read(directory.path()).unwrap(), None);
        sample().write(directory.path()).unwrap();
        assert_eq!(ExitRecord::read(directory.path()).unwrap(), Some(sample()));
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn instructions_of_a_record() {
        let labels = (0..10).map(|number| (format!("label-{number}"), "value".to_owned()));
        let config = PodSandboxConfig {
            hostname: "web".into(),
            labels: labels.collect(),
            ..Default::default()
        };
        let record = SandboxRecord {
            id: "a".repeat(64),
            config: Some(config),
            created_at: 1_700_000_000_000_000_000,
            cgroup: "/kubepods/pod1".into(),
            ..Default::default()
        };
        let read = counted(|| decode::<SandboxRecord>(&encode(&record)));
        assert_eq!(read, Ok(record));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let whole = encode(&sample());
        for length in 0..whole.len() {
            assert!(
                decode::<ExitRecord>(&whole[..length]).is_err(),
                "cut to {length}"
            );
        }
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<ExitRecord>(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_torn_record_is_replaced_by_what_is_known_or_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(ExitRecord::FILE);
        let whole = encode(&sample());
        for torn in [&whole[..whole.len() / 2], &[], &vec![0; whole.len()]] {
            fs::write(&path, torn).unwrap();
            let known = ExitRecord::recover(directory.path(), || Some(sample())).unwrap();
            assert_eq!(known, Some(sample()));
            assert_eq!(ExitRecord::read(directory.path()).unwrap(), Some(sample()));
            fs::write(&path, torn).unwrap();
            assert_eq!(
                ExitRecord::recover(directory.path(), || None).unwrap(),
                None
            );
            assert!(!path.exists());
        }
        let never = ExitRecord::recover(directory.path(), || Some(sample())).unwrap();
        assert_eq!(never, None, "what was never there is not made up");
        fs::write(&path, &whole).unwrap();
        let read = ExitRecord::recover(directory.path(), || None).unwrap();
        assert_eq!(read, Some(sample()));
    }

    #[test]
    fn what_is_no_file_is_torn_too_and_may_stay() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(ExitRecord::FILE)).unwrap();
        let error = ExitRecord::read(directory.path()).unwrap_err();
        assert!(matches!(error, RecordError::Damaged { .. }), "{error}");
        for known in [None, Some(sample())] {
            let told = ExitRecord::recover(directory.path(), || known.clone());
            assert_eq!(told.unwrap(), known);
        }
    }

    #[test]
    fn later_fields_are_passed_over_and_earlier_records_lack_them() {
        /// The same record two versions apart.
        #[derive(Clone, PartialEq, prost::Message)]
        struct Later {
            #[prost(int32, tag = "1")]
            exit_code: i32,
            #[prost(string, tag = "77")]
            later: String,
        }
        let later = Later {
            exit_code: 3,
            later: "what only later daemons write".into(),
        };
        let read = decode::<ExitRecord>(&encode(&later)).unwrap();
        assert_eq!(read.exit_code, 3);
        let earlier = decode::<Later>(&encode(&sample())).unwrap();
        assert_eq!((earlier.exit_code, earlier.later.as_str()), (137, ""));
    }

    #[test]
    fn a_later_form_is_told_from_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(ExitRecord::FILE);
        let body = b"what only later daemons read";
        let whole = [header(2, body).as_bytes(), b"\n", body].concat();
        fs::write(&path, &whole).unwrap();
        let error = ExitRecord::read(directory.path()).unwrap_err();
        assert!(
            matches!(error, RecordError::Newer { form: 2, .. }),
            "{error}"
        );
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let error = ExitRecord::read(directory.path()).unwrap_err();
        assert!(matches!(error, RecordError::Damaged { .. }), "{error}");
    }

    #[test]
    fn a_record_that_cannot_be_written_leaves_nothing() {
        let error = sample()
            .write(Path::new("/proc/self/nothing-here"))
            .unwrap_err();
        assert!(
            error.to_string().contains("/proc/self/nothing-here/exit"),
            "{error}"
        );
    }
}
