//! Archives that want out, or that want too much.

use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use bytes::Bytes;

use super::{chain, gzip};
use crate::digest::Digest;
use crate::manifest::Compression;
use crate::unpack::testtar::Tar;
use crate::unpack::{Expected, Limits, Pipe, UnpackError, Usage, unpack_layer};

struct Unpacked {
    dir: tempfile::TempDir,
    result: Result<Usage, UnpackError>,
}

impl Unpacked {
    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("a/layer")
    }

    fn stat(&self, path: &str) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.root().join(path)).unwrap()
    }
}

/// Unpacks into a directory whose neighbours must stay as they are.
fn unpack_stream(stream: Vec<u8>, archive: &[u8], compression: Compression, most: u64) -> Unpacked {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("a/layer")).unwrap();
    std::fs::create_dir_all(dir.path().join("trash")).unwrap();
    std::fs::write(dir.path().join("a/victim"), "safe").unwrap();
    let open = |name: &str| std::fs::File::open(dir.path().join(name)).unwrap();
    let expected = Expected {
        digest: Digest::of(&stream),
        size: stream.len() as u64,
        diff_id: Digest::of(archive),
        compression,
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let feeder = std::thread::spawn(move || {
        for piece in stream.chunks(1000) {
            if sender.blocking_send(Bytes::copy_from_slice(piece)).is_err() {
                break;
            }
        }
    });
    let limits = Limits {
        unpacked_bytes: most,
    };
    let result = unpack_layer(
        Pipe::new(receiver),
        &expected,
        limits,
        open("a/layer").as_fd(),
        open("trash").as_fd(),
    );
    feeder.join().unwrap();
    let names = |path: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(dir.path()), ["a", "trash"]);
    assert_eq!(names(&dir.path().join("a")), ["layer", "victim"]);
    assert_eq!(
        std::fs::read_to_string(dir.path().join("a/victim")).unwrap(),
        "safe"
    );
    assert_eq!(
        std::fs::metadata(dir.path().join("a/victim"))
            .unwrap()
            .nlink(),
        1
    );
    Unpacked { dir, result }
}

fn unpack(archive: Vec<u8>) -> Unpacked {
    unpack_stream(archive.clone(), &archive, Compression::None, 1 << 30)
}

#[test]
fn refused_with_a_reason() {
    let long = vec![b'n'; 5000];
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "dotdot",
            Tar::new().file("../victim", b"x").end(),
            "leaves the layer by ..",
        ),
        (
            "deep dotdot",
            Tar::new().file("a/../../victim", b"x").end(),
            "leaves the layer by ..",
        ),
        (
            "link out",
            Tar::new().hardlink("l", "../victim").end(),
            "leaves the layer by ..",
        ),
        (
            "link to nothing",
            Tar::new().hardlink("l", "none").end(),
            "no such file in this layer",
        ),
        (
            "link to a directory",
            Tar::new().dir("d", 0o755).hardlink("l", "d").end(),
            "it is a directory",
        ),
        (
            "link through a symlink out",
            Tar::new()
                .symlink("s", "..")
                .hardlink("l", "s/victim")
                .end(),
            "no such file",
        ),
        (
            "file as parent",
            Tar::new().file("f", b"").file("f/g", b"").end(),
            "needs \"f\" to be a directory",
        ),
        (
            "dangling parent",
            Tar::new().symlink("s", "../../none").file("s/g", b"").end(),
            "needs \"s\" to be a directory",
        ),
        (
            "loop as parent",
            Tar::new().symlink("s", "s").file("s/g", b"").end(),
            "needs \"s\" to be a directory",
        ),
        (
            "whiteout of dotdot",
            Tar::new().file("d/.wh...", b"").end(),
            "names no file",
        ),
        (
            "whiteout of nothing",
            Tar::new().file(".wh.", b"").end(),
            "names no file",
        ),
        (
            "long path",
            Tar::new().pax(&[("path", &long)]).file("x", b"").end(),
            "longer than 4095",
        ),
        (
            "overlay attribute",
            Tar::new()
                .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/x")])
                .dir("d", 0o755)
                .end(),
            "belongs to overlayfs",
        ),
        (
            "huge uid",
            Tar::new()
                .pax(&[("uid", b"4294967295")])
                .file("x", b"")
                .end(),
            "uid is no number that fits",
        ),
        (
            "sparse",
            Tar::new()
                .pax(&[("GNU.sparse.major", b"1")])
                .file("x", b"")
                .end(),
            "sparse",
        ),
        (
            "giant pax",
            Tar::new().raw_header(b'x', "p", 5 << 30).end(),
            "at most 1048576",
        ),
        (
            "truncated",
            Tar::new().raw_header(b'0', "f", 4096).cut(),
            "ends within a file",
        ),
        ("no tar", vec![b'?'; 2048], "checksum"),
        (
            "root as a file",
            Tar::new().file("./", b"").symlink(".", "x").end(),
            "to be a directory",
        ),
    ];
    for (name, archive, part) in cases {
        let error = chain(&unpack(archive).result.expect_err(name));
        assert!(error.contains(part), "{name}: {error}");
    }
}

#[test]
fn contained() {
    // A symlink that leads out leads to the layer's root, as in a container.
    let out = unpack(
        Tar::new()
            .symlink("s", "../..")
            .file("s/victim", b"evil")
            .end(),
    );
    out.result.as_ref().unwrap();
    assert_eq!(std::fs::read(out.root().join("victim")).unwrap(), b"evil");
    let absolute = unpack(
        Tar::new()
            .dir("t", 0o755)
            .symlink("s", "/t")
            .file("s/f", b"1")
            .file("/abs", b"2")
            .end(),
    );
    assert_eq!(std::fs::read(absolute.root().join("t/f")).unwrap(), b"1");
    assert_eq!(std::fs::read(absolute.root().join("abs")).unwrap(), b"2");
    // A file of a symlink's name replaces the symlink, not what it leads to.
    let replaced = unpack(
        Tar::new()
            .symlink("s", "../victim")
            .file("s", b"evil")
            .end(),
    );
    assert!(replaced.stat("s").is_file());
    // A hard link to a symlink is a link to the symlink.
    let linked = unpack(
        Tar::new()
            .symlink("s", "../victim")
            .hardlink("h", "s")
            .file("h", b"evil")
            .end(),
    );
    assert!(linked.stat("s").is_symlink() && linked.stat("h").is_file());
    // A directory's descriptor kept from before is not used once the directory left.
    let moved = unpack(
        Tar::new()
            .file("d/e/f", b"1")
            .symlink("d", "../..")
            .file("d/e/f", b"2")
            .end(),
    );
    assert_eq!(std::fs::read(moved.root().join("e/f")).unwrap(), b"2");
}

#[test]
fn last_entry_wins() {
    let unpacked = unpack(
        Tar::new()
            .file("a", b"1")
            .file("a", b"2")
            .dir("b", 0o755)
            .file("b/x", b"")
            .file("b", b"3")
            .file("c", b"")
            .dir("c", 0o700)
            .hardlink("a", "a")
            .end(),
    );
    unpacked.result.as_ref().unwrap();
    assert_eq!(std::fs::read(unpacked.root().join("a")).unwrap(), b"2");
    assert_eq!(std::fs::read(unpacked.root().join("b")).unwrap(), b"3");
    assert!(unpacked.stat("c").is_dir());
}

#[test]
fn whiteouts_become_overlayfs_own() {
    let unpacked = unpack(
        Tar::new()
            .file("d/.wh.gone", b"")
            .file("o/.wh..wh..opq", b"")
            .file(".wh..wh.plnk/1.2", b"aufs")
            .file(".wh.both", b"")
            .file("both/new", b"")
            .file("late/new", b"")
            .file(".wh.late", b"")
            .end(),
    );
    // `both/new` needs the directory that the whiteout hides: the archive is refused, not misread.
    assert!(chain(unpacked.result.as_ref().unwrap_err()).contains("both"));
    let unpacked = unpack(
        Tar::new()
            .file("d/.wh.gone", b"")
            .file("o/.wh..wh..opq", b"")
            .file(".wh..wh.plnk/1.2", b"aufs")
            .file(".wh.both", b"")
            .dir("both", 0o755)
            .file("both/new", b"")
            .file("late/new", b"")
            .file(".wh.late", b"")
            .end(),
    );
    unpacked.result.as_ref().unwrap();
    let gone = unpacked.stat("d/gone");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let opaque = |path: &str| {
        let mut value = [0u8; 4];
        rustix::fs::lgetxattr(
            unpacked.root().join(path),
            "trusted.overlay.opaque",
            &mut value,
        )
        .is_ok_and(|n| &value[..n] == b"y")
    };
    assert!(opaque("o") && opaque("both") && opaque("late") && !opaque("d"));
    assert!(!unpacked.root().join(".wh..wh.plnk").exists());
}

#[test]
fn metadata_is_kept() {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let unpacked = unpack(
        Tar::new()
            .pax(&[
                ("mtime", b"1700000000.123456789"),
                ("uid", b"70000"),
                ("gid", b"80000"),
            ])
            .dir("d", 0o1777)
            .pax(&[
                ("mtime", b"1600000000.5"),
                ("uid", b"1000"),
                ("SCHILY.xattr.security.capability", capability),
            ])
            .file_mode(b"d/suid", 0o4755, b"x")
            .device(b'3', "null", (1, 3))
            .device(b'6', "fifo", (0, 0))
            .pax(&[("path", b"d/\xff\xfe")])
            .file("x", b"bytes")
            .end(),
    );
    let usage = *unpacked.result.as_ref().unwrap();
    assert_eq!(usage.inodes, 6);
    let d = unpacked.stat("d");
    assert_eq!(
        (
            d.uid(),
            d.gid(),
            d.mode() & 0o7777,
            d.mtime(),
            d.mtime_nsec()
        ),
        (70000, 80000, 0o1777, 1_700_000_000, 123_456_789)
    );
    let suid = unpacked.stat("d/suid");
    assert_eq!(
        (
            suid.uid(),
            suid.permissions().mode() & 0o7777,
            suid.mtime_nsec()
        ),
        (1000, 0o4755, 500_000_000)
    );
    let mut value = [0u8; 64];
    assert_eq!(
        rustix::fs::lgetxattr(
            unpacked.root().join("d/suid"),
            "security.capability",
            &mut value
        ),
        Ok(capability.len())
    );
    let null = unpacked.stat("null");
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    assert!(unpacked.stat("fifo").file_type().is_fifo());
    let bytes = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"d/\xff\xfe");
    assert_eq!(
        std::fs::read(unpacked.root().join(bytes)).unwrap(),
        b"bytes"
    );
}

#[test]
fn streams_are_verified_and_bounded() {
    let archive = Tar::new().file("f", &vec![0; 4 << 20]).end();
    let bomb = unpack_stream(gzip(&archive), &archive, Compression::Gzip, 1 << 20);
    assert!(matches!(bomb.result, Err(UnpackError::TooLarge { most }) if most == 1 << 20));
    let (first, second) = archive.split_at(archive.len() / 2);
    let members = [gzip(first), gzip(second)].concat();
    unpack_stream(members, &archive, Compression::Gzip, 1 << 30)
        .result
        .unwrap();
    let frames = [
        zstd::encode_all(first, 1).unwrap(),
        zstd::encode_all(second, 1).unwrap(),
    ]
    .concat();
    unpack_stream(frames, &archive, Compression::Zstd, 1 << 30)
        .result
        .unwrap();
    let other = unpack_stream(
        gzip(&archive),
        b"another archive",
        Compression::Gzip,
        1 << 30,
    );
    assert!(matches!(
        other.result,
        Err(UnpackError::DiffIdMismatch { .. })
    ));
    let broken = unpack_stream(vec![7; 100], &archive, Compression::Gzip, 1 << 30);
    assert!(matches!(broken.result, Err(UnpackError::Stream(_))));
}
