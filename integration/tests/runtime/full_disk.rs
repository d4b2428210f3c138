//! A full disk: what needs space fails and says so, and what gives space back works.

use anyhow::Result;
use podwright_cri_api::v1::{ContainerState, ImageSpec, ListPodSandboxRequest, RemoveImageRequest};
use podwright_integration::{
    cri::Pod,
    images::{BUSYBOX, Compression, Entry, Image, Layer, Vocabulary},
    node::{Disk, DiskSize, Node, Shortage, until},
    pod::{ContainerSpec, PodSpec},
};
use serde_json::json;
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;

/// Large enough for the image store to keep its reserve, which it needs to record removals.
const SIZE: DiskSize = DiskSize {
    bytes: 96 * MIB,
    inodes: 8192,
};

const EXITED: ContainerState = ContainerState::ContainerExited;
const ENOSPC: &str = "No space left on device";

/// A layer of one file of so many MiB, which compresses well.
fn layer(name: &str, mebibytes: u64) -> (Layer, Compression) {
    let content = vec![b'x'; usize::try_from(mebibytes * MIB).unwrap()];
    (
        Layer::new([Entry::file(name, 0o644, content)]),
        Compression::Gzip,
    )
}

fn disk(node: &Node) -> &Disk {
    node.daemon.disk().unwrap()
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

/// A node whose image store has settled: its reserve is made in the background.
async fn start() -> Result<Node> {
    let mut node = Node::start_on_disk(SIZE).await?;
    let reserve = node.daemon.slot().path("state/images/reserve");
    until("the image store's reserve", || async {
        let size = std::fs::metadata(&reserve).map_or(0, |metadata| metadata.len());
        (size > 0).then_some(()).ok_or_else(|| "none".to_owned())
    })
    .await?;
    node.settle()?;
    Ok(node)
}

async fn wait_used(node: &Node, before: u64) -> Result<()> {
    until("the disk's space to come back", || async {
        let now = disk(node).used().map_err(|error| error.to_string())?;
        // The database keeps some pages of what it has recorded meanwhile.
        if now <= before + MIB {
            Ok(())
        } else {
            Err(format!("{now} bytes are used, {before} were before"))
        }
    })
    .await
}

#[tokio::test]
async fn a_pull_that_does_not_fit_leaves_nothing() -> Result<()> {
    let node = start().await?;
    let layers = [layer("small", 1), layer("large", 100)];
    let image = Image::new(Vocabulary::Oci, &layers, &json!({}))?;
    node.registry.add("example.test/large:1", &image)?;
    let reference = node.registry.reference("large:1");
    let before = disk(&node).used()?;
    for _ in 0..2 {
        let refused = node.cri.pull(&reference).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let store = node
            .daemon
            .slot()
            .path("state/images")
            .display()
            .to_string();
        for part in [&reference, ENOSPC, "\"large\"", "layer sha256:", &store] {
            assert!(refused.message().contains(part), "no {part}: {refused}");
        }
        wait_used(&node, before).await?;
        node.check_leaks().await?;
    }
    node.finish().await
}

#[tokio::test]
async fn an_image_with_too_many_files_leaves_nothing() -> Result<()> {
    let node = start().await?;
    let files = (0..SIZE.inodes).map(|number| Entry::file(&format!("f{number}"), 0o644, ""));
    let layers = [(Layer::new(files.collect::<Vec<_>>()), Compression::Gzip)];
    let image = Image::new(Vocabulary::Oci, &layers, &json!({}))?;
    node.registry.add("example.test/many:1", &image)?;
    let refused = node.cri.pull(&node.registry.reference("many:1")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains(ENOSPC), "{refused}");
    node.check_leaks().await?;
    node.finish().await
}

async fn pods(node: &Node) -> Result<usize, Status> {
    let list = ListPodSandboxRequest::default();
    let answer = node.cri.client().runtime.list_pod_sandbox(list).await?;
    Ok(answer.into_inner().items.len())
}

/// Each of the calls that need space is refused, and undone.
async fn check_refusals(node: &mut Node, pod: &Pod, shortage: Shortage) -> Result<()> {
    node.settle()?;
    let (spec, container) = (PodSpec::new("late"), ContainerSpec::new("late"));
    let refused = node.cri.run_pod(spec.clone()).await.unwrap_err();
    assert!(
        refused.message().contains(ENOSPC),
        "{shortage:?}: {refused}"
    );
    node.check_leaks().await?;
    assert_eq!(pods(node).await?, 1);
    let refused = node.cri.create(pod, container.clone()).await.unwrap_err();
    assert!(
        refused.message().contains(ENOSPC),
        "{shortage:?}: {refused}"
    );
    node.check_leaks().await?;
    let refused = node.cri.pull(&node.registry.reference("small:1")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(
        refused.message().contains(ENOSPC),
        "{shortage:?}: {refused}"
    );
    node.check_leaks().await?;

    // The names are free again.
    disk(node).free()?;
    let late = node.cri.run_pod(spec).await?;
    node.cri.stop_pod(&late.id).await?;
    node.cri.remove_pod(&late.id).await?;
    let late = node.cri.create(pod, container).await?;
    node.cri.remove(&late).await?;
    Ok(())
}

async fn a_full_disk(shortage: Shortage) -> Result<()> {
    let mut node = start().await?;
    let image = Image::new(Vocabulary::Oci, &[layer("small", 1)], &json!({}))?;
    node.registry.add("example.test/small:1", &image)?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let created = node.cri.create(&pod, ContainerSpec::new("new")).await?;
    disk(&node).fill(shortage)?;
    assert_eq!(node.cri.shell(&id, "echo alive").await?, "alive\n");
    check_refusals(&mut node, &pod, shortage).await?;

    // Removals work, though each of them gives space back that is taken at once.
    disk(&node).fill(shortage)?;
    node.cri.remove(&created).await?;
    disk(&node).fill(shortage)?;
    node.cri.stop(&id, 0).await?;
    assert_eq!(node.cri.status(&id).await?.exit_code, 137);
    disk(&node).fill(shortage)?;
    node.cri.remove(&id).await?;
    disk(&node).fill(shortage)?;
    node.cri.stop_pod(&pod.id).await?;
    disk(&node).fill(shortage)?;
    node.cri.remove_pod(&pod.id).await?;
    disk(&node).fill(shortage)?;
    remove_image(&node, BUSYBOX).await?;
    disk(&node).free()?;

    node.cri.pull(&node.registry.reference("small:1")).await?;
    node.cri.pull(BUSYBOX).await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    assert_eq!(node.cri.shell(&id, "echo alive").await?, "alive\n");
    node.cri.remove_all_pods().await?;
    node.daemon.terminate().await
}

#[tokio::test]
async fn without_a_byte_left() -> Result<()> {
    a_full_disk(Shortage::Bytes).await
}

#[tokio::test]
async fn without_an_inode_left() -> Result<()> {
    a_full_disk(Shortage::Inodes).await
}

/// More pages or inodes than a pod or a container takes.
const ENOUGH: u64 = 64;

/// Wherever in the making of a pod the space ends, what was made so far is undone.
#[tokio::test]
async fn a_pod_that_does_not_fit_is_undone() -> Result<()> {
    let mut node = start().await?;
    for shortage in [Shortage::Bytes, Shortage::Inodes] {
        node.settle()?;
        let mut refusals = 0;
        for spared in 0..ENOUGH {
            disk(&node).fill(shortage)?;
            disk(&node).spare(shortage, spared)?;
            let made = node.cri.run_pod(PodSpec::new("tight")).await;
            node.cri.remove_all_pods().await?;
            disk(&node).free()?;
            match made {
                Ok(_) => break,
                Err(refused) => {
                    let message = refused.message();
                    assert!(message.contains(ENOSPC), "{shortage:?} {spared}: {refused}");
                    refusals += 1;
                }
            }
            node.check_leaks().await?;
        }
        assert!(
            (2..ENOUGH).contains(&refusals),
            "{refusals} refusals for {shortage:?}"
        );
    }
    node.finish().await
}

#[tokio::test]
async fn a_container_that_does_not_fit_is_undone() -> Result<()> {
    let mut node = start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for shortage in [Shortage::Bytes, Shortage::Inodes] {
        node.settle()?;
        let mut refusals = 0;
        for spared in 0..ENOUGH {
            disk(&node).fill(shortage)?;
            disk(&node).spare(shortage, spared)?;
            let made = match node.cri.create(&pod, ContainerSpec::new("tight")).await {
                Ok(id) => {
                    let started = node.cri.start_container(&id).await;
                    node.cri.remove(&id).await?;
                    started
                }
                Err(refused) => Err(refused),
            };
            disk(&node).free()?;
            match made {
                Ok(()) => break,
                Err(refused) => {
                    let message = refused.message();
                    assert!(message.contains(ENOSPC), "{shortage:?} {spared}: {refused}");
                    refusals += 1;
                }
            }
            node.check_leaks().await?;
        }
        assert!(
            (1..ENOUGH).contains(&refusals),
            "{refusals} refusals for {shortage:?}"
        );
    }
    node.finish().await
}

/// A client that has seen how a container ended must not see it undone.
#[tokio::test]
async fn an_exit_on_a_full_disk_outlives_the_daemon() -> Result<()> {
    let mut node = start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for shortage in [Shortage::Bytes, Shortage::Inodes] {
        let spec = ContainerSpec::new(&format!("{shortage:?}").to_lowercase());
        let script = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.01; done";
        let id = node.cri.run(&pod, spec.shell(script)).await?;
        // Before the trap is set, TERM has no effect on the first process of a PID namespace.
        until("the trap to be set", || async {
            match node.cri.logs(&id).await {
                Ok(lines) if !lines.is_empty() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        disk(&node).fill(shortage)?;
        node.cri.stop(&id, 20).await?;
        let ended = node.cri.status(&id).await?;
        assert_eq!(
            (ended.state(), ended.exit_code),
            (EXITED, 42),
            "{shortage:?}"
        );
        node.daemon.kill9().await?;
        node.daemon.restart().await?;
        assert_eq!(node.cri.status(&id).await?, ended, "{shortage:?}");
        disk(&node).free()?;
    }
    node.finish().await
}

/// A node whose disk is full has to come up, or nobody can clear it.
#[tokio::test]
async fn a_daemon_starts_on_a_full_disk() -> Result<()> {
    let mut node = start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    for shortage in [Shortage::Bytes, Shortage::Inodes] {
        disk(&node).fill(shortage)?;
        node.daemon.kill9().await?;
        node.daemon.restart().await?;
        assert_eq!(node.cri.shell(&id, "echo alive").await?, "alive\n");
        disk(&node).free()?;
    }
    node.finish().await
}
