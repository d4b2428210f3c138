//! Reading attributes (`struct nlattr`: u16 length with header, u16 type, payload padded to four bytes).

/// The two high bits of an attribute's type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// Iterates over a run of attributes. It ends at the first one that does not fit in the bytes,
/// as the kernel's own `nla_for_each_attr` does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The payload of the first attribute of this type.
    pub(crate) fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find_map(|(found, payload)| (found == kind).then_some(payload))
    }

    /// The attributes nested in the first attribute of this type; none when it is absent.
    pub(crate) fn nested(self, kind: u16) -> Self {
        Self::new(self.find(kind).unwrap_or_default())
    }

    /// The first attribute of this type as text without its closing zero.
    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.find(kind)?;
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.rest.first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let payload = self.rest.get(HEADER..length)?;
        let next = length.next_multiple_of(4).min(self.rest.len());
        self.rest = &self.rest[next..];
        Some((kind, payload))
    }
}

/// A native-endian u32 at the start of `bytes`.
pub(crate) fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

/// A native-endian u64 at the start of `bytes`.
pub(crate) fn read_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_padded_nested_and_flagged_attributes() {
        let bytes = [
            7, 0, 3, 0, b'l', b'o', 0, 0xff, // text, one byte of padding
            12, 0, 18, 0x80, 8, 0, 1, 0, 4, 0, 0, 0, // nested, holding a u32
        ];
        let attributes = Attributes::new(&bytes);
        assert_eq!(attributes.text(3), Some("lo"));
        assert_eq!(attributes.nested(18).find(1).and_then(read_u32), Some(4));
        assert_eq!(attributes.find(4), None);
        assert_eq!(attributes.count(), 2);
    }

    #[test]
    fn stops_at_lengths_that_do_not_fit() {
        for bytes in [
            &[3, 0, 1, 0][..],
            &[0, 0, 1, 0],
            &[9, 0, 1, 0, 1, 2, 3, 4],
            &[8, 0, 1],
        ] {
            assert_eq!(Attributes::new(bytes).count(), 0, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), kind in 0u16..64) {
            let attributes = Attributes::new(&bytes);
            prop_assert!(attributes.count() <= bytes.len() / HEADER + 1);
            let _ = attributes.text(kind);
            let _ = attributes.nested(kind).count();
        }
    }
}
