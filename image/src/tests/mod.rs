//! The crate as a whole: pulls from a loopback registry into a store on disk. Needs root, for layers
//! hold device nodes and owners.

mod hostile;
mod pulling;
mod registry;
#[cfg(feature = "measure")]
mod speed;

use crate::digest::Digest;
use crate::registry::RegistryTimeouts;
use crate::store::{ImageStore, ImageStoreConfig};
use crate::unpack::testtar::Tar;
use registry::TestRegistry;
use std::io::Write as _;
use std::time::Duration;

/// A store in a directory of its own.
struct TestStore {
    store: ImageStore,
    dir: tempfile::TempDir,
}

impl TestStore {
    async fn new() -> TestStore {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ImageStoreConfig)) -> TestStore {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ImageStoreConfig::new(dir.path().join("images"));
        let short = Duration::from_secs(2);
        config.timeouts = RegistryTimeouts {
            connect: short,
            response: short,
            stall: Duration::from_millis(500),
            backoff: Duration::from_millis(1),
        };
        change(&mut config);
        let store = ImageStore::open(config).await.unwrap();
        store.recovery_done();
        TestStore { store, dir }
    }

    /// Names under layers/, staging/ and trash/ once all deleting is done.
    async fn left(&self) -> Vec<String> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.wait_until_reclaimed())
            .await
            .unwrap();
        let mut names = Vec::new();
        for part in ["layers", "staging", "trash"] {
            for entry in std::fs::read_dir(self.dir.path().join("images").join(part)).unwrap() {
                names.push(format!(
                    "{part}/{}",
                    entry.unwrap().file_name().to_string_lossy()
                ));
            }
        }
        names
    }
}

impl TestStore {
    /// Waits until exactly this is left: what runs in the background may have begun before the call.
    async fn until_left(&self, expected: &[&str]) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let left = self.left().await;
            if left == expected {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{left:?} is left");
            tokio::task::yield_now().await;
        }
    }
}

/// The text of an error with all its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// How a test's layer is packed.
#[derive(Clone, Copy)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// An image whose documents and blobs are put into a registry.
struct TestImage {
    config: Digest,
    manifest: Digest,
    layers: Vec<Digest>,
}

/// Publishes an image of these archives as `repository:tag`.
fn publish(
    registry: &TestRegistry,
    repository: &str,
    tag: &str,
    archives: &[(Packing, Vec<u8>)],
) -> TestImage {
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    let mut digests = Vec::new();
    for (packing, archive) in archives {
        diff_ids.push(Digest::of(archive).to_string());
        let (suffix, blob) = match packing {
            Packing::Plain => ("", archive.clone()),
            Packing::Gzip => ("+gzip", gzip(archive)),
            Packing::Zstd => ("+zstd", zstd::encode_all(archive.as_slice(), 3).unwrap()),
        };
        let (digest, size) = registry.blob(blob);
        digests.push(digest);
        layers.push(serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            "digest": digest, "size": size,
        }));
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": null,
        "config": {"Env": ["A=b"], "Cmd": null, "Volumes": null, "User": "1000"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let (config, config_size) = registry.blob(config.to_string().into_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": layers,
    });
    let manifest = registry.manifest(repository, tag, manifest.to_string().into_bytes());
    TestImage {
        config,
        manifest,
        layers: digests,
    }
}

/// A small layer with one file of this name.
fn layer(name: &str) -> Vec<u8> {
    Tar::new()
        .dir("etc/", 0o755)
        .file(&format!("etc/{name}"), name.as_bytes())
        .end()
}
