//! Pulls, and what registries can do to them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::registry::{Asked, Reply, TestRegistry};
use super::{Packing, TestStore, chain, layer, publish};
use crate::credentials::{Credentials, Secret};
use crate::pull::PullErrorKind;
use crate::store::{ImageStore, ImageStoreConfig};
use crate::unpack::testtar::Tar;

fn three() -> Vec<(Packing, Vec<u8>)> {
    vec![
        (Packing::Gzip, layer("one")),
        (Packing::Zstd, layer("two")),
        (Packing::Plain, layer("three")),
    ]
}

fn user() -> Option<Credentials> {
    Some(Credentials {
        server: None,
        secret: Secret::Basic {
            username: "u".to_owned(),
            password: "p".to_owned(),
        },
    })
}

#[tokio::test]
async fn pull_list_resolve_view_remove() {
    let registry = TestRegistry::start().await;
    let published = publish(&registry, "app", "v1", &three());
    let test = TestStore::new().await;
    let id = test
        .store
        .pull(&registry.name("app:v1"), None)
        .await
        .unwrap();
    assert_eq!(id.digest(), published.config);
    let image = test.store.list().remove(0);
    assert_eq!(image.repo_tags, [registry.name("app:v1")]);
    assert_eq!(
        image.repo_digests,
        [format!("{}@{}", registry.name("app"), published.manifest)]
    );
    assert_eq!(image.layers.len(), 3);
    for name in [
        registry.name("app:v1"),
        id.to_string(),
        id.digest().hex(),
        id.digest().hex()[..12].to_owned(),
        image.repo_digests[0].clone(),
    ] {
        assert_eq!(
            test.store.resolve(&name).map(|image| image.id),
            Some(id),
            "{name}"
        );
    }
    let view = test.store.view(&image).unwrap();
    for name in ["one", "two", "three"] {
        assert_eq!(
            view.read(&format!("/etc/{name}"), 100).unwrap().unwrap(),
            name.as_bytes()
        );
    }
    assert!(test.store.fs_usage().used_inodes >= 9);
    drop(view);
    test.store.remove(&id.to_string()).await.unwrap();
    test.store.remove(&id.to_string()).await.unwrap();
    assert!(test.store.list().is_empty());
    assert_eq!(test.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn tags_move_and_digests_stay() {
    let registry = TestRegistry::start().await;
    let first = publish(&registry, "app", "v1", &[(Packing::Gzip, layer("one"))]);
    let test = TestStore::new().await;
    test.store
        .pull(&registry.name("app:v1"), None)
        .await
        .unwrap();
    publish(&registry, "app", "same", &[(Packing::Gzip, layer("one"))]);
    test.store
        .pull(&registry.name("app:same"), None)
        .await
        .unwrap();
    assert_eq!(test.store.list().len(), 1);
    assert_eq!(test.store.list()[0].repo_tags.len(), 2);
    publish(&registry, "app", "v1", &[(Packing::Gzip, layer("two"))]);
    test.store
        .pull(&registry.name("app:v1"), None)
        .await
        .unwrap();
    let old = test.store.resolve(&first.config.to_string()).unwrap();
    assert_eq!(old.repo_tags, [registry.name("app:same")]);
    let by_digest = registry.name(&format!("app@{}", first.manifest));
    test.store.remove(&registry.name("app:same")).await.unwrap();
    let id = test.store.pull(&by_digest, None).await.unwrap();
    let image = test.store.resolve(&id.to_string()).unwrap();
    assert!(image.repo_tags.is_empty());
    assert_eq!(image.repo_digests, [by_digest]);
}

#[tokio::test]
async fn restart_finds_images_and_drops_what_is_damaged() {
    let registry = TestRegistry::start().await;
    publish(&registry, "app", "a", &[(Packing::Gzip, layer("one"))]);
    publish(&registry, "app", "b", &[(Packing::Gzip, layer("two"))]);
    let TestStore { store, dir } = TestStore::new().await;
    store.pull(&registry.name("app:a"), None).await.unwrap();
    store.pull(&registry.name("app:b"), None).await.unwrap();
    let layer = store.resolve(&registry.name("app:b")).unwrap().layers[0]
        .dir
        .clone();
    let root = dir.path().join("images");
    drop(store);
    std::fs::remove_dir_all(root.join("layers").join(layer)).unwrap();
    std::fs::create_dir(root.join("layers/orphan")).unwrap();
    std::fs::create_dir_all(root.join("staging/half/way")).unwrap();
    let store = ImageStore::open(ImageStoreConfig::new(&root))
        .await
        .unwrap();
    store.recovery_done();
    assert_eq!(store.list().len(), 1);
    let test = TestStore { store, dir };
    let kept = test.store.list()[0].layers[0].dir.clone();
    test.until_left(&[&format!("layers/{kept}")]).await;
}

#[tokio::test]
async fn a_lease_keeps_layers_of_a_removed_image() {
    let registry = TestRegistry::start().await;
    publish(&registry, "app", "a", &[(Packing::Gzip, layer("one"))]);
    let test = TestStore::new().await;
    test.store
        .pull(&registry.name("app:a"), None)
        .await
        .unwrap();
    let image = test.store.list().remove(0);
    let lease = test.store.lease(&image).unwrap();
    test.store.remove(&image.id.to_string()).await.unwrap();
    assert_eq!(
        test.left().await,
        [format!("layers/{}", image.layers[0].dir)]
    );
    drop(lease);
    assert_eq!(test.left().await, Vec::<String>::new());
    assert!(test.store.lease(&image).is_err());
}

#[tokio::test]
async fn concurrent_pulls_join() {
    let registry = TestRegistry::start().await;
    let image = publish(&registry, "app", "a", &three());
    let test = TestStore::new().await;
    let name = registry.name("app:a");
    let pulls = (0..8).map(|_| test.store.pull(&name, None));
    for result in futures_util::future::join_all(pulls).await {
        assert_eq!(result.unwrap().digest(), image.config);
    }
    assert_eq!(registry.asked().len(), 2 + image.layers.len());
}

#[tokio::test]
async fn images_that_share_layers_fetch_them_once() {
    let registry = TestRegistry::start().await;
    let image = publish(
        &registry,
        "a",
        "1",
        &[(Packing::Gzip, layer("one")), (Packing::Gzip, layer("two"))],
    );
    publish(
        &registry,
        "b",
        "1",
        &[
            (Packing::Gzip, layer("one")),
            (Packing::Gzip, layer("three")),
        ],
    );
    let test = TestStore::new().await;
    let (a, b) = (registry.name("a:1"), registry.name("b:1"));
    let (a, b) = tokio::join!(test.store.pull(&a, None), test.store.pull(&b, None));
    a.unwrap();
    b.unwrap();
    let shared = image.layers[0].to_string();
    assert_eq!(
        registry
            .asked()
            .iter()
            .filter(|asked| asked.path.contains(&shared))
            .count(),
        1
    );
}

#[tokio::test]
async fn a_dropped_pull_leaves_nothing() {
    let begun = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&begun);
    let archive = Tar::new().file("f", &vec![1; 100_000]).end();
    let digest = crate::digest::Digest::of(&archive).to_string();
    let body = archive.clone();
    let registry = TestRegistry::with(move |asked: &Asked| {
        asked.path.contains(&digest).then(|| {
            notify.notify_one();
            Reply {
                cut: Some(50_000),
                stall: true,
                ..Reply::ok(body.clone())
            }
        })
    })
    .await;
    publish(&registry, "app", "a", &[(Packing::Plain, archive)]);
    let test =
        TestStore::with(|config| config.timeouts.stall = std::time::Duration::from_secs(60)).await;
    let name = registry.name("app:a");
    tokio::select! {
        result = test.store.pull(&name, None) => panic!("the body never ends, but {result:?}"),
        () = begun.notified() => {}
    }
    test.until_left(&[]).await;
    assert!(test.store.list().is_empty());
}

#[tokio::test]
async fn basic_and_bearer() {
    let registry = TestRegistry::with(|asked| {
        let sent = asked.headers.get("authorization").map(String::as_str);
        (sent != Some("Basic dTpw"))
            .then(|| Reply::status(401).header("WWW-Authenticate", "Basic realm=\"r\""))
    })
    .await;
    publish(&registry, "app", "a", &three());
    let test = TestStore::new().await;
    let error = test
        .store
        .pull(&registry.name("app:a"), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unauthorized);
    assert!(
        error.to_string().contains("no credentials for this host"),
        "{error}"
    );
    test.store
        .pull(&registry.name("app:a"), user())
        .await
        .unwrap();

    let host = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&host);
    let registry = TestRegistry::with(move |asked| {
        let sent = asked.headers.get("authorization").map(String::as_str);
        if asked.path.starts_with("/token") {
            let good =
                sent == Some("Basic dTpw") && asked.path.contains("scope=repository:app:pull");
            return Some(if good {
                Reply::ok(b"{\"token\":\"t1\",\"expires_in\":300}".to_vec())
            } else {
                Reply::status(403)
            });
        }
        let challenge = format!(
            "Bearer realm=\"http://{}/token\",service=\"s\",scope=\"repository:app:pull\"",
            own.lock().unwrap()
        );
        (sent != Some("Bearer t1"))
            .then(|| Reply::status(401).header("WWW-Authenticate", &challenge))
    })
    .await;
    host.lock().unwrap().clone_from(&registry.host);
    publish(&registry, "app", "a", &three());
    let test = TestStore::new().await;
    assert_eq!(
        test.store
            .pull(&registry.name("app:a"), None)
            .await
            .unwrap_err()
            .kind(),
        PullErrorKind::Unauthorized
    );
    test.store
        .pull(&registry.name("app:a"), user())
        .await
        .unwrap();
    assert_eq!(
        registry
            .asked()
            .iter()
            .filter(|asked| asked.path.starts_with("/token"))
            .count(),
        2
    );
}

#[tokio::test]
async fn broken_downloads_go_on_where_they_broke() {
    let big: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let archive = Tar::new().file("big", &big).end();
    let size = archive.len();
    let faults = Arc::new(AtomicUsize::new(0));
    let body = archive.clone();
    let digest = crate::digest::Digest::of(&archive).to_string();
    let registry = TestRegistry::with(move |asked| {
        if !asked.path.contains(&digest) {
            return None;
        }
        match faults.fetch_add(1, Ordering::Relaxed) {
            0 => Some(Reply {
                cut: Some(400_000),
                ..Reply::ok(body.clone())
            }),
            1 => Some(Reply::status(503)),
            // A server that does not know ranges, and falls silent.
            2 => Some(Reply {
                cut: Some(800_000),
                stall: true,
                ..Reply::ok(body.clone())
            }),
            _ => None,
        }
    })
    .await;
    publish(&registry, "app", "a", &[(Packing::Plain, archive)]);
    let test = TestStore::new().await;
    test.store
        .pull(&registry.name("app:a"), None)
        .await
        .unwrap();
    let ranges: Vec<_> = registry
        .asked()
        .iter()
        .filter_map(|asked| asked.headers.get("range").cloned())
        .collect();
    assert_eq!(
        ranges,
        ["bytes=400000-", "bytes=400000-", "bytes=800000-"],
        "of {size}"
    );
}

#[tokio::test]
async fn wrong_content_is_refused_and_leaves_nothing() {
    let archive = layer("one");
    let digest = crate::digest::Digest::of(&archive).to_string();
    let mut other = archive.clone();
    other[1030] ^= 1;
    let short = archive[..100].to_vec();
    let long = [archive.clone(), vec![0; 9]].concat();
    for (reply, part) in [
        (Reply::ok(other), "digest is sha256:"),
        (Reply::ok(short), "ended after 100 of"),
        (Reply::ok(long), "sends more than"),
        (
            Reply {
                status: 200,
                endless: true,
                ..Reply::default()
            },
            "sends more than",
        ),
        (Reply::status(404), "404"),
    ] {
        let digest = digest.clone();
        let registry =
            TestRegistry::with(move |asked| asked.path.contains(&digest).then(|| reply.clone()))
                .await;
        publish(
            &registry,
            "app",
            "a",
            &[
                (Packing::Gzip, layer("good")),
                (Packing::Plain, archive.clone()),
            ],
        );
        let test = TestStore::new().await;
        let error = test
            .store
            .pull(&registry.name("app:a"), None)
            .await
            .unwrap_err();
        assert!(chain(&*error).contains(part), "{part}: {}", chain(&*error));
        assert!(test.store.list().is_empty());
        assert_eq!(test.left().await, Vec::<String>::new(), "{part}");
    }
}

#[tokio::test]
async fn bad_manifests_are_refused() {
    let registry = TestRegistry::with(|asked| {
        asked.path.ends_with("endless").then(|| Reply {
            status: 200,
            endless: true,
            ..Reply::default()
        })
    })
    .await;
    let zeros = format!("sha256:{}", "0".repeat(64));
    let entry = serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": zeros, "size": 1});
    let index = |entries: Vec<serde_json::Value>| {
        serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}).to_string()
    };
    let mut windows = entry.clone();
    windows["platform"] = serde_json::json!({"os": "windows", "architecture": "amd64"});
    for (tag, body, part) in [
        ("json", "{".to_owned(), "malformed"),
        (
            "schema1",
            "{\"schemaVersion\":1,\"fsLayers\":[]}".to_owned(),
            "schema 1",
        ),
        ("many", index(vec![entry.clone(); 5000]), "5000 entries"),
        (
            "platform",
            index(vec![windows.clone(), windows]),
            "it has: windows/amd64",
        ),
        (
            "both",
            format!("{{\"schemaVersion\":2,\"manifests\":[],\"config\":{entry},\"layers\":[]}}"),
            "two ways",
        ),
        (
            "artifact",
            "{\"schemaVersion\":2}".to_owned(),
            "is no image",
        ),
        (
            "foreign",
            format!(
                "{{\"config\":{entry},\"layers\":[{{\"mediaType\":\"application/vnd.oci.image.layer.nondistributable.v1.tar\",\"digest\":\"{zeros}\",\"size\":1}}]}}"
            ),
            "only tar layers",
        ),
        ("endless", String::new(), "sends more than 4194304"),
        ("absent", String::new(), "404"),
    ] {
        if !body.is_empty() {
            registry.manifest("app", tag, body.into_bytes());
        }
        let test = TestStore::new().await;
        let error = test
            .store
            .pull(&registry.name(&format!("app:{tag}")), None)
            .await
            .unwrap_err();
        assert!(chain(&*error).contains(part), "{tag}: {}", chain(&*error));
    }
}

#[tokio::test]
async fn indexes_are_followed_to_this_platform() {
    let registry = TestRegistry::start().await;
    let image = publish(&registry, "app", "own", &three());
    let host = crate::platform::Platform::host();
    let entry = |digest, architecture: &str| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let foreign = crate::digest::Digest::of(b"foreign");
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(foreign, "s390x"), entry(image.manifest, &host.architecture)]});
    let digest = registry.manifest("app", "multi", index.to_string().into_bytes());
    let test = TestStore::new().await;
    let id = test
        .store
        .pull(&registry.name("app:multi"), None)
        .await
        .unwrap();
    let pulled = test.store.resolve(&id.to_string()).unwrap();
    assert_eq!(
        pulled.repo_digests,
        [format!("{}@{digest}", registry.name("app"))]
    );
    assert_eq!(pulled.manifest_digest, image.manifest);
}

#[tokio::test]
async fn redirects_do_not_carry_credentials_elsewhere() {
    let storage = TestRegistry::start().await;
    let target = storage.host.clone();
    let registry = TestRegistry::with(move |asked| {
        if !asked.headers.contains_key("authorization") {
            return Some(Reply::status(401).header("WWW-Authenticate", "Basic"));
        }
        let location = format!("http://{target}{}", asked.path);
        asked
            .path
            .contains("/blobs/")
            .then(|| Reply::status(307).header("Location", &location))
    })
    .await;
    publish(&registry, "app", "a", &three());
    publish(&storage, "app", "a", &three());
    let test = TestStore::new().await;
    test.store
        .pull(&registry.name("app:a"), user())
        .await
        .unwrap();
    assert_eq!(storage.asked().len(), 4);
    assert!(
        storage
            .asked()
            .iter()
            .all(|asked| !asked.headers.contains_key("authorization"))
    );

    let looping =
        TestRegistry::with(|asked| Some(Reply::status(302).header("Location", &asked.path))).await;
    let error = test
        .store
        .pull(&looping.name("app:a"), None)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("more than 10 redirects"),
        "{error}"
    );
    assert_eq!(looping.asked().len(), 11);
}

#[tokio::test]
async fn mirrors_are_tried_in_order_and_named_in_errors() {
    let broken = TestRegistry::with(|_| Some(Reply::status(404))).await;
    let mirror = TestRegistry::start().await;
    publish(&mirror, "team/app", "a", &three());
    let dir = tempfile::tempdir().unwrap();
    let write = |text: String| {
        std::fs::create_dir_all(dir.path().join("up.example")).unwrap();
        std::fs::write(dir.path().join("up.example/hosts.toml"), text).unwrap();
    };
    let upstream = format!("server = \"http://{}\"\n", broken.host);
    write(format!(
        "{upstream}[host.\"http://127.0.0.1:1\"]\n[host.\"http://{}\"]\n",
        mirror.host
    ));
    let test =
        TestStore::with(|config| config.registry_config_dirs = vec![dir.path().to_owned()]).await;
    test.store
        .pull("up.example/team/app:a", user())
        .await
        .unwrap();
    assert!(
        mirror
            .asked()
            .iter()
            .all(|asked| asked.path.ends_with("?ns=up.example"))
    );
    // The credentials are for up.example, not for its mirror.
    assert!(
        mirror
            .asked()
            .iter()
            .all(|asked| !asked.headers.contains_key("authorization"))
    );
    let error = test
        .store
        .pull("up.example/team/none:a", None)
        .await
        .unwrap_err()
        .to_string();
    for part in [
        "http://127.0.0.1:1/v2: cannot reach it",
        &mirror.host,
        &broken.host,
        "404",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn imports_a_layout() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = crate::digest::Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        serde_json::json!({"digest": digest, "size": bytes.len()})
    };
    let archive = layer("one");
    let mut layer = put(&archive);
    layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
    let config = put(serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [crate::digest::Digest::of(&archive)]}}).to_string().as_bytes());
    let manifest = put(
        serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]})
            .to_string()
            .as_bytes(),
    );
    std::fs::write(
        dir.path().join("index.json"),
        serde_json::json!({"schemaVersion": 2, "manifests": [manifest]}).to_string(),
    )
    .unwrap();
    let test = TestStore::new().await;
    test.store
        .import_oci_layout(dir.path(), "demo.local/web:1")
        .await
        .unwrap();
    assert_eq!(
        test.store.resolve("demo.local/web:1").unwrap().repo_tags,
        ["demo.local/web:1"]
    );
}
