//! Attacks that worked on container runtimes, each performed here: it fails with a clear error, or does nothing.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    process::Command,
};

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{Int64Value, NamespaceMode, RunPodSandboxRequest};
use podwright_integration::{
    images::{Compression, Entry, Image, Layer, Vocabulary},
    node::Node,
    pod::{ContainerSpec, PodSpec},
    tools::Tools,
};
use serde_json::{Value, json};
use tonic::Code;

/// The shell image with `entries` on top, under a name of its own.
async fn image_with(
    node: &mut Node,
    name: &str,
    entries: Vec<Entry>,
    config: Value,
) -> Result<String> {
    let image = Image::new(
        Vocabulary::Oci,
        &[(Layer::new(entries), Compression::Gzip)],
        &config,
    )?;
    node.registry
        .add(&format!("example.test/{name}:1"), &image)?;
    let reference = node.registry.reference(&format!("{name}:1"));
    node.cri.pull(&reference).await?;
    node.settle()?;
    Ok(reference)
}

/// CVE-2019-5736: the container's program is the runtime's own, which it then overwrites.
#[tokio::test]
async fn the_runtime_s_program_cannot_be_written() -> Result<()> {
    let mut node = Node::start().await?;
    let entries = vec![Entry::file("evil", 0o755, "#!/proc/self/exe\n")];
    let evil = image_with(&mut node, "evil", entries, json!({})).await?;
    let mut spec = PodSpec::new("pod");
    spec.namespaces().pid = NamespaceMode::Node.into();
    let pod = node.cri.run_pod(spec).await?;
    let pid = node.cri.pause_pid(&pod.id).await?;
    let program = fs::read(format!("/proc/{pid}/exe"))?;

    // The script's interpreter is what executes it: pause, in the container. It has nothing to serve there, and ends.
    let own = ContainerSpec::new("own").image(&evil).command(&["/evil"]);
    let own = node.cri.run(&pod, own).await?;
    assert_ne!(node.cri.wait_exit(&own).await?.exit_code, 0);

    let host_pid = |name: &str| {
        ContainerSpec::new(name).with_security(|security| {
            let options = security.namespace_options.get_or_insert_default();
            options.pid = NamespaceMode::Node.into();
        })
    };
    let plain = node.cri.run(&pod, host_pid("plain")).await?;
    // The default profile of AppArmor, where there is one, lets a container look at its own processes only.
    let tracer = host_pid("tracer")
        .capabilities(&["SYS_PTRACE", "DAC_OVERRIDE"])
        .unconfined();
    let tracer = node.cri.run(&pod, tracer).await?;
    let write = format!("echo owned > /proc/{pid}/exe");
    let read = format!("head -c 1 /proc/{pid}/exe");
    for (id, script) in [(&plain, &write), (&plain, &read), (&tracer, &write)] {
        let done = node.cri.exec(id, &["sh", "-c", script], 10).await?;
        assert_ne!(done.exit_code, 0, "{script:?} worked");
    }
    // The attacker could look, at least: the refusal above is that of the file, not of /proc.
    node.cri.shell(&tracer, &read).await?;
    assert_eq!(fs::read(format!("/proc/{pid}/exe"))?, program);
    node.finish().await
}

/// CVE-2020-15257, CVE-2024-25621: a socket that others reach.
#[tokio::test]
async fn the_socket_is_closed_to_other_users() -> Result<()> {
    let node = Node::start().await?;
    // Past the directories, which are closed as well, by a second name of the socket.
    let open = tempfile::tempdir_in("/tmp")?;
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755))?;
    let beside = node.daemon.slot().run_directory().parent();
    let linked = tempfile::tempdir_in(beside.context("a directory")?)?;
    fs::set_permissions(linked.path(), fs::Permissions::from_mode(0o755))?;
    let socket = linked.path().join("socket");
    fs::hard_link(node.daemon.socket(), &socket)?;
    let crictl = open.path().join("crictl");
    fs::copy(Tools::open()?.crictl(), &crictl)?;
    let ask = |uid: u32| {
        let mut command = Command::new(&crictl);
        command.args([
            "--timeout",
            "2s",
            "--config",
            "/dev/null",
            "--runtime-endpoint",
        ]);
        command
            .arg(format!("unix://{}", socket.display()))
            .arg("version");
        command.env("HOME", open.path()).uid(uid).gid(uid).output()
    };
    let own = ask(0)?;
    assert!(
        own.status.success(),
        "{}",
        String::from_utf8_lossy(&own.stderr)
    );
    let other = ask(1000)?;
    let words = String::from_utf8_lossy(&other.stderr);
    assert!(
        !other.status.success() && words.contains("permission denied"),
        "{words}"
    );
    let run = node.daemon.socket();
    for directory in run.ancestors().skip(1).take(1) {
        let mode = fs::metadata(directory)?.permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is {mode:o}", directory.display());
    }
    drop((open, linked));
    node.finish().await
}

/// CVE-2019-16884, CVE-2019-19921: a false /proc takes the labels, masks and settings that are meant for the true one.
#[tokio::test]
async fn nothing_is_mounted_over_proc() -> Result<()> {
    let mut node = Node::start().await?;
    let entries = vec![
        Entry::symlink("link", "/proc"),
        Entry::symlink("deep", "proc/self/../1"),
        Entry::directory("target", 0o755),
    ];
    let volumes = json!({ "Volumes": { "/proc": {}, "/proc/sys": {} }, "Cmd": ["/bin/sh"] });
    let links = image_with(&mut node, "links", entries, volumes).await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let fake = node.daemon.slot().path("fake");
    fs::create_dir_all(fake.join("self/attr"))?;
    fs::write(fake.join("self/attr/exec"), "")?;
    let path = fake.to_string_lossy();
    for (number, target) in [
        "/proc",
        "/proc/",
        "/proc/self",
        "/proc/self/attr",
        "/proc/sys",
        "/proc/1/ns",
    ]
    .iter()
    .enumerate()
    {
        let spec = ContainerSpec::new(&format!("c{number}")).mount(&path, target);
        let status = node.cri.create(&pod, spec).await.expect_err(target);
        assert_eq!(status.code(), Code::InvalidArgument, "{target}: {status:?}");
        assert!(status.message().contains("/proc"), "{status:?}");
    }
    for (name, target) in [
        ("link", "/link/self/attr"),
        ("sys", "/link/sys"),
        ("deep", "/deep/attr"),
    ] {
        let spec = ContainerSpec::new(name)
            .image(&links)
            .command(&["/nothing"])
            .mount(&path, target);
        let status = node.cri.run(&pod, spec).await.expect_err(target);
        assert!(
            status.message().contains("bind on /proc"),
            "{target}: {status:?}"
        );
    }
    assert_eq!(
        fs::read(fake.join("self/attr/exec"))?,
        b"",
        "a label was written to the volume"
    );
    // The image's own volumes there are nothing.
    let masked = ContainerSpec::new("masked").with_security(|security| {
        security.masked_paths = vec!["/proc/keys".to_owned()];
        security.readonly_paths = vec!["/proc/sys".to_owned()];
    });
    let id = node.cri.run(&pod, masked).await?;
    let script = "test -z \"$(cat /proc/keys)\" && ! echo 1 > /proc/sys/kernel/core_uses_pid";
    node.cri.shell(&id, script).await?;
    // lxcfs and its like replace single files.
    let uptime = node.daemon.slot().path("uptime");
    fs::write(&uptime, "1.00 1.00\n")?;
    let spec = ContainerSpec::new("lxcfs").mount(&uptime.to_string_lossy(), "/proc/uptime");
    let id = node.cri.run(&pod, spec).await?;
    assert_eq!(
        node.cri.shell(&id, "cat /proc/uptime").await?,
        "1.00 1.00\n"
    );
    node.finish().await
}

/// CVE-2025-31133: what masks a file is a link to another.
#[tokio::test]
async fn a_false_null_device_masks_nothing() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let dev = node.daemon.slot().path("dev");
    fs::create_dir(&dev)?;
    symlink("/etc/passwd", dev.join("null"))?;
    let spec = ContainerSpec::new("c")
        .mount(&dev.to_string_lossy(), "/dev")
        .with_security(|security| security.masked_paths = vec!["/etc/group".to_owned()]);
    let id = node.cri.run(&pod, spec).await?;
    let seen = node
        .cri
        .shell(&id, "stat -c '%F %t:%T' /etc/group; cat /etc/group")
        .await?;
    assert_eq!(seen, "character special file 1:3\n");
    node.finish().await
}

/// CVE-2024-21626: a working directory that a leaked descriptor of the host leads to.
#[tokio::test]
async fn no_descriptor_is_a_working_directory() -> Result<()> {
    let mut node = Node::start().await?;
    let config = json!({ "WorkingDir": "/proc/self/fd/8", "Cmd": ["/bin/sh"] });
    let entries = vec![Entry::directory("bin", 0o755)];
    let leaky = image_with(&mut node, "leaky", entries, config).await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for number in 0..32 {
        let mut spec = ContainerSpec::new(&format!("c{number}")).command(&["ls"]);
        spec.config.working_dir = format!("/proc/self/fd/{number}");
        let status = node.cri.run(&pod, spec).await.expect_err("it is none");
        assert!(status.message().contains("/proc/self/fd"), "{status:?}");
    }
    let spec = ContainerSpec::new("image")
        .image(&leaky)
        .command(&["/bin/ls"]);
    assert!(node.cri.run(&pod, spec).await.is_err());
    let id = node.cri.run(&pod, ContainerSpec::new("well")).await?;
    let open = node
        .cri
        .shell(&id, "cd /proc/1/fd && echo *; cd /proc/self/fd && echo *")
        .await?;
    for descriptors in open.lines() {
        let numbers: Vec<u32> = descriptors
            .split(' ')
            .filter_map(|text| text.parse().ok())
            .collect();
        assert!(numbers.iter().all(|number| *number <= 3), "{open}"); // 3 is the shell's own, of the directory
    }
    node.finish().await
}

/// CVE-2022-0811: a kernel setting smuggled in another's value; and others that are not the pod's.
#[tokio::test]
async fn sysctls_set_one_file_of_the_pod() -> Result<()> {
    let node = Node::start().await?;
    let core = fs::read("/proc/sys/kernel/core_pattern")?;
    for (name, value) in [
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/x"),
        ("kernel.shm_rmid_forced=1+kernel.core_pattern", "|/x"),
        ("kernel.core_pattern", "|/x"),
        ("kernel/core_pattern", "|/x"),
        ("net/../kernel/core_pattern", "|/x"),
        ("net.ipv4/../../kernel/core_pattern", "|/x"),
        ("vm.swappiness", "1"),
        ("kernel.hostname", "x"),
        ("", "1"),
    ] {
        let spec = PodSpec::new("pod").sysctl(name, value);
        let request = RunPodSandboxRequest {
            config: Some(spec.config),
            ..Default::default()
        };
        let refused = node.cri.client().runtime.run_pod_sandbox(request).await;
        assert!(refused.is_err(), "{name:?} = {value:?} was set");
    }
    let mut host = PodSpec::new("pod")
        .host_network()
        .sysctl("net.ipv4.ip_forward", "1");
    host.namespaces().ipc = NamespaceMode::Node.into();
    assert!(node.cri.run_pod(host).await.is_err(), "it is the host's");
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern")?, core);
    node.finish().await
}

/// CVE-2022-4318: a line more in a file of the container.
#[tokio::test]
async fn requests_add_no_lines_to_files() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let spec = ContainerSpec::new("c")
        .env("HOME", "/\nroot2::0:0::/:/bin/sh")
        .user(4000);
    let id = node.cri.run(&pod, spec).await?;
    let files = node
        .cri
        .shell(
            &id,
            "cat /etc/passwd /etc/group /etc/hosts /etc/hostname /etc/resolv.conf",
        )
        .await?;
    assert!(!files.contains("root2"), "{files}");
    let mut named = PodSpec::new("named");
    named.config.hostname = "x\n6.6.6.6 registry".to_owned();
    assert!(node.cri.run_pod(named).await.is_err());
    let mut resolved = PodSpec::new("resolved");
    let dns = resolved.config.dns_config.get_or_insert_default();
    dns.searches = vec!["a\nnameserver 6.6.6.6".to_owned()];
    assert!(node.cri.run_pod(resolved).await.is_err());
    node.finish().await
}

/// CVE-2024-40635: a user id that wraps to root's.
#[tokio::test]
async fn ids_do_not_wrap() -> Result<()> {
    let mut node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for (number, id) in [
        1_i64 << 32,
        (1 << 32) + 1,
        -1,
        u32::MAX.into(),
        i64::MAX,
        i64::MIN,
    ]
    .into_iter()
    .enumerate()
    {
        let user = ContainerSpec::new(&format!("u{number}")).user(id);
        let group = ContainerSpec::new(&format!("g{number}"))
            .user(1)
            .with_security(|security| {
                security.run_as_group = Some(Int64Value { value: id });
            });
        let more = ContainerSpec::new(&format!("s{number}"))
            .with_security(|security| security.supplemental_groups = vec![id]);
        for spec in [user, group, more] {
            let status = node.cri.create(&pod, spec).await.expect_err("it is no id");
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            assert!(status.message().contains(&id.to_string()), "{status:?}");
        }
    }
    for (number, user) in [
        "4294967296",
        "4294967296:0",
        "0:4294967296",
        "-1",
        "4294967295",
    ]
    .iter()
    .enumerate()
    {
        let config = json!({ "User": user, "Cmd": ["/bin/sh"] });
        let entries = vec![Entry::directory("bin", 0o755)];
        let reference = image_with(&mut node, &format!("user{number}"), entries, config).await?;
        let spec = ContainerSpec::new(&format!("i{number}")).image(&reference);
        assert!(node.cri.create(&pod, spec).await.is_err(), "{user}");
    }
    let high = node
        .cri
        .run(&pod, ContainerSpec::new("high").user(1 << 31))
        .await?;
    assert_eq!(node.cri.shell(&high, "id -u").await?, "2147483648\n");
    node.finish().await
}

/// CNI CVE-2020-10749: a pod that makes itself the others' router.
#[tokio::test]
async fn pods_take_no_router_s_word() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let script = "cd /proc/sys/net; cat ipv6/conf/eth0/accept_ra ipv6/conf/eth0/accept_redirects ipv4/conf/eth0/accept_redirects";
    let seen = node.cri.shell(&id, script).await?;
    assert_eq!(
        seen.split_whitespace().next(),
        Some("0"),
        "router advertisements"
    );
    let bridge = format!(
        "/proc/sys/net/ipv6/conf/{}/accept_ra",
        node.daemon.slot().bridge()
    );
    assert_eq!(fs::read_to_string(bridge)?.trim(), "0");
    node.finish().await
}

/// A privileged container comes only into a pod that says so (CRI: "this MUST be true").
#[tokio::test]
async fn privilege_is_announced_by_the_pod() -> Result<()> {
    let node = Node::start().await?;
    let privileged =
        || ContainerSpec::new("c").with_security(|security| security.privileged = true);
    let pod = node.cri.run_pod(PodSpec::new("plain")).await?;
    let status = node
        .cri
        .create(&pod, privileged())
        .await
        .expect_err("the pod is not");
    assert!(status.message().contains("privileged"), "{status:?}");
    let mut spec = PodSpec::new("pod");
    spec.linux()
        .security_context
        .get_or_insert_default()
        .privileged = true;
    let pod = node.cri.run_pod(spec).await?;
    let id = node.cri.run(&pod, privileged()).await?;
    node.cri
        .shell(
            &id,
            "test -c /dev/kmsg && test -w /proc/sys/kernel/core_pattern",
        )
        .await?;
    node.finish().await
}
