//! The daemon's records as they lie on the disk: which are torn, judged by their form alone.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The first words of a pod's or container's record, and of a pod's network record.
const OBJECT: &str = "podwright-record 1";
const NETWORK: &str = "podwright-network 1\n";
/// Files of an object that are records.
const FACTS: &[&str] = &[
    "record",
    "ready",
    "stopped",
    "started",
    "exit",
    "resources",
    "nri",
];

/// A record's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Pod,
    Container,
    Network,
}

/// A record's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// The pod's or the container's.
    pub(crate) id: String,
    /// What it tells: `record` for what the object is.
    pub(crate) fact: String,
    pub(crate) path: PathBuf,
    /// As it was found.
    content: Vec<u8>,
    /// Whether it was torn then.
    pub(crate) torn: bool,
}

impl Record {
    fn read(kind: Kind, object: &Path, fact: &str, path: PathBuf) -> Result<Self> {
        let content = fs::read(&path);
        let content = content.with_context(|| format!("reading the record {}", path.display()))?;
        let is_whole = match kind {
            Kind::Pod | Kind::Container => is_whole_object(&content),
            Kind::Network => is_whole_network(&content),
        };
        Ok(Self {
            kind,
            id: name(object),
            fact: fact.to_owned(),
            path,
            content,
            torn: !is_whole,
        })
    }

    /// Whether it names another object.
    pub(crate) fn names(&self, id: &str) -> bool {
        let mut windows = self.content.windows(id.len());
        windows.any(|window| window == id.as_bytes())
    }
}

/// All records below the daemon's state directory. No directory, no records.
pub(crate) fn all(state: &Path) -> Result<BTreeSet<Record>> {
    let mut found = BTreeSet::new();
    for (kind, directory) in [(Kind::Pod, "pods"), (Kind::Container, "containers")] {
        for object in entries(&state.join(directory))? {
            let facts = FACTS.iter().map(|fact| (fact, object.join(fact)));
            for (fact, path) in facts.filter(|(_, path)| path.is_file()) {
                found.insert(Record::read(kind, &object, fact, path)?);
            }
        }
    }
    for path in entries(&state.join("network/pods"))? {
        found.insert(Record::read(Kind::Network, &path, "record", path.clone())?);
    }
    Ok(found)
}

/// What is in a directory, or nothing where there is none.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.and_then(|listed| {
            listed
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<_>>()
        }),
    };
    listed.with_context(|| format!("listing {}", directory.display()))
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn is_whole_object(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return false;
    };
    let (header, body) = (&bytes[..end], &bytes[end + 1..]);
    let expected = format!("{OBJECT} {} {:08x}", body.len(), crc32fast::hash(body));
    header == expected.as_bytes()
}

fn is_whole_network(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Some((body, sum)) = text.rsplit_once("crc32 ") else {
        return false;
    };
    let expected = format!("{:08x}\n", crc32fast::hash(body.as_bytes()));
    body.starts_with(NETWORK) && sum == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_records_are_told_from_whole_ones() {
        let body = b"\x0a\x03abc";
        let mut object = format!("{OBJECT} {} {:08x}\n", body.len(), crc32fast::hash(body));
        object.push_str("\x0a\x03abc");
        let lines = format!("{NETWORK}link pw1\n");
        let network = format!("{lines}crc32 {:08x}\n", crc32fast::hash(lines.as_bytes()));
        type IsWhole = fn(&[u8]) -> bool;
        let kinds: [(&str, IsWhole); 2] =
            [(&object, is_whole_object), (&network, is_whole_network)];
        for (text, is_whole) in kinds {
            assert!(is_whole(text.as_bytes()), "{text}");
            for length in 0..text.len() {
                assert!(!is_whole(&text.as_bytes()[..length]), "cut to {length}");
                let mut zeroed = text.as_bytes().to_vec();
                zeroed[length..].fill(0);
                assert!(!is_whole(&zeroed), "zeros from {length}");
            }
        }
    }
}
