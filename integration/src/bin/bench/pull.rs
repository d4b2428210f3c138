//! A large image from the loopback: medians of five pulls, each after the image is gone.

use std::time::{Duration, Instant};

use anyhow::Result;
use podwright_cri_api::v1::{ImageSpec, RemoveImageRequest};
use podwright_integration::{
    images::{Compression, Entry, Image, Layer, Vocabulary},
    proc,
    registry::Registry,
};
use serde_json::json;

use crate::{Figure, Measured, Target};

const LAYERS: u64 = 8;
/// Of 44 KiB each, as in an image of many libraries: together 220 MiB.
const FILES_PER_LAYER: usize = 640;

const ROUNDS: usize = 5;

/// The pull's time, and the daemon's CPU time meanwhile.
pub(crate) async fn measure(
    target: &Target,
    registry: &Registry,
    measured: &mut Measured,
) -> Result<()> {
    let image = tokio::task::spawn_blocking(image).await??;
    registry.add("bench.test/large:1", &image)?;
    drop(image);
    let reference = registry.reference("large:1");
    // The first one does not count: a virtual machine gets the memory for its files from its host then.
    pull(target, &reference).await?;
    let (mut times, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (time, cpu) = pull(target, &reference).await?;
        times.push(time);
        cpus.push(cpu);
    }
    measured.add_median(Figure::Pull, &mut times);
    measured.add_median(Figure::PullCpu, &mut cpus);
    Ok(())
}

/// One pull, and the image's end.
async fn pull(target: &Target, reference: &str) -> Result<(Duration, Duration)> {
    target.rest().await;
    let before = proc::cpu(&[target.server()?]);
    let start = Instant::now();
    target.cri.pull(reference).await?;
    let elapsed = start.elapsed();
    let cpu = proc::cpu(&[target.server()?]).saturating_sub(before);
    let image = Some(ImageSpec {
        image: reference.into(),
        ..ImageSpec::default()
    });
    target
        .cri
        .client()
        .image
        .remove_image(RemoveImageRequest { image })
        .await?;
    Ok((elapsed, cpu))
}

fn image() -> Result<Image> {
    let layers: Vec<_> = (0..LAYERS)
        .map(|number| {
            let mut text = Text(number + 1);
            let mut entries = vec![Entry::directory("lib", 0o755)];
            entries.extend((0..FILES_PER_LAYER).map(|file| {
                Entry::file(
                    &format!("lib/{number}-{file}"),
                    0o644,
                    text.bytes(44 * 1024),
                )
            }));
            (Layer::new(entries), Compression::Gzip)
        })
        .collect();
    Image::new(Vocabulary::Oci, &layers, &json!({}))
}

/// Bytes that gzip packs to about a third, as it does with programs: runs from a small alphabet.
struct Text(u64);

impl Text {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            // xorshift64, see Marsaglia 2003: the same bytes on every machine.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend(self.0.to_le_bytes().map(|byte| byte & 0x1f));
            bytes.extend(b"podwright");
        }
        bytes.truncate(length);
        bytes
    }
}
