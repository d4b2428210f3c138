//! Who a container's processes are, for its first process and for commands in it alike.

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{Int64Value, SupplementalGroupsPolicy};
use podwright_integration::{
    images::{Compression, Entry, Image, Layer, Vocabulary},
    node::Node,
    pod::{ContainerSpec, PodSpec},
};
use serde_json::json;

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/srv/web:/bin/sh\n";
const GROUP: &str = "root:x:0:\nweb:x:1001:\nmail:x:50000:web\nwheel:x:10:root,web\n";

/// An image whose user 1000, `default-user`, is a member of the group 50000.
const PREDEFINED_GROUP: &str = "gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest";

/// An image that has users and nothing to run.
async fn image(node: &mut Node, user: &str) -> Result<String> {
    let layer = Layer::new([
        Entry::directory("etc", 0o755),
        Entry::file("etc/passwd", 0o644, PASSWD),
        Entry::file("etc/group", 0o644, GROUP),
    ]);
    let config = json!({ "User": user });
    let image = Image::new(Vocabulary::Oci, &[(layer, Compression::Gzip)], &config)?;
    let name = format!("users-{}", user.replace(':', "-"));
    node.registry
        .add(&format!("example.test/{name}:1"), &image)?;
    let reference = node.registry.reference(&format!("{name}:1"));
    node.cri.pull(&reference).await?;
    node.settle()?;
    Ok(reference)
}

/// CVE-2022-36109, CVE-2023-25173: groups are those of the request and its policy, and no others, in every process.
#[tokio::test]
async fn groups_follow_the_policy_in_the_container_and_its_commands() -> Result<()> {
    let mut node = Node::start().await?;
    node.cri.pull(PREDEFINED_GROUP).await?;
    node.settle()?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for (name, policy, extra, expected) in [
        (
            "merge",
            SupplementalGroupsPolicy::Merge,
            vec![7],
            vec![1000, 50_000, 7],
        ),
        (
            "strict",
            SupplementalGroupsPolicy::Strict,
            vec![7],
            vec![1000, 7],
        ),
        ("bare", SupplementalGroupsPolicy::Strict, vec![], vec![1000]),
    ] {
        let spec = ContainerSpec::new(name)
            .image(PREDEFINED_GROUP)
            .command(&["sleep", "1000"]);
        let spec = spec.with_security(|security| {
            security.supplemental_groups_policy = policy.into();
            security.supplemental_groups.clone_from(&extra);
        });
        let id = node.cri.run(&pod, spec).await?;
        let script =
            "id -u; id -g; for of in 1 self; do grep ^Groups: /proc/$of/status; done; echo $HOME";
        let seen = node.cri.shell(&id, script).await?;
        let mut lines = seen.lines();
        assert_eq!(
            (lines.next(), lines.next()),
            (Some("1000"), Some("1000")),
            "{seen}"
        );
        let mut sorted = expected.clone();
        sorted.sort_unstable();
        for line in lines.by_ref().take(2) {
            let mut groups: Vec<i64> = line
                .split_whitespace()
                .skip(1)
                .filter_map(|id| id.parse().ok())
                .collect();
            groups.sort_unstable();
            assert_eq!(groups, sorted, "{name}: {seen}");
        }
        assert_eq!(lines.next(), Some("/home/default-user"), "{seen}");
        let status = node.cri.status(&id).await?;
        let user = status.user.and_then(|user| user.linux).context("no user")?;
        let mut told = user.supplemental_groups.clone();
        told.sort_unstable();
        assert_eq!((user.uid, user.gid, told), (1000, 1000, sorted), "{name}");
    }
    node.finish().await
}

#[tokio::test]
async fn the_request_s_user_comes_before_the_image_s() -> Result<()> {
    let mut node = Node::start().await?;
    let image = image(&mut node, "1000:mail").await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let user_of =
        async |name: &str, change: &dyn Fn(ContainerSpec) -> ContainerSpec| -> Result<(i64, i64)> {
            let spec = change(ContainerSpec::new(name).image(&image).command(&["/none"]));
            let id = node.cri.create(&pod, spec).await?;
            let status = node.cri.status(&id).await?;
            let user = status.user.and_then(|user| user.linux).context("no user")?;
            Ok((user.uid, user.gid))
        };
    assert_eq!(user_of("image", &|spec| spec).await?, (1000, 50_000));
    assert_eq!(user_of("uid", &|spec| spec.user(5)).await?, (5, 0));
    let named = |spec: ContainerSpec| {
        spec.with_security(|security| security.run_as_username = "web".to_owned())
    };
    assert_eq!(user_of("name", &named).await?, (1000, 1001));
    let group = |spec: ContainerSpec| {
        spec.user(1000)
            .with_security(|security| security.run_as_group = Some(Int64Value { value: 9 }))
    };
    assert_eq!(user_of("group", &group).await?, (1000, 9));
    let alone = ContainerSpec::new("alone")
        .image(&image)
        .with_security(|security| {
            security.run_as_group = Some(Int64Value { value: 9 });
        });
    assert!(
        node.cri.create(&pod, alone).await.is_err(),
        "a group needs a user beside it"
    );
    let unknown = ContainerSpec::new("unknown")
        .image(&image)
        .with_security(|security| security.run_as_username = "nobody-here".to_owned());
    let status = node
        .cri
        .create(&pod, unknown)
        .await
        .expect_err("there is no such user");
    assert!(status.message().contains("nobody-here"), "{status:?}");
    node.finish().await
}

/// CVE-2022-27652: nothing is inheritable but what is ambient.
#[tokio::test]
async fn capabilities_are_those_asked_for() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let sets =
        async |name: &str, change: &dyn Fn(ContainerSpec) -> ContainerSpec| -> Result<Vec<u64>> {
            let id = node.cri.run(&pod, change(ContainerSpec::new(name))).await?;
            let text = node.cri.shell(&id, "grep ^Cap /proc/1/status").await?;
            let exec = node.cri.shell(&id, "grep ^Cap /proc/self/status").await?;
            assert_eq!(text, exec, "a command has what its container has");
            text.lines()
                .map(|line| {
                    u64::from_str_radix(line.split_whitespace().last().unwrap_or(""), 16)
                        .context(line.to_owned())
                })
                .collect()
        };
    // Inheritable, permitted, effective, bounding, ambient; proc_pid_status(5).
    let default = 0xa804_25fb;
    assert_eq!(
        sets("root", &|spec| spec).await?,
        [0, default, default, default, 0]
    );
    assert_eq!(
        sets("user", &|spec| spec.user(1000)).await?,
        [0, 0, 0, default, 0]
    );
    let none = |spec: ContainerSpec| {
        spec.with_security(|security| {
            security
                .capabilities
                .get_or_insert_default()
                .drop_capabilities = vec!["ALL".to_owned()];
        })
    };
    assert_eq!(sets("none", &none).await?, [0; 5]);
    let bind = 1 << 10;
    let ambient = |spec: ContainerSpec| {
        none(spec.user(1000)).with_security(|security| {
            security
                .capabilities
                .get_or_insert_default()
                .add_ambient_capabilities = vec!["NET_BIND_SERVICE".to_owned()];
        })
    };
    assert_eq!(sets("ambient", &ambient).await?, [bind; 5]);
    let quiet = ContainerSpec::new("quiet").with_security(|security| security.no_new_privs = true);
    let quiet = node.cri.run(&pod, quiet).await?;
    assert_eq!(
        node.cri
            .shell(
                &quiet,
                "grep ^NoNewPrivs: /proc/1/status /proc/self/status | cut -f 2"
            )
            .await?,
        "1\n1\n"
    );
    node.finish().await
}
