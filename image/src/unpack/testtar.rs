//! Writes tar archives for tests, broken ones too.

/// An archive in the making.
#[derive(Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar::default()
    }

    pub(crate) fn file(self, name: &str, body: &[u8]) -> Tar {
        self.file_mode(name.as_bytes(), 0o644, body)
    }

    pub(crate) fn file_mode(mut self, name: &[u8], mode: u32, body: &[u8]) -> Tar {
        self.header(b'0', name, b"", mode, body.len() as u64, (0, 0));
        self.body(body);
        self
    }

    pub(crate) fn dir(mut self, name: &str, mode: u32) -> Tar {
        self.header(b'5', name.as_bytes(), b"", mode, 0, (0, 0));
        self
    }

    pub(crate) fn symlink(mut self, name: &str, target: &str) -> Tar {
        self.header(b'2', name.as_bytes(), target.as_bytes(), 0o777, 0, (0, 0));
        self
    }

    pub(crate) fn hardlink(mut self, name: &str, target: &str) -> Tar {
        self.header(b'1', name.as_bytes(), target.as_bytes(), 0o644, 0, (0, 0));
        self
    }

    pub(crate) fn device(mut self, kind: u8, name: &str, device: (u32, u32)) -> Tar {
        self.header(kind, name.as_bytes(), b"", 0o600, 0, device);
        self
    }

    pub(crate) fn raw_header(mut self, kind: u8, name: &str, size: u64) -> Tar {
        self.header(kind, name.as_bytes(), b"", 0o644, size, (0, 0));
        self
    }

    /// A PAX header for the next entry.
    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Tar {
        let mut body = Vec::new();
        for (key, value) in records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.header(b'x', b"pax", b"", 0o644, body.len() as u64, (0, 0));
        self.body(&body);
        self
    }

    /// A file named by GNU's long name header.
    pub(crate) fn gnu_long(mut self, name: &str) -> Tar {
        self.header(
            b'L',
            b"././@LongLink",
            b"",
            0o644,
            name.len() as u64 + 1,
            (0, 0),
        );
        self.body(&[name.as_bytes(), b"\0"].concat());
        self.file("cut", b"")
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    /// Without the closing blocks.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn fix_checksum(block: &mut [u8]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    fn body(&mut self, body: &[u8]) {
        self.bytes.extend_from_slice(body);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
    }

    fn header(
        &mut self,
        kind: u8,
        name: &[u8],
        link: &[u8],
        mode: u32,
        size: u64,
        device: (u32, u32),
    ) {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &name[..name.len().min(100)]);
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000001750");
        put(156, &[kind]);
        put(157, &link[..link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", device.0).as_bytes());
        put(337, format!("{:07o}", device.1).as_bytes());
        Tar::fix_checksum(&mut block);
        self.bytes.extend_from_slice(&block);
    }
}
