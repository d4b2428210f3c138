//! What is on disk: one small checksummed file per pod, and the place where the next search for an address begins.
//!
//! A record is written whole and renamed before the kernel is told anything, and removed after the kernel has forgotten:
//! a daemon killed at any instruction finds every address, port and link that it gave. Nothing is synced; after a power
//! loss the pods are gone as well, and a torn record is dropped.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::address::{MacAddress, Subnet};
use crate::attachment::Attachment;
use crate::config::LinkName;
use crate::error::NetworkError;
use crate::port::{PortMapping, PortRegistry};
use crate::subnets::Subnets;

/// First line of a record: what it is, and the number of its form. A form may get lines: who does not know a line's first
/// word passes over it.
const TITLE: &str = "podwright-network 1";
/// What the first line of every form begins with.
const KIND: &str = "podwright-network ";
/// Bytes of one entry in the cursor file: 20 digits and a newline.
const CURSOR_BYTES: usize = 21;

/// The state directory, held by this process alone.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
    cursors: File,
    _lock: Flock<File>,
}

impl Records {
    /// Opens or makes the directory (mode 0700) and locks it.
    pub(crate) fn open(state: &Path) -> Result<Self, NetworkError> {
        let directory = state.join("pods");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(NetworkError::state("make the directory", &directory))?;
        let path = state.join("lock");
        let lock = Flock::lock(open_file(&path)?, FlockArg::LockExclusiveNonblock).map_err(
            |(_, errno)| match errno {
                Errno::EWOULDBLOCK => NetworkError::StateInUse { path: path.clone() },
                errno => NetworkError::state("lock", &path)(errno.into()),
            },
        )?;
        let cursors = open_file(&state.join("cursors"))?;
        Ok(Self {
            directory,
            cursors,
            _lock: lock,
        })
    }

    fn path(&self, pod: &str) -> PathBuf {
        self.directory.join(pod)
    }

    /// All whole records by pod, of which no two have the same address, port or link. What a crash or a power loss left
    /// otherwise is removed.
    pub(crate) fn load(&self) -> Result<HashMap<String, Attachment>, NetworkError> {
        let listing = || NetworkError::state("list the records in", &self.directory);
        let (mut attachments, mut taken) = (HashMap::new(), Taken::default());
        for entry in fs::read_dir(&self.directory).map_err(listing())? {
            let path = entry.map_err(listing())?.path();
            let pod = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let why = match read(&path) {
                // Its pod lives: to forget its addresses would be to give them twice.
                Ok(Found::Newer) => return Err(NetworkError::NewerRecord { path }),
                Ok(Found::Whole(attachment)) if is_pod_id(pod) => {
                    match taken.take(pod, &attachment) {
                        Ok(()) => {
                            attachments.insert(pod.to_owned(), attachment);
                            continue;
                        }
                        Err(clash) => clash,
                    }
                }
                Ok(_) => "it is torn".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::warn!(path = %path.display(), why, "dropped a network record");
            // Whatever is wrong with the file, the node starts; its pod's network is found by other names.
            if let Err(error) = fs::remove_file(&path) {
                tracing::error!(path = %path.display(), %error, "cannot remove the network record; the next start tries again");
            }
        }
        Ok(attachments)
    }

    /// Writes a pod's record.
    pub(crate) fn write(&self, pod: &str, attachment: &Attachment) -> Result<(), NetworkError> {
        let path = self.path(pod);
        let unfinished = self.directory.join(format!("{pod}.new"));
        let written = fs::write(&unfinished, encode(attachment))
            .map_err(NetworkError::state("write the record", &unfinished))
            .and_then(|()| {
                fs::rename(&unfinished, &path)
                    .map_err(NetworkError::state("rename the record to", &path))
            });
        if written.is_err() {
            // The failure to report is the one before.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Removes a pod's record; one that is not there is no error.
    pub(crate) fn remove(&self, pod: &str) -> Result<(), NetworkError> {
        let path = self.path(pod);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(NetworkError::state("remove the record", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// The subnets as they were last written; `None` when that is not known.
    pub(crate) fn subnets(&self) -> Option<Subnets> {
        let text = fs::read_to_string(self.subnets_path()).ok()?;
        let subnets = Subnets::decode(&text);
        if subnets.is_none() {
            tracing::warn!(path = %self.subnets_path().display(), "the record of subnets is torn; going on with the configuration's");
        }
        subnets
    }

    /// Writes which subnets there are.
    pub(crate) fn write_subnets(&self, subnets: &Subnets) -> Result<(), NetworkError> {
        let path = self.subnets_path();
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, subnets.encode())
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(NetworkError::state("write", &path))
    }

    fn subnets_path(&self) -> PathBuf {
        self.directory.with_file_name("subnets")
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> Result<usize, NetworkError> {
        let entries = fs::read_dir(&self.directory);
        Ok(entries
            .map_err(NetworkError::state("list the records in", &self.directory))?
            .count())
    }

    /// Where the search in the subnet at this place of the configuration begins; 0 when that is not known.
    pub(crate) fn cursor(&self, place: usize) -> u64 {
        let mut text = [0; CURSOR_BYTES];
        // A missing or damaged cursor only makes addresses rest less long.
        let _ = self
            .cursors
            .read_at(&mut text, (place * CURSOR_BYTES) as u64);
        std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Keeps the cursor of the subnet at this place of the configuration.
    pub(crate) fn set_cursor(&self, place: usize, cursor: u64) -> Result<(), NetworkError> {
        let text = format!("{cursor:020}\n");
        self.cursors
            .write_all_at(text.as_bytes(), (place * CURSOR_BYTES) as u64)
            .map_err(NetworkError::state(
                "write",
                self.directory.with_file_name("cursors"),
            ))
    }

    /// Removes everything that this module made; the state directory itself only when it is empty then.
    pub(crate) fn destroy(self, state: &Path) -> Result<(), NetworkError> {
        fs::remove_dir_all(&self.directory)
            .map_err(NetworkError::state("remove", &self.directory))?;
        for name in ["cursors", "subnets", "lock"] {
            let path = state.join(name);
            match fs::remove_file(&path) {
                // Subnets are kept only once somebody has changed them.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(NetworkError::state("remove", &path)(error));
                }
                _ => {}
            }
        }
        match fs::remove_dir(state) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(NetworkError::state("remove", state)(error))
            }
            _ => Ok(()),
        }
    }
}

/// What the records that were read so far have.
#[derive(Debug, Default)]
struct Taken {
    addresses: HashMap<IpAddr, String>,
    links: HashMap<LinkName, String>,
    ports: PortRegistry,
}

impl Taken {
    /// Takes all that the pod has, or says what of it another pod has: a removal may be lost that came before.
    fn take(&mut self, pod: &str, attachment: &Attachment) -> Result<(), String> {
        let addresses = attachment.addresses.iter().map(|net| net.address);
        for address in addresses.clone() {
            if let Some(holder) = self.addresses.get(&address) {
                return Err(format!("pod {holder} has its address {address}"));
            }
        }
        if let Some(holder) = self.links.get(&attachment.host_link) {
            let link = &attachment.host_link;
            return Err(format!("pod {holder} has its link {link}"));
        }
        self.ports
            .take(pod, &attachment.ports)
            .map_err(|taken| format!("pod {} has its host port {}", taken.holder, taken.port))?;
        self.addresses
            .extend(addresses.map(|address| (address, pod.to_owned())));
        self.links
            .insert(attachment.host_link.clone(), pod.to_owned());
        Ok(())
    }
}

/// What a file holds.
enum Found {
    Whole(Attachment),
    /// A whole record of another form: a later version's, since there is none before the first.
    Newer,
    Torn,
}

fn read(path: &Path) -> io::Result<Found> {
    let text = fs::read(path)?;
    let text = String::from_utf8_lossy(&text);
    Ok(match decode(&text) {
        Some(attachment) => Found::Whole(attachment),
        None if is_newer(&text) => Found::Newer,
        None => Found::Torn,
    })
}

/// Whether the text is a pod id: 64 lower-case hexadecimal digits. Such a text is a safe file name.
pub(crate) fn is_pod_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn open_file(path: &Path) -> Result<File, NetworkError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(NetworkError::state("open", path))
}

/// A record's text: one fact a line, closed by the CRC-32 of all lines before.
fn encode(attachment: &Attachment) -> String {
    let mut text = format!(
        "{TITLE}\nlink {}\nmac {}\n",
        attachment.host_link, attachment.mac
    );
    for address in &attachment.addresses {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "address {address}");
    }
    for port in &attachment.ports {
        let address = port
            .host_ip
            .map_or_else(|| "*".to_owned(), |address| address.to_string());
        let _ = writeln!(
            text,
            "port {} {} {} {address}",
            port.protocol, port.container_port, port.host_port
        );
    }
    let checksum = crc32fast::hash(text.as_bytes());
    let _ = writeln!(text, "crc32 {checksum:08x}");
    text
}

/// A text without its last line, which is the CRC-32 of the lines before; none when it is not.
pub(crate) fn whole(text: &str) -> Option<&str> {
    let (body, checksum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let checksum = u32::from_str_radix(checksum.strip_prefix("crc32 ")?, 16).ok()?;
    let body = &text[..=body.len()];
    (crc32fast::hash(body.as_bytes()) == checksum).then_some(body)
}

/// Whether the text is a whole record of another form.
fn is_newer(text: &str) -> bool {
    let title = whole(text).and_then(|body| body.lines().next());
    title.is_some_and(|title| title.starts_with(KIND) && title != TITLE)
}

fn decode(text: &str) -> Option<Attachment> {
    let mut lines = whole(text)?.lines();
    if lines.next()? != TITLE {
        return None;
    }
    let host_link = lines.next()?.strip_prefix("link ")?.parse().ok()?;
    let mac = decode_mac(lines.next()?.strip_prefix("mac ")?)?;
    let mut attachment = Attachment {
        addresses: Vec::new(),
        host_link,
        mac,
        ports: Vec::new(),
    };
    for line in lines {
        match line.split_once(' ')? {
            ("address", address) => attachment.addresses.push(address.parse().ok()?),
            ("port", port) => attachment.ports.push(decode_port(port)?),
            _ => {}
        }
    }
    (!attachment.addresses.is_empty()).then_some(attachment)
}

fn decode_mac(text: &str) -> Option<MacAddress> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(MacAddress(bytes))
}

fn decode_port(text: &str) -> Option<PortMapping> {
    let mut words = text.split(' ');
    let protocol = words.next()?.parse().ok()?;
    let container_port = words.next()?.parse().ok()?;
    let host_port = words.next()?.parse().ok()?;
    let host_ip = match words.next()? {
        "*" => None,
        address => Some(address.parse().ok()?),
    };
    Some(PortMapping {
        protocol,
        container_port,
        host_port,
        host_ip,
    })
}

/// The cursors of these subnets, for their pools.
pub(crate) fn cursors<'a>(
    records: &'a Records,
    subnets: &'a [Subnet],
) -> impl Iterator<Item = (Subnet, u64)> + 'a {
    subnets
        .iter()
        .enumerate()
        .map(|(place, subnet)| (*subnet, records.cursor(place)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::port::Protocol;
    use podwright_instructions::counted;
    use proptest::prelude::*;

    fn attachment() -> Attachment {
        let port = |host_port: u16, host_ip: Option<&str>| PortMapping {
            protocol: Protocol::Udp,
            container_port: 53.try_into().unwrap(),
            host_port: host_port.try_into().unwrap(),
            host_ip: host_ip.map(|address| address.parse().unwrap()),
        };
        Attachment {
            addresses: vec![
                "10.231.0.2/24".parse().unwrap(),
                "fd00::2/64".parse().unwrap(),
            ],
            host_link: "pw0123456789".parse().unwrap(),
            mac: MacAddress::of("10.231.0.2".parse().unwrap()),
            ports: vec![port(5353, None), port(5354, Some("::1"))],
        }
    }

    #[test]
    fn instructions_of_an_attachment_s_record() {
        let read = counted(|| decode(&encode(&attachment())));
        assert_eq!(read, Some(attachment()));
    }

    #[test]
    fn records_survive_and_torn_ones_are_dropped() {
        let state = tempfile::tempdir().unwrap();
        let (whole, torn) = ("a".repeat(64), "b".repeat(64));
        {
            let records = Records::open(state.path()).unwrap();
            assert!(matches!(
                Records::open(state.path()),
                Err(NetworkError::StateInUse { .. })
            ));
            records.write(&whole, &attachment()).unwrap();
            records.set_cursor(1, 77).unwrap();
            let text = encode(&attachment());
            fs::write(records.path(&torn), &text[..text.len() - 20]).unwrap();
            fs::write(records.path("unfinished.new"), &text).unwrap();
        }
        let records = Records::open(state.path()).unwrap();
        assert_eq!(
            records.load().unwrap(),
            HashMap::from([(whole.clone(), attachment())])
        );
        assert_eq!(records.count().unwrap(), 1);
        assert_eq!(
            (records.cursor(0), records.cursor(1), records.cursor(2)),
            (0, 77, 0)
        );
        records.remove(&whole).unwrap();
        records.remove(&whole).unwrap();
        records.destroy(state.path()).unwrap();
        assert!(!state.path().exists());
    }

    #[test]
    fn two_records_never_have_the_same() {
        let other = |change: &dyn Fn(&mut Attachment)| {
            let mut other = attachment();
            other.addresses = vec!["10.231.0.3/24".parse().unwrap()];
            other.host_link = "pw9876543210".parse().unwrap();
            other.ports.clear();
            change(&mut other);
            other
        };
        for (is_dropped, other) in [
            (false, other(&|_| {})),
            (
                true,
                other(&|other| other.host_link = attachment().host_link),
            ),
            (
                true,
                other(&|other| other.addresses = attachment().addresses),
            ),
            (true, other(&|other| other.ports = attachment().ports)),
        ] {
            let state = tempfile::tempdir().unwrap();
            let records = Records::open(state.path()).unwrap();
            records.write(&"a".repeat(64), &attachment()).unwrap();
            records.write(&"b".repeat(64), &other).unwrap();
            let left = if is_dropped { 1 } else { 2 };
            assert_eq!(records.load().unwrap().len(), left, "{other:?}");
            assert_eq!(records.count().unwrap(), left, "{other:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_keeps_no_node_from_starting() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        records.write(&"a".repeat(64), &attachment()).unwrap();
        fs::create_dir(records.path(&"b".repeat(64))).unwrap();
        let zeros = vec![0; encode(&attachment()).len()];
        fs::write(records.path(&"c".repeat(64)), zeros).unwrap();
        fs::write(records.path(&"d".repeat(64)), "").unwrap();
        assert_eq!(records.load().unwrap().len(), 1);
        assert_eq!(
            records.count().unwrap(),
            2,
            "the directory is nobody's to remove"
        );
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let text = encode(&attachment());
        assert_eq!(decode(&text), Some(attachment()));
        for position in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[position] ^= 1;
            assert_eq!(
                decode(&String::from_utf8(bytes).unwrap()),
                None,
                "byte {position}"
            );
        }
    }

    fn closed(body: &str) -> String {
        format!("{body}crc32 {:08x}\n", crc32fast::hash(body.as_bytes()))
    }

    #[test]
    fn later_lines_are_passed_over_and_a_later_form_is_an_error() {
        let text = encode(&attachment());
        let body = whole(&text).unwrap();
        let more = closed(&format!("{body}later what only later versions write\n"));
        assert_eq!(decode(&more), Some(attachment()));

        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        let path = records.path(&"a".repeat(64));
        fs::write(&path, closed("podwright-network 2\nall is different\n")).unwrap();
        let error = records.load().unwrap_err();
        assert!(matches!(error, NetworkError::NewerRecord { .. }), "{error}");
        assert!(path.exists(), "it was dropped");
    }

    proptest! {
        #[test]
        fn any_text_is_decoded_without_panic(text in "(podwright-network 1\n)?[ -~\n]{0,80}(crc32 [0-9a-f]{8}\n)?") {
            let _ = decode(&text);
        }
    }
}
