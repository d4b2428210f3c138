//! Writes tar archives in the pax interchange format, see pax(1).
//!
//! Names are written exactly as given, so that tests can make hostile archives too; a library that
//! refuses `..` could not.

use super::layer::{Entry, Kind};

const BLOCK: usize = 512;
/// The room for a name in a header; longer ones go to an extended header.
const NAME: usize = 100;

/// The archive of `entries`, in their order. All times are the epoch: equal entries, equal bytes.
pub(super) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let link = match &entry.kind {
            Kind::Symlink(target) | Kind::HardLink(target) => target.as_str(),
            _ => "",
        };
        let mut records = String::new();
        for (key, value) in [("path", entry.path.as_str()), ("linkpath", link)] {
            if value.len() > NAME {
                records.push_str(&pax_record(key, value));
            }
        }
        for (name, value) in &entry.xattrs {
            records.push_str(&pax_record(&format!("SCHILY.xattr.{name}"), value));
        }
        if !records.is_empty() {
            out.extend(header(
                &Entry::file("pax", 0o600, Vec::new()),
                "",
                b'x',
                records.len(),
            ));
            pad(&mut out, records.as_bytes());
        }
        let content = match &entry.kind {
            Kind::File(content) => content.as_slice(),
            _ => &[],
        };
        out.extend(header(entry, link, type_flag(&entry.kind), content.len()));
        pad(&mut out, content);
    }
    out.extend([0; 2 * BLOCK]);
    out
}

fn type_flag(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => b'0',
        Kind::HardLink(_) => b'1',
        Kind::Symlink(_) => b'2',
        Kind::CharDevice { .. } => b'3',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

fn header(entry: &Entry, link: &str, flag: u8, size: usize) -> [u8; BLOCK] {
    let (major, minor) = match entry.kind {
        Kind::CharDevice { major, minor } => (major, minor),
        _ => (0, 0),
    };
    let mut block = [0; BLOCK];
    text(&mut block[..NAME], &entry.path);
    octal(&mut block[100..108], entry.mode as usize);
    octal(&mut block[108..116], entry.uid as usize);
    octal(&mut block[116..124], entry.gid as usize);
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], 0);
    block[156] = flag;
    text(&mut block[157..157 + NAME], link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], major as usize);
    octal(&mut block[337..345], minor as usize);
    // The checksum is computed with its own field as spaces.
    block[148..156].fill(b' ');
    let sum = block.iter().map(|byte| usize::from(*byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

fn text(field: &mut [u8], value: &str) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value.as_bytes()[..length]);
}

/// As many octal digits as fit before the closing NUL.
fn octal(field: &mut [u8], value: usize) {
    let digits = field.len() - 1;
    let written = format!("{value:0digits$o}");
    field[..digits].copy_from_slice(&written.as_bytes()[written.len() - digits..]);
    field[digits] = 0;
}

/// `length key=value\n`, where the length counts itself.
fn pax_record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

fn pad(out: &mut Vec<u8>, content: &[u8]) {
    out.extend(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn pax_lengths_count_themselves() {
        for (key, length, expected) in [("a", 1, 6), ("a", 4, 9), ("a", 5, 11), ("path", 101, 111)]
        {
            let record = pax_record(key, &"v".repeat(length));
            assert_eq!(record.len(), expected);
            assert!(record.starts_with(&format!("{expected} ")), "{record}");
        }
    }

    #[test]
    fn tar_lists_what_was_written() {
        let long = format!("{}/file", "d".repeat(120));
        let archive = archive(&[
            Entry::directory("bin", 0o755),
            Entry::file("bin/a", 0o4755, b"content".to_vec()).owned_by(7, 8),
            Entry::hard_link("bin/b", "bin/a"),
            Entry::symlink("c", "bin/b"),
            Entry::file(&long, 0o600, vec![b'x'; 600]),
        ]);
        let mut tar = Command::new("tar")
            .args(["-tv", "--numeric-owner", "--utc", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        let words: Vec<Vec<_>> = listing
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(words[0][..2], ["drwxr-xr-x", "0/0"]);
        assert_eq!(words[1][..3], ["-rwsr-xr-x", "7/8", "7"]);
        assert_eq!(words[2][5..], ["bin/b", "link", "to", "bin/a"]);
        assert_eq!(words[3][5..], ["c", "->", "bin/b"]);
        assert_eq!(words[4][2], "600");
        assert_eq!(words[4][5], long);
    }
}
