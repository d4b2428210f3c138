//! Archives in cpio's "newc" format, which the kernel unpacks as the initial root; see the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

/// Every header and every content begins at a multiple of this.
const ALIGNMENT: usize = 4;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// An archive that grows. Everything in it is root's.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    /// Adds a directory; its parent has to be there.
    pub(super) fn directory(&mut self, path: &str) {
        self.member(path, DIRECTORY | 0o755, &[]);
    }

    /// Adds a regular file that may be executed.
    pub(super) fn program(&mut self, path: &str, content: &[u8]) {
        self.member(path, REGULAR | 0o755, content);
    }

    /// Adds a regular file.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.member(path, REGULAR | 0o644, content);
    }

    /// The archive's bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.member("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn member(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.inodes += 1;
        let fields = [
            self.inodes,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time of modification
            u32::try_from(content.len()).unwrap_or(u32::MAX),
            0, // device of the file system, major and minor
            0,
            0, // device that the file is, major and minor
            0,
            u32::try_from(path.len() + 1).unwrap_or(u32::MAX),
            0, // checksum, which this format does not use
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        let aligned = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(aligned, 0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Name, mode and content of each member, read as the kernel's `init/initramfs.c` does.
    fn members(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let (mut at, mut found) = (0, Vec::new());
        loop {
            assert_eq!(&archive[at..at + 6], b"070701");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                let digits = std::str::from_utf8(&archive[start..start + 8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = &archive[at + 110..at + 110 + name_size];
            assert_eq!(name.last(), Some(&0));
            let name = String::from_utf8(name[..name_size - 1].to_vec()).unwrap();
            let content = (at + 110 + name_size).next_multiple_of(ALIGNMENT);
            at = (content + size).next_multiple_of(ALIGNMENT);
            if name == "TRAILER!!!" {
                assert_eq!(at, archive.len());
                return found;
            }
            found.push((name, mode, archive[content..content + size].to_vec()));
        }
    }

    #[test]
    fn members_are_where_the_kernel_looks_for_them() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.program("bin/a", b"12345");
        archive.file("bin/long-name", b"");
        let expected = [
            ("bin".to_owned(), 0o040_755, Vec::new()),
            ("bin/a".to_owned(), 0o100_755, b"12345".to_vec()),
            ("bin/long-name".to_owned(), 0o100_644, Vec::new()),
        ];
        assert_eq!(members(&archive.finish()), expected);
    }
}
