//! How fast a pull is: `cargo test --release -p podwright-image --features measure speed -- --nocapture`.

use std::time::Instant;

use super::registry::TestRegistry;
use super::{Packing, TestStore, publish};
use crate::unpack::testtar::Tar;

/// Text-like bytes that gzip makes a third of.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(format!("{:x} function return ", state % 0xffff_ffff).as_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn cpu_seconds() -> f64 {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = usage.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_layers() {
    for (name, packing) in [
        ("gzip", Packing::Gzip),
        ("zstd", Packing::Zstd),
        ("plain", Packing::Plain),
    ] {
        let registry = TestRegistry::start().await;
        let mut layers = Vec::new();
        for layer in 0..8u64 {
            let mut tar = Tar::new();
            for file in 0..100u64 {
                tar = tar.file(
                    &format!("usr/lib/{layer}/{file}"),
                    &text(layer * 1000 + file, 288_358),
                );
            }
            layers.push((packing, tar.end()));
        }
        let bytes: usize = layers.iter().map(|(_, archive)| archive.len()).sum();
        publish(&registry, "app", "a", &layers);
        drop(layers);
        let test = TestStore::new().await;
        let (began, cpu) = (Instant::now(), cpu_seconds());
        test.store
            .pull(&registry.name("app:a"), None)
            .await
            .unwrap();
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let mib = bytes as f64 / 1048576.0;
        println!(
            "{name}: {mib:.0} MiB unpacked in {elapsed:.2} s, {:.0} MiB/s, {cpu:.2} CPU s (registry included)",
            mib / elapsed
        );
    }
}
