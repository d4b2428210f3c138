//! Images and the ways in which a registry fails.

use std::time::Duration;

use anyhow::Result;
use podwright_cri_api::v1::{
    AuthConfig, ImageFilter, ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest,
    RemoveImageRequest,
};
use podwright_integration::{
    images::{BUSYBOX, Compression, Entry, Image, Kind, Layer, NGINX, Vocabulary},
    node::{Node, until},
    patience::patience,
    pod::{ContainerSpec, PodSpec},
    registry::Auth,
};
use serde_json::json;
use tonic::{Code, Status};

fn packed(entries: Vec<Entry>) -> Image {
    let layers = [(Layer::new(entries), Compression::Gzip)];
    Image::new(Vocabulary::Oci, &layers, &json!({})).unwrap()
}

/// Half a megabyte that no compressor shrinks.
fn noise() -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(512 * 1024).collect()
}

fn spec(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec {
        image: image.to_owned(),
        ..ImageSpec::default()
    })
}

async fn is_there(node: &Node, image: &str) -> Result<bool, Status> {
    let request = ImageStatusRequest {
        image: spec(image),
        verbose: false,
    };
    Ok(node
        .cri
        .client()
        .image
        .image_status(request)
        .await?
        .into_inner()
        .image
        .is_some())
}

async fn remove(node: &Node, image: &str) -> Result<(), Status> {
    let request = RemoveImageRequest { image: spec(image) };
    node.cri
        .client()
        .image
        .remove_image(request)
        .await
        .map(drop)
}

#[tokio::test]
async fn every_packing_unpacks_to_the_same() -> Result<()> {
    let mut node = Node::start().await?;
    for (vocabulary, compression) in [
        (Vocabulary::Oci, Compression::Plain),
        (Vocabulary::Oci, Compression::Gzip),
        (Vocabulary::Oci, Compression::Zstd),
        (Vocabulary::Docker, Compression::Plain),
        (Vocabulary::Docker, Compression::Gzip),
    ] {
        let layer = Layer::new([
            Entry::directory("d", 0o711),
            Entry::file("d/f", 0o640, noise()),
        ]);
        let image = Image::new(vocabulary, &[(layer, compression)], &json!({ "User": "7" }))?;
        node.registry.add("example.test/packing:1", &image)?;
        let reference = node.registry.reference("packing:1");
        node.cri.pull(&reference).await?;
        let request = ImageStatusRequest {
            image: spec(&reference),
            verbose: false,
        };
        let found = node
            .cri
            .client()
            .image
            .image_status(request)
            .await?
            .into_inner()
            .image
            .unwrap();
        assert_eq!(
            found.uid.map(|uid| uid.value),
            Some(7),
            "{vocabulary:?} {compression:?}"
        );
        remove(&node, &reference).await?;
    }
    node.check_leaks().await?;
    node.settle()?;
    node.finish().await
}

#[tokio::test]
async fn an_index_gives_this_machines_image() -> Result<()> {
    let mut node = Node::start().await?;
    node.cri.pull(NGINX).await?;
    node.settle()?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node
        .cri
        .run(&pod, ContainerSpec::new("web").image(NGINX))
        .await?;
    assert!(
        node.cri
            .shell(&id, "cat /proc/1/cmdline")
            .await?
            .starts_with("nginx")
    );
    node.finish().await
}

#[tokio::test]
async fn tags_and_digests_lead_to_one_image() -> Result<()> {
    let node = Node::start().await?;
    let image = packed(vec![Entry::file("f", 0o644, "x")]);
    node.registry.add("example.test/same:a", &image)?;
    node.registry.add("example.test/same:b", &image)?;
    let by_digest = node.registry.reference(&format!("same@{}", image.digest()));
    let references = [
        node.registry.reference("same:a"),
        node.registry.reference("same:b"),
        by_digest,
    ];
    let mut ids = Vec::new();
    for reference in &references {
        ids.push(node.cri.pull(reference).await?);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let filter = Some(ImageFilter {
        image: spec(&references[0]),
    });
    let listed = node
        .cri
        .client()
        .image
        .list_images(ListImagesRequest { filter })
        .await?
        .into_inner();
    assert_eq!(listed.images.len(), 1);
    assert_eq!(listed.images[0].repo_tags.len(), 2);
    assert_eq!(listed.images[0].repo_digests, [references[2].clone()]);

    // An id takes all names with it, and a second time is fine.
    remove(&node, &listed.images[0].id).await?;
    remove(&node, &listed.images[0].id).await?;
    for reference in &references {
        assert!(!is_there(&node, reference).await?, "{reference}");
    }
    node.finish().await
}

#[tokio::test]
async fn whiteouts_hide_lower_layers() -> Result<()> {
    let mut node = Node::start().await?;
    let lower = Layer::new([
        Entry::directory("data", 0o755),
        Entry::file("data/gone", 0o644, "x"),
        Entry::file("data/kept", 0o644, "x"),
        Entry::directory("opaque", 0o755),
        Entry::file("opaque/gone", 0o644, "x"),
    ]);
    let upper = Layer::new([
        Entry::file("data/.wh.gone", 0o644, ""),
        Entry::directory("opaque", 0o755),
        Entry::file("opaque/.wh..wh..opq", 0o644, ""),
        Entry::file("opaque/new", 0o644, "x"),
        Entry::symlink("data/link", "kept"),
        Entry::hard_link("data/twin", "opaque/new"),
        Entry::new("data/pipe", 0o600, Kind::Fifo),
        Entry::new("data/null", 0o666, Kind::CharDevice { major: 1, minor: 3 }),
    ]);
    let image = Image::new(
        Vocabulary::Oci,
        &[(lower, Compression::Gzip), (upper, Compression::Zstd)],
        &json!({}),
    )?;
    node.registry.add("example.test/whiteouts:1", &image)?;
    let reference = node.registry.reference("whiteouts:1");
    node.cri.pull(&reference).await?;
    node.settle()?;
    // The image has no program of its own: busybox runs, and the image is looked at as a volume.
    let mount = podwright_cri_api::v1::Mount {
        container_path: "/image".to_owned(),
        image: spec(&reference),
        readonly: true,
        ..Default::default()
    };
    let mut container = ContainerSpec::new("c");
    container.config.mounts.push(mount);
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    match node.cri.run(&pod, container).await {
        Ok(id) => {
            let listing = node
                .cri
                .shell(&id, "cd /image && find . | sort | tr '\\n' ' '")
                .await?;
            let expected = ". ./data ./data/kept ./data/link ./data/null ./data/pipe ./data/twin ./opaque ./opaque/new ";
            assert_eq!(listing, expected);
        }
        Err(refused) => assert_eq!(refused.code(), Code::Unimplemented, "{refused}"),
    }
    node.finish().await
}

#[tokio::test]
async fn passing_faults_are_overcome() -> Result<()> {
    let node = Node::start().await?;
    for (number, (part, program)) in [
        ("/blobs/", "1*truncate(1000)->off"),
        ("/blobs/", "1*drop->1*status(503)->off"),
        ("/manifests/", "1*status(502)->off"),
        ("/manifests/", "1*drop->off"),
    ]
    .into_iter()
    .enumerate()
    {
        let content = [noise(), vec![u8::try_from(number)?]].concat();
        let image = packed(vec![Entry::file("f", 0o644, content)]);
        node.registry.add("example.test/flaky:1", &image)?;
        node.registry.inject(part, program)?;
        let reference = node.registry.reference("flaky:1");
        let pulled = node.cri.pull(&reference).await;
        assert!(pulled.is_ok(), "{part} {program}: {pulled:?}");
        node.registry.heal();
        remove(&node, &reference).await?;
    }
    node.finish().await
}

#[tokio::test]
async fn a_truncated_layer_is_resumed_where_it_broke() -> Result<()> {
    let node = Node::start().await?;
    let image = packed(vec![Entry::file("f", 0o644, noise())]);
    node.registry.add("example.test/resume:1", &image)?;
    let largest = image
        .blobs
        .iter()
        .max_by_key(|(_, content)| content.len())
        .unwrap()
        .0;
    node.registry.inject(largest, "1*truncate(200000)->off")?;
    let reference = node.registry.reference("resume:1");
    node.cri.pull(&reference).await?;
    let resumed = node
        .registry
        .requests()
        .into_iter()
        .filter(|request| request.path.contains(largest));
    let ranges: Vec<_> = resumed.map(|request| request.range).collect();
    assert!(
        ranges.len() == 2
            && ranges[1]
                .as_deref()
                .is_some_and(|range| range != "bytes=0-"),
        "{ranges:?}"
    );
    remove(&node, &reference).await?;
    node.finish().await
}

#[tokio::test]
async fn lasting_faults_fail_with_a_reason_and_leave_nothing() -> Result<()> {
    let node = Node::start().await?;
    let image = packed(vec![Entry::file("f", 0o644, noise())]);
    node.registry.add("example.test/broken:1", &image)?;
    for (part, program, needle) in [
        ("/blobs/", "corrupt", "digest"),
        ("/blobs/", "endless", ""),
        ("/blobs/", "status(404)", "404"),
        ("/blobs/", "truncate(0)", ""),
        ("/manifests/", "status(500)", "500"),
        ("/manifests/", "endless", ""),
        ("/manifests/", "body({)", ""),
        ("/manifests/", "challenge", "401"),
        (
            "/manifests/",
            "redirect(/v2/broken/manifests/1)",
            "redirect",
        ),
    ] {
        node.registry.inject(part, program)?;
        let reference = node.registry.reference("broken:1");
        let pull =
            tokio::time::timeout(patience(Duration::from_secs(60)), node.cri.pull(&reference));
        let refused = pull
            .await
            .unwrap_or_else(|_| panic!("{part} {program}: hangs"))
            .unwrap_err();
        let message = refused.message();
        assert!(message.contains(&reference), "{part} {program}: {refused}");
        assert!(
            message.to_lowercase().contains(needle),
            "{part} {program}: {refused}"
        );
        assert_ne!(
            refused.code(),
            Code::Internal,
            "{part} {program}: {refused}"
        );
        assert!(!is_there(&node, &reference).await?);
        node.registry.heal();
        node.check_leaks().await?;
    }
    node.finish().await
}

#[tokio::test]
async fn credentials_open_and_their_absence_closes() -> Result<()> {
    let node = Node::start().await?;
    let image = packed(vec![Entry::file("f", 0o644, "secret")]);
    node.registry.add("example.test/private:1", &image)?;
    let reference = node.registry.reference("private:1");
    let (user, password) = ("user".to_owned(), "password".to_owned());
    for auth in [
        Auth::Basic {
            user: user.clone(),
            password: password.clone(),
        },
        Auth::Bearer {
            credentials: Some((user.clone(), password.clone())),
        },
    ] {
        node.registry.require(auth.clone());
        let refused = node.cri.pull(&reference).await.unwrap_err();
        assert!(
            matches!(
                refused.code(),
                Code::Unauthenticated | Code::PermissionDenied
            ),
            "{auth:?}: {refused}"
        );
        let with = |username: &str, password: &str| PullImageRequest {
            image: spec(&reference),
            auth: Some(AuthConfig {
                username: username.to_owned(),
                password: password.to_owned(),
                ..AuthConfig::default()
            }),
            ..PullImageRequest::default()
        };
        let mut client = node.cri.client().image;
        assert!(
            client.pull_image(with(&user, "wrong")).await.is_err(),
            "{auth:?}"
        );
        client.pull_image(with(&user, &password)).await?;
        remove(&node, &reference).await?;
    }
    node.registry.require(Auth::Bearer { credentials: None });
    node.cri.pull(&reference).await?;
    remove(&node, &reference).await?;
    node.finish().await
}

#[tokio::test]
async fn concurrent_pulls_fetch_each_layer_once() -> Result<()> {
    let node = Node::start().await?;
    let image = packed(vec![Entry::file("f", 0o644, noise())]);
    node.registry.add("example.test/shared:1", &image)?;
    let reference = node.registry.reference("shared:1");
    let pulls = (0..4).map(|_| node.cri.pull(&reference));
    futures_util::future::try_join_all(pulls).await?;
    let largest = image
        .blobs
        .iter()
        .max_by_key(|(_, content)| content.len())
        .unwrap()
        .0;
    let fetched = node.registry.requests();
    let fetched = fetched
        .iter()
        .filter(|request| request.method == "GET" && request.path.contains(largest));
    assert_eq!(fetched.count(), 1);
    remove(&node, &reference).await?;
    node.finish().await
}

/// A client that goes away mid-pull leaves nothing that a later pull would trip over.
#[tokio::test]
async fn an_abandoned_pull_can_be_repeated() -> Result<()> {
    let node = Node::start().await?;
    let image = packed(vec![Entry::file("f", 0o644, noise())]);
    node.registry.add("example.test/slow:1", &image)?;
    node.registry.inject("/blobs/", "slow(100000)")?;
    let reference = node.registry.reference("slow:1");
    let pull = tokio::time::timeout(Duration::from_millis(300), node.cri.pull(&reference));
    assert!(
        pull.await.is_err(),
        "the pull was not slow enough for this test"
    );
    node.registry.heal();
    node.cri.pull(&reference).await?;
    remove(&node, &reference).await?;
    node.finish().await
}

#[tokio::test]
async fn an_image_in_use_can_be_removed_by_name() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    // Whether this is allowed is the runtime's choice; the container has to live on in either case.
    let _ = remove(&node, BUSYBOX).await;
    assert_eq!(node.cri.shell(&id, "ls /bin/ls").await?, "/bin/ls\n");
    node.cri.remove_all_pods().await?;
    node.cri.pull(BUSYBOX).await?;
    until("the image", || async {
        is_there(&node, BUSYBOX)
            .await
            .map_err(|s| s.to_string())?
            .then_some(())
            .ok_or("gone".into())
    })
    .await?;
    node.finish().await
}

#[tokio::test]
async fn hostile_archives_are_refused_or_contained() -> Result<()> {
    let node = Node::start().await?;
    let outside = node.daemon.slot().path("outside");
    let target = outside.display().to_string();
    let deep = "../".repeat(20) + target.trim_start_matches('/');
    let link = |path: &str| Entry::symlink(path, "/");
    for (name, entries) in [
        ("dotdot", vec![Entry::file(&deep, 0o644, "x")]),
        ("absolute", vec![Entry::file(&target, 0o644, "x")]),
        (
            "symlink",
            vec![
                link("root"),
                Entry::file(&format!("root{target}"), 0o644, "x"),
            ],
        ),
        (
            "hard-link",
            vec![Entry::hard_link(
                "passwd",
                "../../../../../../../../../../etc/passwd",
            )],
        ),
        ("whiteout", vec![Entry::file("../.wh.state", 0o644, "")]),
        ("whiteout-dotdot", vec![Entry::file(".wh..", 0o644, "")]),
        ("nul", vec![Entry::file("a\0b", 0o644, "x")]),
        (
            "file-as-directory",
            vec![Entry::file("f", 0o644, "x"), Entry::file("f/g", 0o644, "x")],
        ),
    ] {
        node.registry
            .add(&format!("example.test/{name}:1"), &packed(entries))?;
        let reference = node.registry.reference(&format!("{name}:1"));
        match node.cri.pull(&reference).await {
            Ok(_) => remove(&node, &reference).await?,
            Err(refused) => {
                assert_ne!(refused.code(), Code::Internal, "{name}: {refused}");
                assert!(refused.message().contains(&reference), "{name}: {refused}");
            }
        }
        assert!(!outside.exists(), "{name} wrote outside");
        node.check_leaks().await?;
    }
    node.finish().await
}
