//! What is on disk about pods and containers.
//!
//! A record is one small file: a header line with its version, length and checksum, and a protobuf body. It is written
//! whole under a temporary name and renamed, so that a process crash at any instruction leaves the old one, the new
//! one or none. Nothing is synced: after a power loss a torn record is recognized by its checksum and dropped
//! (docs/architecture.md, "Records").
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

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MAGIC: &str = "podwright-record 1";

/// Records are far smaller; a larger file is not one.
const MAX_RECORD: u64 = 16 * 1024 * 1024;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// The system refused.
    #[error("cannot {action} the record {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
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
            RecordError::Io {
                action: "write",
                path,
                source,
            }
        })
    }

    /// Reads it from `directory`; none when there is no such file.
    fn read(directory: &Path) -> Result<Option<Self>, RecordError> {
        let path = directory.join(Self::FILE);
        let io = |source| RecordError::Io {
            action: "read",
            path: path.clone(),
            source,
        };
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
        decode(&bytes)
            .map(Some)
            .map_err(|what| RecordError::Damaged { path, what })
    }

    /// Reads it as a start does, after which no torn one is there. What a torn one said is lost, but its file tells that
    /// it was said: `told` gives what is still known of that, which is written anew; without it the fact never was.
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
        match &known {
            Some(known) => known.write(directory)?,
            None => fs::remove_file(&path).map_err(|source| RecordError::Io {
                action: "remove",
                path,
                source,
            })?,
        }
        Ok(known)
    }
}

fn encode(message: &impl prost::Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut out = format!("{MAGIC} {} {:08x}\n", body.len(), crc32fast::hash(&body)).into_bytes();
    out.extend_from_slice(&body);
    out
}

fn decode<T: prost::Message + Default>(bytes: &[u8]) -> Result<T, String> {
    let end = bytes
        .iter()
        .take(80)
        .position(|byte| *byte == b'\n')
        .ok_or("it has no header")?;
    let (header, body) = (&bytes[..end], &bytes[end + 1..]);
    let header = str::from_utf8(header).map_err(|_| "its header is not text")?;
    let fields = header.strip_prefix(MAGIC).ok_or("its header is unknown")?;
    let expected = format!(" {} {:08x}", body.len(), crc32fast::hash(body));
    if fields != expected {
        return Err(format!(
            "its header says{fields}, its contents say{expected}"
        ));
    }
    T::decode(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
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
