//! Names in a layer: made plain, and read for OCI's whiteouts (image-spec layer.md).

/// Longest path, bytes (`PATH_MAX` of limits.h counts the closing zero).
const MAX_PATH: usize = 4095;

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// `..` leads above the layer's root.
    #[error("it leaves the layer by ..")]
    Leaves,
    /// Longer than the system takes.
    #[error("it is longer than 4095 bytes")]
    TooLong,
    /// A zero byte in the name.
    #[error("it has a zero byte in it")]
    Zero,
    /// `.wh.` with nothing, `.` or `..` behind it.
    #[error("it is a whiteout that names no file")]
    Whiteout,
    /// Something inside a directory whose name is a whiteout's.
    #[error("it lies in a directory that is a whiteout")]
    InWhiteout,
}

/// A relative path of plain components: no `.`, no `..`, no empty one. Empty is the layer's root.
pub(super) fn normalise(raw: &[u8]) -> Result<Vec<u8>, PathProblem> {
    if raw.contains(&0) {
        return Err(PathProblem::Zero);
    }
    let mut plain: Vec<u8> = Vec::with_capacity(raw.len());
    for component in raw.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." if plain.is_empty() => return Err(PathProblem::Leaves),
            b".." => plain.truncate(plain.iter().rposition(|&b| b == b'/').unwrap_or(0)),
            name => {
                if !plain.is_empty() {
                    plain.push(b'/');
                }
                plain.extend_from_slice(name);
            }
        }
    }
    if plain.len() > MAX_PATH {
        Err(PathProblem::TooLong)
    } else {
        Ok(plain)
    }
}

/// Splits a plain path into its directory and its last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// What a name means in a layer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// A file of the layer.
    Entry,
    /// Hides this name of the layers below, in the entry's directory.
    Hides(&'a [u8]),
    /// Hides all that the layers below have in the entry's directory.
    Opaque,
    /// aufs' own bookkeeping, which is skipped as the peers do.
    Aufs,
}

/// Reads a plain path.
pub(super) fn meaning(path: &[u8]) -> Result<Meaning<'_>, PathProblem> {
    let (directory, name) = split(path);
    for component in directory.split(|&b| b == b'/') {
        if component.starts_with(b".wh..wh.") {
            return Ok(Meaning::Aufs);
        }
        if component.starts_with(b".wh.") {
            return Err(PathProblem::InWhiteout);
        }
    }
    match name.strip_prefix(b".wh.") {
        None => Ok(Meaning::Entry),
        Some(b"" | b"." | b"..") => Err(PathProblem::Whiteout),
        Some(b".wh..opq") => Ok(Meaning::Opaque),
        Some(hidden) if hidden.starts_with(b".wh.") => Ok(Meaning::Aufs),
        Some(hidden) => Ok(Meaning::Hides(hidden)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_made_plain() {
        for (raw, plain) in [
            ("a/b", Ok("a/b")),
            ("./a//b/", Ok("a/b")),
            ("/etc/passwd", Ok("etc/passwd")),
            ("", Ok("")),
            ("./", Ok("")),
            ("a/../b", Ok("b")),
            ("a/b/../c", Ok("a/c")),
            ("..", Err(PathProblem::Leaves)),
            ("a/../../b", Err(PathProblem::Leaves)),
            ("/../etc", Err(PathProblem::Leaves)),
            ("a\0b", Err(PathProblem::Zero)),
        ] {
            assert_eq!(
                normalise(raw.as_bytes()),
                plain.map(|p: &str| p.as_bytes().to_vec()),
                "{raw:?}"
            );
        }
        assert_eq!(normalise(&[b'a'; 4096]), Err(PathProblem::TooLong));
        assert_eq!(normalise(b"\xff\xfe"), Ok(b"\xff\xfe".to_vec()));
    }

    #[test]
    fn whiteouts() {
        for (path, read) in [
            ("a/b", Ok(Meaning::Entry)),
            ("a/.wh.b", Ok(Meaning::Hides(b"b"))),
            (".wh.b", Ok(Meaning::Hides(b"b"))),
            ("a/.wh..wh..opq", Ok(Meaning::Opaque)),
            (".wh..wh.plnk", Ok(Meaning::Aufs)),
            (".wh..wh.plnk/1.2", Ok(Meaning::Aufs)),
            ("a/.wh.", Err(PathProblem::Whiteout)),
            ("a/.wh..", Err(PathProblem::Whiteout)),
            ("a/.wh...", Err(PathProblem::Whiteout)),
            (".wh.a/b", Err(PathProblem::InWhiteout)),
            ("a.wh.b", Ok(Meaning::Entry)),
        ] {
            assert_eq!(meaning(path.as_bytes()), read, "{path}");
        }
    }

    proptest! {
        #[test]
        fn plain_paths_hold_no_surprise(raw in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..64)) {
            if let Ok(plain) = normalise(&raw) {
                prop_assert!(plain.is_empty() || plain.split(|&b| b == b'/').all(|c| !matches!(c, b"" | b"." | b"..")));
                prop_assert_eq!(normalise(&plain).unwrap(), plain.clone());
                let _ = meaning(&plain);
            }
        }
    }
}
