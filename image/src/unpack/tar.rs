//! A tar reader for streams (v7, ustar, PAX and GNU; tar(5)) that holds little and trusts nothing.

use std::io::{self, BufRead};

use super::pax::Extension;

const BLOCK: usize = 512;
/// Largest PAX extended header or GNU long name, bytes.
const MAX_EXTENSION: u64 = 1 << 20;

/// How an archive breaks its format or our bounds.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream cannot be read.
    #[error("its stream cannot be read")]
    Io(#[source] io::Error),
    /// It ends within a header or a file.
    #[error("it ends within {within}")]
    Truncated {
        /// "a header" or "a file".
        within: &'static str,
    },
    /// A header's checksum is wrong: this is no tar archive, or a damaged one.
    #[error("a header's checksum is wrong")]
    Checksum,
    /// A number in a header is none, or too large.
    #[error("a header's {field} is no number that fits")]
    Number {
        /// Which field.
        field: &'static str,
    },
    /// A PAX extended header breaks its format.
    #[error("a PAX extended header is malformed")]
    Pax,
    /// A PAX header or long name above the bound.
    #[error("an extended header has {size} bytes, at most {MAX_EXTENSION} are taken")]
    ExtensionTooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// Sparse files in GNU's forms.
    #[error(
        "a sparse file: GNU's sparse formats are not supported; build the layer without --sparse"
    )]
    Sparse,
    /// A type of entry that is none of tar(5)'s.
    #[error("an entry has the unknown type {kind:?}")]
    Kind {
        /// The header's type byte.
        kind: char,
    },
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Timestamp {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink { target: Vec<u8> },
    Symlink { target: Vec<u8> },
    Directory,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
}

/// An entry's header; its body, when it is a file, follows in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// As it stands in the archive.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entry after entry.
pub(super) struct Archive<R> {
    reader: R,
    /// Body bytes of the current entry not read yet.
    body: u64,
    /// Zero bytes after that body, up to the next block.
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    pub(super) fn new(reader: R) -> Archive<R> {
        Archive {
            reader,
            body: 0,
            padding: 0,
        }
    }

    /// The stream, behind the archive's end.
    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// The next entry; what is left of the current one's body is skipped. `None` at the archive's end.
    pub(super) fn next_entry(&mut self) -> Result<Option<Header>, TarError> {
        let mut extension = Extension::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_body()?;
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? || block.iter().all(|&b| b == 0) {
                return Ok(None);
            }
            check_checksum(&block)?;
            let size = number(&block[124..136]).ok_or(TarError::Number { field: "size" })?;
            match block[156] {
                b'x' => extension = Extension::parse(&self.read_extension(size)?)?,
                b'L' => long_name = Some(until_zero(&self.read_extension(size)?).to_vec()),
                b'K' => long_link = Some(until_zero(&self.read_extension(size)?).to_vec()),
                // A global header: git's comment, mostly. The peers skip it too.
                b'g' => self.start_body(size)?,
                b'S' => return Err(TarError::Sparse),
                _ if extension.sparse => return Err(TarError::Sparse),
                _ => {
                    return self
                        .entry(&block, size, extension, long_name, long_link)
                        .map(Some);
                }
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        size: u64,
        extension: Extension,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Header, TarError> {
        let path = extension.path.or(long_name).unwrap_or_else(|| name(block));
        let link = || {
            extension
                .link
                .or(long_link)
                .unwrap_or_else(|| until_zero(&block[157..257]).to_vec())
        };
        let device = |range: std::ops::Range<usize>| {
            number(&block[range])
                .and_then(|n| u32::try_from(n).ok())
                .ok_or(TarError::Number {
                    field: "device number",
                })
        };
        let kind = match block[156] {
            // v7 marks a directory by the slash alone.
            b'0' | 0 | b'7' if path.last() == Some(&b'/') => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink { target: link() },
            b'2' => Kind::Symlink { target: link() },
            b'3' => Kind::CharDevice {
                major: device(329..337)?,
                minor: device(337..345)?,
            },
            b'4' => Kind::BlockDevice {
                major: device(329..337)?,
                minor: device(337..345)?,
            },
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(TarError::Kind {
                    kind: char::from(other),
                });
            }
        };
        // Only files have bodies, whatever the size field of another type says (as in Go's archive/tar).
        if kind == Kind::File {
            self.start_body(extension.size.unwrap_or(size))?;
        }
        let id = |field, over: Option<u64>, range: std::ops::Range<usize>| {
            over.or_else(|| number(&block[range]))
                .and_then(|n| u32::try_from(n).ok())
                // (uid_t)-1 means "leave it" to chown(2).
                .filter(|&n| n != u32::MAX)
                .ok_or(TarError::Number { field })
        };
        let mode =
            number(&block[100..108]).ok_or(TarError::Number { field: "mode" })? as u32 & 0o7777;
        let mtime = match extension.mtime {
            Some(mtime) => mtime,
            None => Timestamp {
                seconds: signed(&block[136..148]).ok_or(TarError::Number { field: "mtime" })?,
                nanoseconds: 0,
            },
        };
        Ok(Header {
            path,
            kind,
            mode,
            uid: id("uid", extension.uid, 108..116)?,
            gid: id("gid", extension.gid, 116..124)?,
            mtime,
            xattrs: extension.xattrs,
        })
    }

    /// Body bytes of the current entry that are not read yet.
    pub(super) fn remaining(&self) -> u64 {
        self.body
    }

    /// The next piece of the current file's body; empty at its end.
    pub(super) fn body(&mut self) -> Result<&[u8], TarError> {
        if self.body == 0 {
            return Ok(&[]);
        }
        let most = usize::try_from(self.body).unwrap_or(usize::MAX);
        let piece = self.reader.fill_buf().map_err(TarError::Io)?;
        if piece.is_empty() {
            return Err(TarError::Truncated { within: "a file" });
        }
        Ok(&piece[..piece.len().min(most)])
    }

    /// Marks bytes of [`Self::body`] as read.
    pub(super) fn consume(&mut self, read: usize) {
        self.reader.consume(read);
        self.body -= read as u64;
    }

    fn start_body(&mut self, size: u64) -> Result<(), TarError> {
        // What follows in the stream must be countable.
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        size.checked_add(padding)
            .ok_or(TarError::Number { field: "size" })?;
        self.body = size;
        self.padding = padding;
        Ok(())
    }

    fn skip_body(&mut self) -> Result<(), TarError> {
        let mut left = self.body + self.padding;
        while left > 0 {
            let available = self.reader.fill_buf().map_err(TarError::Io)?.len();
            if available == 0 {
                // Some tools leave out the last file's padding.
                return if self.body == 0 || left <= self.padding {
                    self.padding = 0;
                    Ok(())
                } else {
                    Err(TarError::Truncated { within: "a file" })
                };
            }
            let skipped = usize::try_from(left).map_or(available, |left| left.min(available));
            self.reader.consume(skipped);
            left -= skipped as u64;
        }
        (self.body, self.padding) = (0, 0);
        Ok(())
    }

    /// False at the stream's end.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            let read = self
                .reader
                .read(&mut block[filled..])
                .map_err(TarError::Io)?;
            match (read, filled) {
                (0, 0) => return Ok(false),
                (0, _) => return Err(TarError::Truncated { within: "a header" }),
                _ => filled += read,
            }
        }
        Ok(true)
    }

    fn read_extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(TarError::ExtensionTooLarge { size });
        }
        self.start_body(size)?;
        let mut bytes = Vec::new();
        while self.body > 0 {
            let piece = self.body()?;
            bytes.extend_from_slice(piece);
            let read = piece.len();
            self.consume(read);
        }
        Ok(bytes)
    }
}

/// The name field, with ustar's prefix; GNU uses the prefix's place otherwise.
fn name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_zero(&block[..100]);
    let prefix = until_zero(&block[345..500]);
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    }
}

fn until_zero(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

/// The sum of the header's bytes with the checksum's own as spaces; old tools summed signed bytes.
fn check_checksum(block: &[u8; BLOCK]) -> Result<(), TarError> {
    let stated = number(&block[148..156]).ok_or(TarError::Checksum)? as i64;
    let outside = || block[..148].iter().chain(&block[156..]);
    let unsigned: i64 = 8 * 32 + outside().map(|&b| i64::from(b)).sum::<i64>();
    let signed: i64 = 8 * 32 + outside().map(|&b| i64::from(b as i8)).sum::<i64>();
    if stated == unsigned || stated == signed {
        Ok(())
    } else {
        Err(TarError::Checksum)
    }
}

fn number(field: &[u8]) -> Option<u64> {
    u64::try_from(signed(field)?).ok()
}

/// Octal digits, or big-endian two's complement when the first bit is set (GNU's base-256).
fn signed(field: &[u8]) -> Option<i64> {
    if let Some((&first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        let negative = first & 0x40 != 0;
        let start = if negative {
            i64::from(first) - 0x100
        } else {
            i64::from(first & 0x7f)
        };
        return rest.iter().try_fold(start, |value, &byte| {
            value.checked_mul(256)?.checked_add(i64::from(byte))
        });
    }
    let digits: Vec<u8> = field
        .iter()
        .copied()
        .filter(|&b| b != 0 && b != b' ')
        .collect();
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testtar::Tar;
    use super::*;
    use podwright_instructions::counted;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> Result<Vec<Header>, TarError> {
        let mut archive = Archive::new(bytes);
        let mut headers = Vec::new();
        while let Some(header) = archive.next_entry()? {
            headers.push(header);
        }
        Ok(headers)
    }

    #[test]
    fn instructions_of_an_archive() {
        let mut archive = Tar::new();
        for number in 0..100 {
            let path = format!("usr/share/doc/package-{number}/copyright");
            archive = archive
                .pax(&[
                    ("mtime", b"1700000000.123456789"),
                    ("path", path.as_bytes()),
                ])
                .file("short", b"text");
        }
        let archive = archive.end();
        let headers = counted(|| read_all(&archive)).unwrap();
        assert_eq!(headers.len(), 100);
    }

    #[test]
    fn numbers() {
        for (field, value) in [
            (b"0000644\0".as_slice(), Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff", Some(-1)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"00000009", None),
            (b"7777777777777777777777777", None),
        ] {
            assert_eq!(signed(field), value, "{field:?}");
        }
    }

    #[test]
    fn long_names_of_both_kinds() {
        let long = "d/".repeat(100) + "file";
        let archive = Tar::new()
            .gnu_long(&long)
            .pax(&[("path", long.as_bytes())])
            .file("short", b"x")
            .end();
        let headers = read_all(&archive).unwrap();
        assert_eq!(headers.len(), 2);
        assert!(headers.iter().all(|header| header.path == long.as_bytes()));
    }

    #[test]
    fn broken_archives() {
        let good = Tar::new().file("a", &[1; 700]).end();
        assert!(matches!(
            read_all(&good[..300]),
            Err(TarError::Truncated { within: "a header" })
        ));
        assert!(matches!(
            read_all(&good[..900]),
            Err(TarError::Truncated { within: "a file" })
        ));
        let mut flipped = good.clone();
        flipped[0] ^= 1;
        assert!(matches!(read_all(&flipped), Err(TarError::Checksum)));
        let giant = Tar::new().raw_header(b'x', "pax", (1 << 20) + 1).end();
        assert!(matches!(
            read_all(&giant),
            Err(TarError::ExtensionTooLarge { .. })
        ));
        assert!(matches!(
            read_all(&Tar::new().raw_header(b'S', "s", 0).end()),
            Err(TarError::Sparse)
        ));
        assert!(matches!(
            read_all(&Tar::new().raw_header(b'V', "v", 0).end()),
            Err(TarError::Kind { kind: 'V' })
        ));
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048), fix in any::<bool>()) {
            if fix && bytes.len() >= BLOCK {
                Tar::fix_checksum(&mut bytes[..BLOCK]);
            }
            let _ = read_all(&bytes);
        }

        #[test]
        fn damaged_archives_never_panic(place in 0usize..3072, byte in any::<u8>()) {
            let mut bytes = Tar::new().pax(&[("mtime", b"1.5")]).file("a", b"hello").symlink("l", "a").end();
            let place = place % bytes.len();
            bytes[place] = byte;
            let block = place / BLOCK * BLOCK;
            Tar::fix_checksum(&mut bytes[block..block + BLOCK]);
            let _ = read_all(&bytes);
        }
    }
}
