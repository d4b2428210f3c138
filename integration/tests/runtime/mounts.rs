//! Volumes: host paths and images, and how their mounts travel.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use podwright_cri_api::v1::{self, ImageSpec, Mount, MountPropagation, RemoveImageRequest};
use podwright_integration::{
    cri::Pod,
    images::{Compression, Entry, Image, Layer, Vocabulary},
    node::Node,
    pod::{ContainerSpec, PodSpec},
};
use serde_json::json;
use tonic::{Code, Status};

/// Adds an image of these layers, the lowest first, to the registry, and pulls it.
async fn pull(node: &Node, name: &str, layers: Vec<Vec<Entry>>) -> Result<String> {
    let layers: Vec<_> = layers
        .into_iter()
        .map(|entries| (Layer::new(entries), Compression::Gzip))
        .collect();
    let image = Image::new(Vocabulary::Oci, &layers, &json!({}))?;
    node.registry
        .add(&format!("example.test/{name}:1"), &image)?;
    let reference = node.registry.reference(&format!("{name}:1"));
    node.cri.pull(&reference).await?;
    Ok(reference)
}

fn with_mount(name: &str, mount: Mount) -> ContainerSpec {
    let mut spec = ContainerSpec::new(name);
    spec.config.mounts.push(mount);
    spec
}

fn image_mount(image: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: "/volume".to_owned(),
        readonly: true,
        image: Some(ImageSpec {
            image: image.to_owned(),
            ..ImageSpec::default()
        }),
        image_sub_path: sub_path.to_owned(),
        ..Mount::default()
    }
}

fn host_mount(path: &Path) -> Mount {
    Mount {
        container_path: "/volume".to_owned(),
        host_path: path.display().to_string(),
        ..Mount::default()
    }
}

async fn remove_image(node: &Node, image: &str) -> Result<(), Status> {
    let image = Some(ImageSpec {
        image: image.to_owned(),
        ..ImageSpec::default()
    });
    let request = RemoveImageRequest { image };
    node.cri
        .client()
        .image
        .remove_image(request)
        .await
        .map(drop)
}

fn data_layers() -> Vec<Vec<Entry>> {
    vec![
        vec![
            Entry::directory("models", 0o755),
            Entry::file("models/a", 0o644, "old"),
            Entry::file("gone", 0o644, "gone"),
            Entry::symlink("latest", "/models"),
            Entry::symlink("outside", "../../../../etc"),
        ],
        vec![
            Entry::file("models/a", 0o644, "new"),
            Entry::file("models/run", 0o755, "#!/bin/sh\necho ran\n"),
            Entry::file(".wh.gone", 0o644, ""),
        ],
    ]
}

#[tokio::test]
async fn an_image_is_mounted_read_only_and_outlives_its_name() -> Result<()> {
    let mut node = Node::start().await?;
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    let image = pull(&node, "data", data_layers()).await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let whole = node
        .cri
        .run(&pod, with_mount("whole", image_mount(&image, "")))
        .await?;
    let script = "cat /volume/models/a; ls /volume; touch /volume/x 2>&1";
    let seen = node.cri.exec(&whole, &["sh", "-c", script], 20).await?;
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert_eq!(
        seen.lines().take(4).collect::<Vec<_>>(),
        [
            "newlatest",
            "models",
            "outside",
            "touch: /volume/x: Read-only file system"
        ]
    );
    assert_eq!(node.cri.shell(&whole, "/volume/models/run").await?, "ran\n");

    let part = node
        .cri
        .create(&pod, with_mount("part", image_mount(&image, "latest")))
        .await?;
    remove_image(&node, &image).await?;
    node.daemon.kill9().await?;
    node.daemon.restart().await?;
    // The layers belong to the containers that were made from them, as long as those live.
    node.cri.start_container(&part).await?;
    assert_eq!(node.cri.shell(&part, "cat /volume/a").await?, "new");
    let status = node.cri.status(&part).await?;
    assert_eq!(status.mounts, [image_mount(&image, "latest")]);
    let own = node.daemon.slot().directory().display().to_string();
    let after = fs::read_to_string("/proc/self/mountinfo")?;
    let ours = |table: &str| table.lines().filter(|line| line.contains(&own)).count();
    assert_eq!(ours(&after), ours(&before), "mounted on the host: {after}");
    node.finish().await
}

#[tokio::test]
async fn an_image_of_one_layer_shows_no_whiteouts() -> Result<()> {
    let mut node = Node::start().await?;
    let entries = vec![
        Entry::file("f", 0o644, "content"),
        Entry::file(".wh.other", 0o644, ""),
    ];
    let image = pull(&node, "single", vec![entries]).await?;
    node.settle()?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node
        .cri
        .run(&pod, with_mount("c", image_mount(&image, "")))
        .await?;
    assert_eq!(node.cri.shell(&id, "ls -A /volume").await?, "f\n");
    node.finish().await
}

#[tokio::test]
async fn a_symlink_of_the_image_leads_to_nothing_of_the_host() -> Result<()> {
    let mut node = Node::start().await?;
    let mut layers = data_layers();
    layers[0].push(Entry::directory("etc", 0o755));
    layers[0].push(Entry::file("etc/of-image", 0o644, ""));
    let image = pull(&node, "links", layers).await?;
    node.settle()?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node
        .cri
        .run(&pod, with_mount("c", image_mount(&image, "outside")))
        .await?;
    assert_eq!(node.cri.shell(&id, "ls -A /volume").await?, "of-image\n");
    node.finish().await
}

#[tokio::test]
async fn image_volumes_that_cannot_be_are_refused() -> Result<()> {
    let mut node = Node::start().await?;
    let image = pull(&node, "data", data_layers()).await?;
    node.settle()?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let both = Mount {
        host_path: "/etc".to_owned(),
        ..image_mount(&image, "")
    };
    for (mount, code, word) in [
        (
            image_mount("example.test/absent:1", ""),
            Code::NotFound,
            "pull it first",
        ),
        (
            image_mount(&image, "absent"),
            Code::NotFound,
            "no such sub path",
        ),
        (
            image_mount(&image, "models/a"),
            Code::InvalidArgument,
            "no directory",
        ),
        (
            image_mount(&image, "models/../.."),
            Code::InvalidArgument,
            "'..'",
        ),
        (
            image_mount(&image, "/models"),
            Code::InvalidArgument,
            "relative",
        ),
        // A link to a directory that the image does not have, whatever the host has.
        (
            image_mount(&image, "outside"),
            Code::NotFound,
            "no such sub path",
        ),
        (both, Code::InvalidArgument, "not both"),
    ] {
        let refused = node
            .cri
            .create(&pod, with_mount("c", mount))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(
            refused.message().starts_with("ImageVolumeMountFailed"),
            "{refused}"
        );
        assert!(refused.message().contains(word), "{refused}");
    }
    node.finish().await
}

/// A directory of the slot that is a mount of its own, shared or private; unmounted when it is dropped.
struct HostMount(PathBuf);

impl HostMount {
    fn new(node: &Node, propagation: MsFlags) -> Result<Self> {
        let path = node.daemon.slot().path("volume");
        fs::create_dir_all(path.join("late"))?;
        fs::create_dir_all(path.join("from-container"))?;
        bind(&path, &path)?;
        mount(None::<&str>, &path, None::<&str>, propagation, None::<&str>)?;
        Ok(Self(path))
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        for below in ["late", "from-container", ""] {
            let _ = umount2(&self.0.join(below), MntFlags::MNT_DETACH);
        }
    }
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("binding {}", to.display()))
}

async fn privileged(node: &Node, pod: &Pod, mount: Mount) -> Result<String> {
    let spec = with_mount("c", mount).with_security(|security| security.privileged = true);
    Ok(node.cri.run(pod, spec).await?)
}

#[tokio::test]
async fn mounts_travel_as_their_propagation_says() -> Result<()> {
    for (propagation, arrives, leaves) in [
        (MountPropagation::PropagationPrivate, false, false),
        (MountPropagation::PropagationHostToContainer, true, false),
        (MountPropagation::PropagationBidirectional, true, true),
    ] {
        let node = Node::start().await?;
        let host = HostMount::new(&node, MsFlags::MS_SHARED)?;
        let other = node.daemon.slot().path("other");
        fs::create_dir_all(&other)?;
        fs::write(other.join("flag"), "")?;
        let mut spec = PodSpec::new("pod");
        let security = spec.linux().security_context.get_or_insert_default();
        security.privileged = true;
        let pod = node.cri.run_pod(spec).await?;
        let mount = Mount {
            propagation: propagation.into(),
            ..host_mount(&host.0)
        };
        let id = privileged(&node, &pod, mount).await?;
        bind(&other, &host.0.join("late"))?;
        let seen = node.cri.shell(&id, "ls -A /volume/late").await?;
        assert_eq!(seen == "flag\n", arrives, "{propagation:?}: {seen:?}");
        node.cri
            .shell(
                &id,
                "mount -t tmpfs none /volume/from-container && touch /volume/from-container/x",
            )
            .await?;
        let left = host.0.join("from-container/x").exists();
        assert_eq!(left, leaves, "{propagation:?}");
        drop(host);
        node.finish().await?;
    }
    Ok(())
}

/// What is shared with the host must be so at the host: otherwise mounts would be lost silently.
#[tokio::test]
async fn bidirectional_mounts_need_a_shared_source() -> Result<()> {
    let node = Node::start().await?;
    let host = HostMount::new(&node, MsFlags::MS_PRIVATE)?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for (propagation, word) in [
        (MountPropagation::PropagationBidirectional, "shared"),
        (
            MountPropagation::PropagationHostToContainer,
            "shared or slave",
        ),
    ] {
        let mount = Mount {
            propagation: propagation.into(),
            ..host_mount(&host.0)
        };
        let refused = node
            .cri
            .create(&pod, with_mount("c", mount))
            .await
            .unwrap_err();
        assert!(refused.message().contains(word), "{refused}");
    }
    drop(host);
    node.finish().await
}

#[tokio::test]
async fn read_only_is_recursive_when_asked() -> Result<()> {
    let node = Node::start().await?;
    // The pod comes first: what is mounted later on the host is there for its containers all the same.
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let path = node.daemon.slot().path("volume");
    let below = path.join("below");
    fs::create_dir_all(&below)?;
    mount(
        Some("none"),
        &below,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    let mut seen = Vec::new();
    for (name, recursive_read_only) in [("this", false), ("all", true)] {
        let mount = Mount {
            readonly: true,
            recursive_read_only,
            ..host_mount(&path)
        };
        let id = node.cri.run(&pod, with_mount(name, mount)).await?;
        let top = node.cri.exec(&id, &["touch", "/volume/x"], 20).await?;
        let low = node
            .cri
            .exec(&id, &["touch", "/volume/below/x"], 20)
            .await?;
        seen.push((top.exit_code == 0, low.exit_code == 0));
    }
    umount2(&below, MntFlags::MNT_DETACH)?;
    assert_eq!(seen, [(false, true), (false, false)]);
    node.finish().await
}

#[tokio::test]
async fn mount_options_hold_and_others_are_refused() -> Result<()> {
    let node = Node::start().await?;
    let features = node
        .cri
        .client()
        .runtime
        .status(v1::StatusRequest::default())
        .await?;
    assert!(
        features
            .into_inner()
            .features
            .is_some_and(|features| features.mount_options)
    );
    let path = node.daemon.slot().path("volume");
    fs::create_dir_all(&path)?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let mount = |options: &[&str]| Mount {
        mount_options: options.iter().map(ToString::to_string).collect(),
        ..host_mount(&path)
    };
    let id = node
        .cri
        .run(&pod, with_mount("c", mount(&["noexec", "nosuid", "nodev"])))
        .await?;
    let line = node
        .cri
        .shell(&id, "grep ' /volume ' /proc/self/mounts")
        .await?;
    for option in ["noexec", "nosuid", "nodev", "rw"] {
        assert!(line.contains(option), "{line}");
    }
    for option in ["rshared", "size=1", "bind", ""] {
        let refused = node
            .cri
            .create(&pod, with_mount("d", mount(&[option])))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("mount option"), "{refused}");
    }
    node.finish().await
}

#[tokio::test]
async fn host_paths_may_be_of_any_kind_or_missing() -> Result<()> {
    let node = Node::start().await?;
    let directory = node.daemon.slot().path("volumes");
    fs::create_dir_all(directory.join("real"))?;
    fs::write(directory.join("real/f"), "content")?;
    symlink("real", directory.join("link"))?;
    symlink("nowhere", directory.join("dangling"))?;
    let _socket = UnixListener::bind(directory.join("socket"))?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for (name, script, expected) in [
        ("link", "cat /volume/f", "content"),
        ("real/f", "cat /volume", "content"),
        ("socket", "test -S /volume && echo socket", "socket\n"),
        ("missing/deep", "ls -A /volume; echo there", "there\n"),
    ] {
        let spec = with_mount(&name.replace('/', "-"), host_mount(&directory.join(name)));
        let id = node.cri.run(&pod, spec).await?;
        assert_eq!(node.cri.shell(&id, script).await?, expected, "{name}");
    }
    assert!(directory.join("missing/deep").is_dir());
    let dangling = with_mount("dangling", host_mount(&directory.join("dangling")));
    let refused = node.cri.create(&pod, dangling).await.unwrap_err();
    assert!(refused.message().contains("dangling"), "{refused}");
    let relative = with_mount("relative", host_mount(Path::new("etc")));
    let refused = node.cri.create(&pod, relative).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    node.finish().await
}

/// Places for the mounts that every container has are in a layer of their own: to make them would copy /etc up for each start.
#[tokio::test]
async fn a_start_writes_nothing_into_the_writable_layer() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("unwritten")).await?;
    let script = "cat /etc/hosts /etc/hostname /etc/resolv.conf > /dev/null && stat -c %a /etc && echo > /written";
    let id = node
        .cri
        .run(&pod, ContainerSpec::new("c").shell(script))
        .await?;
    assert_eq!(node.cri.wait_exit(&id).await?.exit_code, 0);
    assert_eq!(node.cri.logs(&id).await?[0].text, "755");
    let upper = node
        .daemon
        .slot()
        .path("state/containers")
        .join(&id)
        .join("upper");
    let entries = fs::read_dir(&upper)?.map(|entry| Ok(entry?.file_name()));
    let entries = entries.collect::<Result<Vec<_>>>()?;
    assert_eq!(entries, ["written"], "in {}", upper.display());
    node.finish().await
}
