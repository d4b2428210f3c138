//! PAX extended headers (pax(1), "pax Extended Header"): records of `length key=value\n`.

use super::tar::{TarError, Timestamp};

/// The records that matter to us; the last of each key counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// GNU.sparse.*: the body is a map and pieces, not the file.
    pub(super) sparse: bool,
}

impl Extension {
    /// Reads the records of one extended header.
    pub(super) fn parse(mut records: &[u8]) -> Result<Extension, TarError> {
        let mut extension = Extension::default();
        while !records.is_empty() {
            let (key, value, rest) = split_record(records).ok_or(TarError::Pax)?;
            extension.set(key, value)?;
            records = rest;
        }
        Ok(extension)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value).ok_or(TarError::Pax)?),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Key, value, and what follows the first record.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&b| b == b' ')?;
    let length = usize::try_from(decimal(&records[..space]).ok()?).ok()?;
    if length <= space + 1 || length > records.len() {
        return None;
    }
    let (record, rest) = records.split_at(length);
    let body = record[space + 1..].strip_suffix(b"\n")?;
    let equals = body.iter().position(|&b| b == b'=')?;
    (equals > 0).then(|| (&body[..equals], &body[equals + 1..], rest))
}

fn decimal(text: &[u8]) -> Result<u64, TarError> {
    let digits = std::str::from_utf8(text)
        .ok()
        .filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or(TarError::Pax)
}

/// `[-]seconds[.fraction]`; digits beyond nanoseconds are cut off.
fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = decimal(seconds.as_bytes()).ok()?.try_into().ok()?;
    let mut nanoseconds = 0u32;
    for place in 0..9 {
        let digit = fraction.as_bytes().get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp {
            seconds,
            nanoseconds,
        },
        (true, 0) => Timestamp {
            seconds: -seconds,
            nanoseconds: 0,
        },
        (true, _) => Timestamp {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records() {
        let parsed =
            Extension::parse(b"12 path=a/b\n22 mtime=1.0000000019\n24 SCHILY.xattr.a.b=\0\n\xff\n")
                .unwrap();
        assert_eq!(parsed.path.as_deref(), Some(b"a/b".as_slice()));
        assert_eq!(
            parsed.mtime,
            Some(Timestamp {
                seconds: 1,
                nanoseconds: 1
            })
        );
        assert_eq!(parsed.xattrs, [(b"a.b".to_vec(), b"\0\n\xff".to_vec())]);
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1700000000.123456789", Some((1_700_000_000, 123_456_789))),
            ("1.5", Some((1, 500_000_000))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-3", Some((-3, 0))),
            ("1.x", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            let expected = expected.map(|(seconds, nanoseconds)| Timestamp {
                seconds,
                nanoseconds,
            });
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn broken_records() {
        for records in [
            "x",
            "5 a=b",
            "3 \n",
            "0 a=b\n",
            "99 a=b\n",
            "6 abc\n",
            "6 =ab\n",
            "-1 a=b\n",
            "18446744073709551616 a=b\n",
            "12 size=abc\n\n",
        ] {
            assert!(Extension::parse(records.as_bytes()).is_err(), "{records:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(records in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Extension::parse(&records);
        }
    }
}
