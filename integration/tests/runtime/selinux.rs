//! SELinux: the labels of containers, and what the levels keep them from.
//!
//! These tests need a kernel that enforces a policy with a module for containers, and fail without;
//! `cargo xtask vm -- --selinux runtime selinux:: --include-ignored` has it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use podwright_cri_api::v1::{NamespaceMode, SeLinuxOption, StatusRequest};
use podwright_integration::{
    cri::Pod,
    node::Node,
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

const LABEL: &str = "tr -d '\\0' < /proc/self/attr/current";
const PROCESS: &str = "system_u:system_r:container_t:";
const FILE: &str = "system_u:object_r:container_file_t:";

fn require_selinux() -> Result<()> {
    let enforcing = fs::read_to_string("/sys/fs/selinux/enforce");
    ensure!(
        enforcing.is_ok_and(|text| text.starts_with('1')),
        "this kernel enforces no SELinux policy: run `cargo xtask vm -- --selinux runtime selinux:: --include-ignored`"
    );
    Ok(())
}

fn asks(spec: ContainerSpec, change: impl FnOnce(&mut SeLinuxOption)) -> ContainerSpec {
    spec.with_security(|security| change(security.selinux_options.get_or_insert_default()))
}

/// The level in what LABEL prints.
fn level(label: &str) -> Result<&str> {
    let level = label.strip_prefix(PROCESS);
    level.with_context(|| format!("{label} is not the label of a container"))
}

async fn run(node: &Node, pod: &Pod, spec: ContainerSpec) -> Result<(String, String)> {
    let id = node.cri.run(pod, spec).await?;
    let label = node.cri.shell(&id, LABEL).await?;
    Ok((id, label))
}

#[tokio::test]
#[ignore = "needs a kernel that enforces SELinux"]
async fn a_pod_has_a_level_of_its_own() -> Result<()> {
    require_selinux()?;
    let mut node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let other = node.cri.run_pod(PodSpec::new("other")).await?;
    let (one, label) = run(&node, &pod, ContainerSpec::new("one")).await?;
    let own = level(&label)?.to_owned();
    assert!(own.starts_with("s0:c") && own.contains(",c"), "{label}");
    assert_eq!(
        node.cri
            .shell(&one, "tr -d '\\0' < /proc/1/attr/current")
            .await?,
        label
    );
    let (two, same) = run(&node, &pod, ContainerSpec::new("two")).await?;
    assert_eq!(same, label);
    let (_, different) = run(&node, &other, ContainerSpec::new("other")).await?;
    assert_ne!(level(&different)?, own);

    // The root, /dev and /dev/shm have the label of the pod's files.
    let mounts = node.cri.shell(&one, "cat /proc/self/mountinfo").await?;
    let context = format!("context=\"{FILE}{own}\"");
    for point in ["/", "/dev", "/dev/pts", "/dev/shm"] {
        let mut lines = mounts
            .lines()
            .filter(|line| line.split(' ').nth(4) == Some(point));
        let line = lines
            .next()
            .with_context(|| format!("no mount on {point}"))?;
        assert!(line.contains(&context), "{line}");
    }
    // What the runtime makes is the pod's to use.
    let script = "echo here > /dev/shm/f && echo here > /tmp/f && cat /etc/hosts /etc/resolv.conf /etc/hostname";
    node.cri.shell(&one, script).await?;
    assert_eq!(node.cri.shell(&two, "cat /dev/shm/f").await?, "here\n");

    node.daemon.kill9().await?;
    node.daemon.restart().await?;
    let (_, later) = run(&node, &pod, ContainerSpec::new("later")).await?;
    assert_eq!(later, label, "the level is the pod's");
    assert_eq!(node.cri.shell(&one, LABEL).await?, label);
    let third = node.cri.run_pod(PodSpec::new("third")).await?;
    let (_, third) = run(&node, &third, ContainerSpec::new("third")).await?;
    assert!(third != label && third != different, "{third}");
    node.finish().await
}

#[tokio::test]
#[ignore = "needs a kernel that enforces SELinux"]
async fn requests_replace_parts_of_the_label() -> Result<()> {
    require_selinux()?;
    let node = Node::start().await?;
    let mut spec = PodSpec::new("pod");
    let security = spec.linux().security_context.get_or_insert_default();
    security.privileged = true;
    security.selinux_options.get_or_insert_default().level = "s0:c4,c5".to_owned();
    let pod = node.cri.run_pod(spec).await?;
    let spec = |name: &str| ContainerSpec::new(name);
    let (_, inherited) = run(&node, &pod, spec("inherited")).await?;
    assert_eq!(inherited, format!("{PROCESS}s0:c4,c5"));
    let own = asks(spec("own"), |options| options.level = "s0:c6,c7".to_owned());
    assert_eq!(run(&node, &pod, own).await?.1, format!("{PROCESS}s0:c6,c7"));
    let privileged = spec("privileged").with_security(|security| {
        security.privileged = true;
        security.selinux_options = Some(SeLinuxOption::default());
    });
    assert_eq!(
        run(&node, &pod, privileged).await?.1,
        "system_u:system_r:spc_t:s0"
    );

    for (name, change) in [
        (
            "type",
            (|options| options.r#type = "no_such_t".to_owned()) as fn(&mut SeLinuxOption),
        ),
        ("user", |options| options.user = "no_such_u".to_owned()),
        ("level", |options| options.level = "s0,c4,c5".to_owned()),
        ("word", |options| {
            options.role = "system_r\",x=\"".to_owned()
        }),
    ] {
        let status = node.cri.create(&pod, asks(spec(name), change)).await;
        let status = status.expect_err(name);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("SELinux"), "{status}");
    }

    let mut host = PodSpec::new("host");
    host.namespaces().pid = NamespaceMode::Node.into();
    let host = node.cri.run_pod(host).await?;
    let sees_all = spec("host").with_security(|security| {
        let options = security.namespace_options.get_or_insert_default();
        options.pid = NamespaceMode::Node.into();
    });
    assert_eq!(
        run(&node, &host, sees_all).await?.1,
        "system_u:system_r:spc_t:s0"
    );

    let request = StatusRequest { verbose: true };
    let status = node
        .cri
        .client()
        .runtime
        .status(request)
        .await?
        .into_inner();
    let conditions = status.status.unwrap_or_default().conditions;
    assert!(
        conditions.iter().all(|condition| condition.status),
        "{conditions:?}"
    );
    assert!(
        status.info["config"].contains(PROCESS),
        "{}",
        status.info["config"]
    );
    node.finish().await
}

/// A volume is for the pod that relabelled it, whatever its files' modes say.
#[tokio::test]
#[ignore = "needs a kernel that enforces SELinux"]
async fn a_volume_is_its_pod_s() -> Result<()> {
    require_selinux()?;
    let node = Node::start().await?;
    let volume = node.daemon.slot().path("volume");
    fs::create_dir_all(volume.join("deep"))?;
    fs::write(volume.join("deep/file"), "first\n")?;
    let mounted = |name: &str| {
        ContainerSpec::new(name)
            .mount(&volume.to_string_lossy(), "/v")
            .capabilities(&["DAC_OVERRIDE"])
    };
    let relabelled = |name: &str| {
        let mut spec = mounted(name);
        spec.config.mounts[0].selinux_relabel = true;
        spec
    };
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let other = node.cri.run_pod(PodSpec::new("other")).await?;
    let denied = async |id: &str, script: &str| -> Result<()> {
        let done = node.cri.exec(id, &["sh", "-c", script], 20).await?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.exit_code != 0, "{script} was possible");
        ensure!(
            said.to_lowercase().contains("permission denied"),
            "{script}: {said}"
        );
        Ok(())
    };
    let (read, write) = ("cat /v/deep/file", "echo more >> /v/deep/file");

    let (unlabelled, _) = run(&node, &pod, mounted("unlabelled")).await?;
    denied(&unlabelled, read)
        .await
        .context("the host's label")?;
    let (owner, label) = run(&node, &pod, relabelled("owner")).await?;
    node.cri.shell(&owner, write).await?;
    assert_eq!(node.cri.shell(&unlabelled, read).await?, "first\nmore\n");

    let (stranger, _) = run(&node, &other, mounted("stranger")).await?;
    denied(&stranger, read).await.context("another level")?;
    denied(&stranger, write).await.context("another level")?;
    let own = level(&label)?.to_owned();
    let friend = asks(mounted("friend"), |options| options.level = own);
    let (friend, _) = run(&node, &other, friend).await?;
    assert_eq!(node.cri.shell(&friend, read).await?, "first\nmore\n");

    let (heir, _) = run(&node, &other, relabelled("heir")).await?;
    node.cri.shell(&heir, read).await?;
    node.cri.shell(&stranger, read).await?;
    denied(&owner, read)
        .await
        .context("it is another pod's now")?;
    node.finish().await
}
