//! The test images on disk: an OCI image layout, which any tool of the field can read too.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    image::{Descriptor, Image},
    recipes,
};
use crate::cache;

/// The annotation of an image layout's index that names an image.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What the recipe depends on: a change to any of these makes new images.
const RECIPE: &str = concat!(
    include_str!("image.rs"),
    include_str!("layer.rs"),
    include_str!("programs.rs"),
    include_str!("recipes.rs"),
    include_str!("tar.rs"),
);

/// All test images, by full reference (`registry.k8s.io/pause:3.9`).
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    images: BTreeMap<String, Descriptor>,
}

impl Store {
    /// Opens the cached images, building them first when they are not there: this takes a minute,
    /// apt, dpkg, a C compiler and root (to try the programs in a chroot).
    ///
    /// # Errors
    /// When building fails; the message names the program that failed.
    pub fn open() -> Result<Self> {
        let directory = cache::directory_of("images", RECIPE, |fresh| {
            let scratch = tempfile::tempdir()?;
            let images = recipes::build(scratch.path())?;
            write_layout(fresh, &images)
        })?;
        let path = directory.join("index.json");
        let index = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let index: Value = serde_json::from_slice(&index)?;
        let mut images = BTreeMap::new();
        for manifest in index["manifests"].as_array().into_iter().flatten() {
            let name = manifest["annotations"][REF_NAME]
                .as_str()
                .context("an image has no name")?;
            images.insert(name.to_owned(), serde_json::from_value(manifest.clone())?);
        }
        Ok(Self { directory, images })
    }

    /// All references with their manifests or indexes.
    pub fn images(&self) -> impl Iterator<Item = (&str, &Descriptor)> {
        self.images.iter().map(|(name, top)| (name.as_str(), top))
    }

    /// The file that holds the blob `sha256:…`, if there is one.
    pub fn blob(&self, digest: &str) -> Option<PathBuf> {
        let path = blob_path(&self.directory, digest)?;
        path.is_file().then_some(path)
    }
}

fn blob_path(directory: &Path, digest: &str) -> Option<PathBuf> {
    let hex = digest.strip_prefix("sha256:")?;
    let well_formed = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    well_formed.then(|| directory.join("blobs/sha256").join(hex))
}

fn write_layout(directory: &Path, images: &BTreeMap<String, Image>) -> Result<()> {
    fs::create_dir_all(directory.join("blobs/sha256"))?;
    let mut manifests = Vec::new();
    for (name, image) in images {
        for (digest, content) in &image.blobs {
            let path = blob_path(directory, digest).context("a digest that is not SHA-256")?;
            fs::write(path, content)?;
        }
        let mut descriptor = serde_json::to_value(&image.top)?;
        descriptor["annotations"] = json!({ REF_NAME: name });
        manifests.push(descriptor);
    }
    fs::write(
        directory.join("oci-layout"),
        json!({ "imageLayoutVersion": "1.0.0" }).to_string(),
    )?;
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    fs::write(directory.join("index.json"), index.to_string())?;
    Ok(())
}
