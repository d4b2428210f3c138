#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Auth, Registry, auth};
use crate::images::{Compression, Entry, Image, Layer, Vocabulary};

fn image() -> Image {
    let layer = Layer::new([Entry::file("a", 0o644, vec![b'x'; 10_000])]);
    Image::new(Vocabulary::Oci, &[(layer, Compression::Plain)], &json!({})).unwrap()
}

async fn registry() -> (Registry, Image) {
    let (registry, image) = (Registry::start().await.unwrap(), image());
    registry.add("example.test/a/b:1", &image).unwrap();
    (registry, image)
}

/// Everything that comes back, as text, when the server closes in the end.
async fn get(registry: &Registry, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(registry.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn largest(image: &Image) -> &str {
    image
        .blobs
        .iter()
        .max_by_key(|(_, content)| content.len())
        .unwrap()
        .0
}

#[tokio::test]
async fn images_are_found_by_namespace_and_by_path() {
    let (registry, image) = registry().await;
    for path in [
        "/v2/a/b/manifests/1?ns=example.test".to_owned(),
        "/v2/a/b/manifests/1".to_owned(),
        "/v2/example.test/a/b/manifests/1".to_owned(),
        format!("/v2/a/b/manifests/{}", image.digest()),
    ] {
        let answer = get(&registry, &path, "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains(image.digest()), "{path}: {answer}");
        assert!(
            answer.contains("application/vnd.oci.image.manifest.v1+json"),
            "{answer}"
        );
    }
    for path in [
        "/v2/a/b/manifests/2",
        "/v2/a/b/manifests/1?ns=other.test",
        "/v2/c/manifests/1",
    ] {
        assert!(
            get(&registry, path, "").await.starts_with("HTTP/1.1 404"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn ranges_are_cut() {
    let (registry, image) = registry().await;
    let path = format!("/v2/a/b/blobs/{}", largest(&image));
    let length = image.blobs[largest(&image)].len();
    let answer = get(&registry, &path, "range: bytes=600-\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 206"), "{answer}");
    assert!(
        answer.contains(&format!("bytes 600-{}/{length}", length - 1)),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("content-length: {}", length - 600)),
        "{answer}"
    );
    let answer = get(&registry, &path, "range: bytes=99999-\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 416"), "{answer}");
    assert_eq!(registry.requests()[0].range.as_deref(), Some("bytes=600-"));
}

#[tokio::test]
async fn tokens_are_demanded_and_given() {
    let (registry, _) = registry().await;
    let credentials = Some(("user".to_owned(), "password".to_owned()));
    registry.require(Auth::Bearer { credentials });
    let refused = get(&registry, "/v2/a/b/manifests/1", "").await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    assert!(
        refused.contains("scope=\"repository:a/b:pull\""),
        "{refused}"
    );

    let token = "/token?service=x&scope=repository%3Aa%2Fb%3Apull";
    assert!(get(&registry, token, "").await.starts_with("HTTP/1.1 401"));
    let basic = format!("authorization: {}\r\n", auth::basic("user", "password"));
    let given = get(&registry, token, &basic).await;
    assert!(given.contains("token-for/repository:a/b:pull"), "{given}");
    let bearer = "authorization: Bearer token-for/repository:a/b:pull\r\n";
    assert!(
        get(&registry, "/v2/a/b/manifests/1", bearer)
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn faults_are_as_told() {
    let (registry, image) = registry().await;
    let path = format!("/v2/a/b/blobs/{}", largest(&image));
    let length = image.blobs[largest(&image)].len();
    registry
        .inject(
            "/blobs/",
            "1*status(503)->1*truncate(100)->1*drop->1*corrupt->1*challenge->off",
        )
        .unwrap();
    assert!(get(&registry, &path, "").await.starts_with("HTTP/1.1 503"));
    let truncated = get(&registry, &path, "").await;
    assert!(
        truncated.contains(&format!("content-length: {length}")),
        "{truncated}"
    );
    assert_eq!(truncated.split_once("\r\n\r\n").unwrap().1.len(), 100);
    assert_eq!(get(&registry, &path, "").await, "");
    assert!(get(&registry, &path, "").await.starts_with("HTTP/1.1 200"));
    assert!(get(&registry, &path, "").await.starts_with("HTTP/1.1 401"));
    let whole = get(&registry, &path, "").await;
    assert_eq!(whole.split_once("\r\n\r\n").unwrap().1.len(), length);
}

#[tokio::test]
async fn a_stalled_answer_does_not_end() {
    let (registry, image) = registry().await;
    registry.inject("/blobs/", "stall(10)").unwrap();
    let path = format!("/v2/a/b/blobs/{}", largest(&image));
    let answer = get(&registry, &path, "");
    assert!(timeout(Duration::from_millis(200), answer).await.is_err());
}
