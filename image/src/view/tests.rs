//! Layers as directories on disk: whiteouts are devices and opaqueness is a trusted attribute, so
//! these tests need root.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, XattrFlags};

use super::{LayeredView, ViewError};

/// One thing in a layer.
enum Put {
    File(&'static str, &'static str),
    Directory(&'static str),
    Opaque(&'static str),
    Symlink(&'static str, &'static str),
    Whiteout(&'static str),
    Fifo(&'static str),
}

use Put::{Directory, Fifo, File, Opaque, Symlink, Whiteout};

fn put(layer: &Path, what: &Put) {
    let place = |path: &str| -> PathBuf {
        let place = layer.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    };
    let node = |path: &str, kind, mode| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            place(path),
            kind,
            Mode::from_raw_mode(mode),
            0,
        )
        .unwrap();
    };
    match what {
        File(path, content) => fs::write(place(path), content).unwrap(),
        Directory(path) => fs::create_dir_all(place(path)).unwrap(),
        Opaque(path) => {
            fs::create_dir_all(place(path)).unwrap();
            let (name, flags) = ("trusted.overlay.opaque", XattrFlags::empty());
            rustix::fs::setxattr(layer.join(path), name, b"y", flags).unwrap();
        }
        Symlink(path, target) => symlink(target, place(path)).unwrap(),
        Whiteout(path) => node(path, FileType::CharacterDevice, 0),
        Fifo(path) => node(path, FileType::Fifo, 0o600),
    }
}

/// What reading a path gives, in a form that a table can hold.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Content(String),
    Nothing,
    NotAFile,
    Loop,
    TooLarge,
}

fn content(text: &str) -> Seen {
    Seen::Content(text.to_owned())
}

/// Checks what is seen through `layers`, the top one first.
fn check(layers: &[&[Put]], expected: &[(&str, Seen)]) {
    let root = tempfile::tempdir().unwrap();
    // What must not be reached from within.
    fs::write(root.path().join("secret"), "of the host").unwrap();
    let directories: Vec<PathBuf> = (0..layers.len())
        .map(|number| root.path().join(format!("layer-{number}")))
        .collect();
    for (directory, things) in directories.iter().zip(layers) {
        fs::create_dir(directory).unwrap();
        things.iter().for_each(|thing| put(directory, thing));
    }
    let view = LayeredView::of_directories(directories.into_iter()).unwrap();
    for (path, wanted) in expected {
        let seen = match view.read(path, 32) {
            Ok(Some(bytes)) => Seen::Content(String::from_utf8(bytes).unwrap()),
            Ok(None) => Seen::Nothing,
            Err(ViewError::NotAFile { .. }) => Seen::NotAFile,
            Err(ViewError::Loop { .. }) => Seen::Loop,
            Err(ViewError::TooLarge { .. }) => Seen::TooLarge,
            Err(error) => panic!("{path}: {error:?}"),
        };
        assert_eq!(seen, *wanted, "{path}");
    }
}

#[test]
fn the_top_layer_wins_and_directories_merge() {
    check(
        &[
            &[
                File("etc/passwd", "top"),
                File("file", "top"),
                Directory("dir"),
            ],
            &[
                File("etc/passwd", "bottom"),
                File("etc/group", "bottom"),
                File("file/below", "hidden by a file"),
                File("dir", "hidden by a directory"),
            ],
        ],
        &[
            ("/etc/passwd", content("top")),
            ("etc//./group", content("bottom")),
            ("/etc/shadow", Seen::Nothing),
            ("/file/below", Seen::Nothing),
            ("/dir", Seen::NotAFile),
            ("/etc", Seen::NotAFile),
            ("/", Seen::NotAFile),
            ("", Seen::NotAFile),
        ],
    );
}

#[test]
fn whiteouts_hide_what_is_below_and_not_what_is_above() {
    check(
        &[
            &[File("back/new", "top")],
            &[
                Whiteout("gone"),
                Whiteout("tree"),
                Whiteout("back"),
                Whiteout("etc/passwd"),
            ],
            &[
                File("gone", "bottom"),
                File("tree/deep/file", "bottom"),
                File("back/old", "bottom"),
                File("etc/passwd", "bottom"),
                File("etc/group", "bottom"),
            ],
        ],
        &[
            ("/gone", Seen::Nothing),
            ("/tree/deep/file", Seen::Nothing),
            ("/back/new", content("top")),
            ("/back/old", Seen::Nothing),
            ("/etc/passwd", Seen::Nothing),
            ("/etc/group", content("bottom")),
        ],
    );
}

#[test]
fn a_file_between_two_directories_parts_them() {
    check(
        &[
            &[Directory("d")],
            &[File("d", "middle")],
            &[File("d/f", "bottom")],
        ],
        &[("/d/f", Seen::Nothing), ("/d", Seen::NotAFile)],
    );
}

#[test]
fn opaque_directories_hide_what_is_below() {
    check(
        &[
            &[File("d/top", "top")],
            &[Opaque("d"), File("d/middle", "middle"), Directory("d/sub")],
            &[File("d/bottom", "bottom"), File("d/sub/bottom", "bottom")],
        ],
        &[
            ("/d/top", content("top")),
            ("/d/middle", content("middle")),
            ("/d/bottom", Seen::Nothing),
            ("/d/sub/bottom", Seen::Nothing),
        ],
    );
}

#[test]
fn symlinks_cross_layers_and_end_at_the_root() {
    check(
        &[
            &[
                Symlink("absolute", "/etc/passwd"),
                Symlink("relative", "etc/../etc/./passwd"),
                Symlink("above", "../../../../../secret"),
                Symlink("host", "../secret"),
                Symlink("etc/up", "../f"),
                Symlink("to-directory", "a/b"),
                Symlink("dangling", "/nowhere"),
                Symlink("through-file", "f/x"),
            ],
            &[
                File("etc/passwd", "bottom"),
                File("f", "bottom"),
                File("a/f", "beside b"),
                Directory("a/b"),
                Symlink("lower", "/absolute"),
            ],
        ],
        &[
            ("/absolute", content("bottom")),
            ("/relative", content("bottom")),
            ("/lower", content("bottom")),
            ("/etc/up", content("bottom")),
            // `..` is resolved after the symlink, as the kernel does.
            ("/to-directory/../f", content("beside b")),
            ("/to-directory", Seen::NotAFile),
            ("/above", Seen::Nothing),
            ("/host", Seen::Nothing),
            ("/../../secret", Seen::Nothing),
            ("../../../etc/passwd", content("bottom")),
            ("/dangling", Seen::Nothing),
            ("/through-file", Seen::Nothing),
            ("/f/..", Seen::Nothing),
        ],
    );
}

#[test]
fn an_upper_directory_replaces_a_lower_symlink() {
    check(
        &[
            &[File("lib/new", "top")],
            &[Symlink("lib", "usr/lib"), File("usr/lib/old", "bottom")],
        ],
        &[
            ("/lib/new", content("top")),
            ("/lib/old", Seen::Nothing),
            ("/usr/lib/old", content("bottom")),
        ],
    );
}

#[test]
fn loops_and_endless_paths_end() {
    let long = "a/../".repeat(600) + "f";
    check(
        &[&[
            Symlink("self", "self"),
            Symlink("one", "two"),
            Symlink("two", "/one"),
            Symlink("grows", "grows/grows"),
            File("f", "content"),
            Directory("a"),
        ]],
        &[
            ("/self", Seen::Loop),
            ("/one", Seen::Loop),
            ("/grows", Seen::Loop),
            (&long, Seen::Loop),
            ("/a/../f", content("content")),
        ],
    );
}

#[test]
fn only_regular_files_within_the_bound_are_read() {
    let name = "n".repeat(300);
    check(
        &[&[
            Fifo("pipe"),
            File("exact", "0123456789abcdef0123456789abcdef"),
            File("large", "0123456789abcdef0123456789abcdef!"),
            File("empty", ""),
        ]],
        &[
            ("/pipe", Seen::NotAFile),
            ("/exact", content("0123456789abcdef0123456789abcdef")),
            ("/large", Seen::TooLarge),
            ("/empty", content("")),
            (&name, Seen::Nothing),
        ],
    );
}
