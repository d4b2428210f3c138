//! The images that are pulled and removed: the same ones in every boot.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use podwright_integration::{
    images::{BUSYBOX, Compression, Entry, Image, Kind, Layer, Vocabulary, sha256},
    random::Random,
    registry::Registry,
};
use serde_json::{Value, json};

/// The image of all pods, which is never removed.
pub(crate) const POD_IMAGE: usize = 0;
/// Images beside it.
const IMAGES: usize = 8;
/// Layers that several images begin with.
const BASES: usize = 2;
/// A layer's directories have as many files each, the last of which fill several blocks.
const DIRECTORIES: usize = 6;
const SIZES: [usize; 6] = [0, 17, 600, 4096, 9000, 66_000];
/// What files are filled with: so many bytes from somewhere in twice as many.
const NOISE: usize = 4096;
/// Digits of a layer's directory: the layout of the store on disk.
const SHORT: usize = 16;

/// What the machine has of busybox; a container finds it at the same paths.
const SHELL: &[&str] = &[
    "lib64/ld-linux-x86-64.so.2",
    "lib/x86_64-linux-gnu/libc.so.6",
    "lib/x86_64-linux-gnu/libresolv.so.2",
];
const APPLETS: &[&str] = &["sh", "sleep", "echo", "true"];

/// An image, and what of it is on the disk when it is whole.
#[derive(Debug)]
pub(crate) struct TestImage {
    pub(crate) reference: String,
    /// Each layer with the name of its directory, lowest first.
    pub(crate) layers: Vec<(String, Layer)>,
}

/// Makes all images, and puts them into the registry.
pub(crate) fn serve(registry: &Registry) -> Result<Vec<TestImage>> {
    let bases: Vec<_> = (0..BASES).map(|base| layer(1000 + base as u64)).collect();
    let mut images = vec![(
        BUSYBOX.to_owned(),
        shell().context("making the pods' image")?,
    )];
    for image in 1..=IMAGES {
        let mut layers = vec![bases[image % BASES].clone()];
        let own = 1 + image % 3;
        layers.extend((0..own).map(|number| layer((image * 10 + number) as u64)));
        images.push((format!("docker.io/test/image-{image}:1"), layers));
    }
    let images = images.into_iter().map(|(reference, layers)| {
        let compressions = COMPRESSIONS.into_iter().cycle();
        let packed: Vec<_> = layers.into_iter().zip(compressions).collect();
        let image = Image::new(Vocabulary::Oci, &packed, &json!({ "Cmd": ["sh"] }))?;
        registry.add(&reference, &image)?;
        let names = directories(&image).context("reading the image that was made")?;
        let layers = packed.into_iter().map(|(layer, _)| layer);
        Ok(TestImage {
            reference,
            layers: names.into_iter().zip(layers).collect(),
        })
    });
    images.collect()
}

/// The names of an image's layers on disk: the beginnings of their chain ids (image-spec config.md).
fn directories(image: &Image) -> Option<Vec<String>> {
    let json =
        |digest: &str| -> Option<Value> { serde_json::from_slice(image.blobs.get(digest)?).ok() };
    let manifest = json(image.digest())?;
    let config = json(manifest["config"]["digest"].as_str()?)?;
    let mut chain: Option<String> = None;
    let diff_ids = config["rootfs"]["diff_ids"].as_array()?.iter();
    diff_ids
        .map(|diff_id| {
            let diff_id = diff_id.as_str()?;
            let next = match &chain {
                None => diff_id.to_owned(),
                Some(below) => sha256(format!("{below} {diff_id}").as_bytes()),
            };
            let short = next.strip_prefix("sha256:")?.get(..SHORT)?.to_owned();
            chain = Some(next);
            Some(short)
        })
        .collect()
}

/// Two layers: libraries, and the shell.
fn shell() -> Result<Vec<Layer>> {
    let read = |path: &str| {
        let path = Path::new("/").join(path);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    let mut libraries = vec![
        Entry::directory("lib64", 0o755),
        Entry::directory("lib", 0o755),
        Entry::directory("lib/x86_64-linux-gnu", 0o755),
    ];
    for path in SHELL {
        libraries.push(Entry::file(path, 0o755, read(path)?));
    }
    let mut programs = vec![
        Entry::directory("bin", 0o755),
        Entry::file("bin/busybox", 0o755, read("bin/busybox")?),
    ];
    for applet in APPLETS {
        programs.push(Entry::hard_link(&format!("bin/{applet}"), "bin/busybox"));
    }
    for directory in ["dev", "etc", "proc", "sys", "tmp"] {
        programs.push(Entry::directory(directory, 0o755));
    }
    Ok(vec![Layer::new(libraries), Layer::new(programs)])
}

const COMPRESSIONS: [Compression; 3] = [Compression::Zstd, Compression::Plain, Compression::Gzip];

/// A layer with every kind of entry.
fn layer(seed: u64) -> Layer {
    let mut random = Random::new(seed);
    let mut noise = Vec::new();
    while noise.len() < 2 * NOISE {
        noise.extend_from_slice(&random.next_u64().to_le_bytes());
    }
    let mut entries = Vec::new();
    for directory in 0..DIRECTORIES {
        let path = format!("d{seed}-{directory}");
        entries.push(Entry::directory(&path, 0o755).owned_by(0, 7));
        for (number, size) in SIZES.into_iter().enumerate() {
            let mut content = format!("layer {seed}, file {path}/{number}\n").into_bytes();
            while content.len() < size {
                let from = random.index(NOISE);
                content.extend_from_slice(&noise[from..from + NOISE]);
            }
            content.truncate(size);
            let mode = [0o644, 0o755, 0o4755, 0o600][random.index(4)];
            let owner = [0, 33, 1000, 65_534][random.index(4)];
            let mut file = Entry::file(&format!("{path}/{number}"), mode, content);
            file = file.owned_by(owner, owner);
            if random.chance(1, 4) {
                file = file.with_xattr("user.test", &format!("{seed}-{number}"));
            }
            entries.push(file);
        }
        entries.push(Entry::symlink(&format!("{path}/link"), "1"));
        entries.push(Entry::hard_link(
            &format!("{path}/twin"),
            &format!("{path}/4"),
        ));
        entries.push(Entry::new(&format!("{path}/pipe"), 0o622, Kind::Fifo));
        let whiteout = format!("{path}/.wh.gone");
        entries.push(Entry::file(&whiteout, 0o644, Vec::new()));
    }
    let opaque = format!("d{seed}-0/.wh..wh..opq");
    entries.push(Entry::file(&opaque, 0o644, Vec::new()));
    Layer::new(entries)
}
