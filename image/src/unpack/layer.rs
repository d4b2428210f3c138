//! One layer, from the pipe to a verified directory.

use std::os::fd::BorrowedFd;

use super::error::{UnpackError, shown};
use super::path::{Meaning, meaning, normalise};
use super::stream::{Pipe, Unpacked};
use super::tar::{Archive, Header, Kind, TarError};
use super::tree::{Tree, Usage};
use crate::digest::Digest;
use crate::manifest::Compression;

/// Most entries of one layer.
const MAX_ENTRIES: u64 = 8 << 20;

/// What the manifest and the configuration promise of a layer.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) diff_id: Digest,
    pub(crate) compression: Compression,
}

/// What a layer may need at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of the archive after decompression.
    pub(crate) unpacked_bytes: u64,
}

/// Unpacks into `root`, a fresh directory that nobody else reaches, and verifies sizes and digests.
/// Directories that an entry of the same layer replaces are moved to `trash`.
///
/// Blocks; call it where that is allowed. After an error the caller removes `root`.
pub(crate) fn unpack_layer(
    pipe: Pipe,
    expected: &Expected,
    limits: Limits,
    root: BorrowedFd<'_>,
    trash: BorrowedFd<'_>,
) -> Result<Usage, UnpackError> {
    let unpacked = Unpacked::new(expected.compression, pipe, limits.unpacked_bytes)
        .map_err(UnpackError::Stream)?;
    let mut archive = Archive::new(unpacked);
    let result = unpack_archive(&mut archive, root, trash);
    let mut unpacked = archive.into_inner();
    let result = result.and_then(|usage| {
        unpacked
            .drain()
            .map(|()| usage)
            .map_err(UnpackError::Stream)
    });
    let usage = match result {
        Ok(usage) => usage,
        Err(_) if unpacked.is_too_large() => {
            return Err(UnpackError::TooLarge {
                most: limits.unpacked_bytes,
            });
        }
        // A stream that is not the promised one explains everything that went wrong after it.
        Err(error @ (UnpackError::Stream(_) | UnpackError::Tar { .. }))
            if unpacked.received() >= expected.size =>
        {
            let (_, pipe) = unpacked.finish();
            verify_stream(pipe, expected)?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let (diff_id, pipe) = unpacked.finish();
    verify_stream(pipe, expected)?;
    if diff_id != expected.diff_id {
        return Err(UnpackError::DiffIdMismatch {
            expected: expected.diff_id,
            found: diff_id,
        });
    }
    Ok(usage)
}

fn verify_stream(pipe: Pipe, expected: &Expected) -> Result<(), UnpackError> {
    let (digest, size) = pipe.finish();
    if size != expected.size {
        return Err(UnpackError::SizeMismatch {
            expected: expected.size,
            found: size,
        });
    }
    if digest != expected.digest {
        return Err(UnpackError::DigestMismatch {
            expected: expected.digest,
            found: digest,
        });
    }
    Ok(())
}

fn unpack_archive(
    archive: &mut Archive<Unpacked>,
    root: BorrowedFd<'_>,
    trash: BorrowedFd<'_>,
) -> Result<Usage, UnpackError> {
    let mut tree = Tree::new(root, trash)?;
    let mut entries = 0;
    while let Some(header) = archive
        .next_entry()
        .map_err(|source| tar_error(entries, source))?
    {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(UnpackError::TooMany {
                what: "entries",
                most: MAX_ENTRIES,
            });
        }
        unpack_entry(archive, &mut tree, &header, entries)?;
    }
    tree.finish()
}

fn tar_error(entries: u64, source: TarError) -> UnpackError {
    match source {
        TarError::Io(source) => UnpackError::Stream(source),
        source => UnpackError::Tar { entries, source },
    }
}

fn unpack_entry(
    archive: &mut Archive<Unpacked>,
    tree: &mut Tree<'_>,
    header: &Header,
    entries: u64,
) -> Result<(), UnpackError> {
    let refused = |source| UnpackError::Path {
        entry: shown(&header.path),
        source,
    };
    let path = normalise(&header.path).map_err(refused)?;
    match meaning(&path).map_err(refused)? {
        Meaning::Aufs => return Ok(()),
        Meaning::Opaque => return tree.make_opaque(&path),
        Meaning::Hides(name) => return tree.hide(&path, name),
        Meaning::Entry => {}
    }
    if let Some((name, _)) = header
        .xattrs
        .iter()
        .find(|(name, _)| name.starts_with(b"trusted.overlay."))
    {
        return Err(UnpackError::Attribute {
            entry: shown(&path),
            attribute: shown(name),
        });
    }
    match &header.kind {
        Kind::Directory => tree.directory(&path, header),
        _ if path.is_empty() => Err(UnpackError::Parent {
            entry: shown(&header.path),
            parent: "/".to_owned(),
        }),
        Kind::File => {
            let file = tree.create_file(&path)?;
            while archive.remaining() > 0 {
                let piece = archive
                    .body()
                    .map_err(|source| tar_error(entries, source))?;
                let written = rustix::io::write(&file, piece)
                    .map_err(|errno| UnpackError::io("write", &path, errno))?;
                archive.consume(written);
                tree.count_bytes(written as u64);
            }
            tree.finish_file(&file, &path, header)
        }
        Kind::HardLink { target } => {
            let target_path = normalise(target).map_err(|source| UnpackError::Path {
                entry: shown(target),
                source,
            })?;
            tree.hard_link(&path, &target_path)
        }
        Kind::Symlink { target } => tree.symlink(&path, target, header),
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => {
            tree.special(&path, header)
        }
    }
}
