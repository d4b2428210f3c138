//! Images.

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{Image, ImageFsInfoRequest, ImageStatusRequest, ListImagesRequest};
use podwright_integration::{
    images::{BUSYBOX, HTTPD, NGINX},
    pod::ContainerSpec,
};
use serde_json::Value;

use super::{crictl::Crictl, runtime::number, table};

pub(super) const COMMANDS: &[&str] = &["pull", "images", "inspecti", "imagefsinfo", "rmi"];

/// How much of an id a table shows.
const SHORT: usize = 13;

#[tokio::test]
async fn images() -> Result<()> {
    let crictl = Crictl::start(COMMANDS).await?;
    pull(&crictl).await?;
    list(&crictl).await?;
    filters(&crictl).await?;
    inspect(&crictl).await?;
    filesystem(&crictl).await?;
    remove(&crictl).await?;
    crictl.finish().await
}

async fn image(crictl: &Crictl, name: &str) -> Result<Image> {
    let request = ImageStatusRequest {
        image: Some(podwright_cri_api::v1::ImageSpec {
            image: name.to_owned(),
            ..Default::default()
        }),
        verbose: false,
    };
    let answer = crictl.node.cri.client().image.image_status(request).await?;
    answer
        .into_inner()
        .image
        .with_context(|| format!("no image {name}"))
}

async fn pull(crictl: &Crictl) -> Result<()> {
    for (name, options) in [
        (NGINX, &["--pull-timeout", "30s"][..]),
        (HTTPD, &["--creds", "somebody:secret"]),
    ] {
        let pull = [&["pull"], options, &[name]].concat();
        let shown = crictl.run(&pull).await?;
        let id = image(crictl, name).await?.id;
        assert_eq!(shown, format!("Image is up to date for {id}"));
    }
    let refused = crictl.refused(&["pull", "registry.k8s.io/absent:1"]);
    let refused = refused.await?;
    assert!(refused.contains("NotFound"), "{refused}");
    assert!(refused.contains("registry.k8s.io/absent:1"), "{refused}");
    Ok(())
}

async fn list(crictl: &Crictl) -> Result<()> {
    let mut client = crictl.node.cri.client().image;
    let answer = client.list_images(ListImagesRequest::default());
    let mut images = answer.await?.into_inner().images;
    assert_eq!(images.len(), 3);
    // As crictl sorts them.
    images.sort_by(|a, b| a.repo_tags.cmp(&b.repo_tags));
    let ids: Vec<_> = images.iter().map(|image| image.id.clone()).collect();

    let shown = crictl.json(&["images", "-o", "json"]).await?;
    let shown = shown["images"].as_array().context("no list")?;
    assert_eq!(shown.len(), images.len());
    for (shown, image) in shown.iter().zip(&images) {
        assert_eq!(shown["id"], Value::from(image.id.as_str()));
        assert_eq!(shown["repoTags"], Value::from(image.repo_tags.clone()));
        assert_eq!(
            shown["repoDigests"],
            Value::from(image.repo_digests.clone())
        );
        assert_eq!(number(&shown["size"]), i64::try_from(image.size).ok());
        assert_eq!(shown["pinned"], Value::from(image.pinned));
    }
    let yaml = crictl.run(&["images", "-o", "yaml"]).await?;
    for id in &ids {
        assert!(yaml.contains(id), "{yaml}");
    }
    assert_eq!(crictl.lines(&["images", "-q"]).await?, ids);

    let table = table::rows(&crictl.run(&["images", "--pinned"]).await?)?;
    let short: Vec<_> = ids
        .iter()
        .map(|id| id["sha256:".len()..][..SHORT].to_owned())
        .collect();
    assert_eq!(table::column(&table, "IMAGE ID"), short);
    assert_eq!(table::column(&table, "PINNED"), ["false"; 3]);
    let names = table::column(&table, "IMAGE").into_iter();
    let names: Vec<_> = names
        .zip(table::column(&table, "TAG"))
        .map(|(name, tag)| format!("{name}:{tag}"))
        .collect();
    assert_eq!(names, [BUSYBOX, HTTPD, NGINX]);
    let table = crictl.run(&["images", "--digests", "--no-trunc"]).await?;
    let table = table::rows(&table)?;
    assert_eq!(table::column(&table, "IMAGE ID"), ids);
    for (digest, image) in table::column(&table, "DIGEST").iter().zip(&images) {
        assert!(image.repo_digests[0].ends_with(digest), "{digest}");
    }
    Ok(())
}

async fn filters(crictl: &Crictl) -> Result<()> {
    let busybox = image(crictl, BUSYBOX).await?.id;
    for arguments in [
        &["images", "-q", BUSYBOX][..],
        &["images", "-q", "--filter", "reference=.*/busybox.*"],
        &["images", "-q", &busybox],
    ] {
        assert_eq!(
            crictl.lines(arguments).await?,
            [busybox.as_str()],
            "{arguments:?}"
        );
    }
    let none = ["images", "-q", "--filter", "dangling=true"];
    assert_eq!(crictl.run(&none).await?, "");
    let verbose = crictl.run(&["images", "-v", BUSYBOX]).await?;
    assert!(
        verbose.contains(&format!("RepoTags: {BUSYBOX}")),
        "{verbose}"
    );
    Ok(())
}

async fn inspect(crictl: &Crictl) -> Result<()> {
    let id = image(crictl, NGINX).await?.id;
    for name in [
        NGINX,
        &id,
        &id["sha256:".len()..],
        &id["sha256:".len()..][..SHORT],
    ] {
        let shown = crictl.json(&["inspecti", name]).await?;
        assert_eq!(shown["status"]["id"], Value::from(id.as_str()), "{name}");
        assert!(!shown["info"].is_null(), "{shown}");
    }
    let shown = crictl.json(&["inspecti", "-q", NGINX]).await?;
    assert!(shown["info"].is_null(), "{shown}");
    let template = "{{index .status.repoTags 0}}";
    let inspect = ["inspecti", "-o", "go-template", "--template", template];
    let shown = crictl.run(&[&inspect[..], &[&id]].concat()).await?;
    assert_eq!(shown, NGINX);
    let shown = crictl.run(&["inspecti", "-o", "table", NGINX]).await?;
    assert!(shown.contains(&format!("ID: {id}")), "{shown}");
    let shown = crictl.run(&["inspecti", "-o", "yaml", NGINX]).await?;
    assert!(shown.contains(&format!("id: {id}")), "{shown}");
    let refused = crictl.refused(&["inspecti", "absent"]).await?;
    assert!(refused.contains("no such image"), "{refused}");
    Ok(())
}

async fn filesystem(crictl: &Crictl) -> Result<()> {
    let mut client = crictl.node.cri.client().image;
    let answer = client.image_fs_info(ImageFsInfoRequest::default()).await?;
    let answer = answer.into_inner();
    let usage = answer.image_filesystems.first().context("no filesystem")?;
    let mountpoint = usage.fs_id.clone().context("no mount point")?.mountpoint;
    let bytes = usage.used_bytes.context("no bytes")?.value;
    assert!(bytes > 0);

    let shown = crictl.json(&["imagefsinfo"]).await?;
    let shown = &shown["status"]["imageFilesystems"][0];
    assert_eq!(
        shown["fsId"]["mountpoint"],
        Value::from(mountpoint.as_str())
    );
    assert_eq!(
        number(&shown["usedBytes"]["value"]),
        i64::try_from(bytes).ok()
    );
    let inodes = number(&shown["inodesUsed"]["value"]);
    assert!(inodes > Some(0), "{shown}");
    let shown = crictl.run(&["imagefsinfo", "-o", "table"]).await?;
    assert!(
        shown.contains(&format!("Mountpoint[0]: {mountpoint}")),
        "{shown}"
    );
    let shown = crictl.run(&["imagefsinfo", "-o", "yaml"]).await?;
    assert!(shown.contains(&mountpoint), "{shown}");
    Ok(())
}

async fn remove(crictl: &Crictl) -> Result<()> {
    let shown = crictl.run(&["rmi", NGINX]).await?;
    assert_eq!(shown, format!("Deleted: {NGINX}"));
    let refused = crictl.refused(&["rmi", NGINX]).await?;
    assert!(refused.contains("no such image"), "{refused}");
    // An image that a container uses is kept.
    let pod = crictl.pod("images").await?;
    crictl
        .node
        .cri
        .create(&pod, ContainerSpec::new("user"))
        .await?;
    let shown = crictl.run(&["rmi", "--prune"]).await?;
    assert_eq!(shown, format!("Deleted: {HTTPD}"));
    let left = crictl.lines(&["images", "-q"]).await?;
    assert_eq!(left, [image(crictl, BUSYBOX).await?.id]);
    crictl.node.cri.remove_all_pods().await?;
    let shown = crictl.run(&["rmi", "--all"]).await?;
    assert_eq!(shown, format!("Deleted: {BUSYBOX}"));
    assert_eq!(crictl.run(&["images", "-q"]).await?, "");
    Ok(())
}
