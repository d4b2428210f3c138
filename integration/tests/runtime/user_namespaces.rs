//! Pods with a user namespace of their own: root inside is nobody on the host.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{IdMapping, NamespaceMode, RunPodSandboxRequest, StatusRequest};
use podwright_integration::{
    cri::Pod,
    node::Node,
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

/// The host's id of the pods' root.
const BASE: u32 = 300_000;

fn mapping() -> IdMapping {
    IdMapping {
        container_id: 0,
        host_id: BASE,
        length: 65_536,
    }
}

fn pod_spec() -> PodSpec {
    PodSpec::new("pod").user_namespace(mapping())
}

fn container(name: &str) -> ContainerSpec {
    ContainerSpec::new(name).user_namespace(mapping())
}

async fn run(spec: ContainerSpec) -> Result<(Node, Pod, String)> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(pod_spec()).await?;
    let id = node.cri.run(&pod, spec).await?;
    Ok((node, pod, id))
}

/// Where the container's writable layer is on the disk.
async fn upper(node: &Node, id: &str) -> Result<PathBuf> {
    let request = podwright_cri_api::v1::ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: true,
    };
    let answer = node.cri.client().runtime.container_status(request).await?;
    let answer = answer.into_inner();
    let info: serde_json::Value = serde_json::from_str(&answer.info["info"])?;
    let directory = info["directory"].as_str().context("no directory")?;
    Ok(PathBuf::from(directory).join("upper"))
}

#[tokio::test]
async fn is_announced() -> Result<()> {
    let node = Node::start().await?;
    let request = StatusRequest { verbose: false };
    let status = node.cri.client().runtime.status(request).await?;
    let handlers = status.into_inner().runtime_handlers;
    let features = handlers[0].features.context("no features")?;
    assert!(features.user_namespaces);
    node.finish().await
}

#[tokio::test]
async fn root_inside_is_another_user_on_the_host_and_files_keep_sane_owners() -> Result<()> {
    let (node, _, id) = run(container("c")).await?;
    let seen = node.cri.shell(&id, "cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c %u:%g / /bin/busybox /etc/hosts /etc/resolv.conf /dev/shm /dev").await?;
    let fields: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(
        fields,
        [
            "0", "300000", "65536", "0", "300000", "65536", "0", "0:0", "0:0", "0:0", "0:0", "0:0",
            "0:0"
        ]
    );
    let pid = node.cri.container_pid(&id).await?;
    assert_eq!(fs::metadata(format!("/proc/{pid}"))?.uid(), BASE);
    node.cri
        .shell(&id, "echo own >> /etc/hosts; mkdir /made; echo x > /made/file; chown 33:100 /made/file; chmod 4755 /made/file; chmod 700 /bin/busybox; echo b > /dev/shm/b")
        .await?;
    let upper = upper(&node, &id).await?;
    let owner = |path: &str| fs::metadata(upper.join(path)).map(|meta| (meta.uid(), meta.gid()));
    assert_eq!(owner("")?, (BASE, BASE));
    assert_eq!(owner("made")?, (BASE, BASE));
    assert_eq!(owner("made/file")?, (BASE + 33, BASE + 100));
    assert_eq!(
        owner("bin/busybox")?,
        (BASE, BASE),
        "copied up, not chowned below"
    );
    node.finish().await
}

#[tokio::test]
async fn commands_streams_and_users() -> Result<()> {
    let script = "echo out > /dev/stdout; echo err > /dev/stderr; exec sleep 1000";
    let (node, pod, id) = run(container("c").shell(script).user(33)).await?;
    let by = node
        .cri
        .shell(&id, "id -u; id -g; echo again > /dev/stdout; hostname; cat /proc/1/comm; echo > /dev/null && head -c 1 /dev/zero | wc -c")
        .await?;
    assert_eq!(
        by.split_whitespace().collect::<Vec<_>>(),
        ["33", "33", "again", "pod", "sleep", "1"]
    );
    podwright_integration::node::until("the log", || async {
        let lines = node
            .cri
            .logs(&id)
            .await
            .map_err(|error| error.to_string())?;
        if lines.len() == 2 {
            Ok(())
        } else {
            Err(format!("{lines:?}"))
        }
    })
    .await?;
    let outcome = node.cri.exec(&id, &["/nowhere"], 5).await;
    assert_eq!(
        outcome.err().map(|status| status.code()),
        Some(Code::InvalidArgument)
    );
    let missing = node
        .cri
        .create(&pod, container("missing").command(&["/nowhere"]))
        .await?;
    let status = node
        .cri
        .start_container(&missing)
        .await
        .expect_err("there is no such program");
    assert!(status.message().contains("/nowhere"), "{status:?}");
    let ends = node
        .cri
        .run(&pod, container("ends").shell("exit 7"))
        .await?;
    assert_eq!(node.cri.wait_exit(&ends).await?.exit_code, 7);
    let status = node.cri.status(&id).await?;
    let user = status.user.and_then(|user| user.linux).context("no user")?;
    assert_eq!((user.uid, user.gid), (33, 33), "as the container counts");
    node.finish().await
}

#[tokio::test]
async fn root_inside_rules_its_own_namespaces() -> Result<()> {
    // The default profile of AppArmor, where there is one, allows no mount.
    let spec = container("c")
        .capabilities(&["SYS_ADMIN", "NET_ADMIN"])
        .unconfined();
    let (node, _, id) = run(spec).await?;
    for script in [
        "mkdir -p /mnt && mount -t tmpfs none /mnt && echo x > /mnt/x && umount /mnt",
        "mount -t proc none /mnt && test -d /mnt/1 && umount /mnt",
        "mkdir -p /mnt/sys && mount -t sysfs none /mnt/sys && umount /mnt/sys",
        "mkdir -p /mnt/mq && mount -t mqueue none /mnt/mq && umount /mnt/mq",
        "ip addr add 10.99.99.99/32 dev lo && ip addr show lo | grep -q 10.99.99.99",
        "hostname changed && test $(hostname) = changed",
    ] {
        node.cri.shell(&id, script).await?;
    }
    node.finish().await
}

/// What the root of a privileged container would do to the host, and cannot.
const ATTACKS: &[(&str, &str)] = &[
    (
        "a kernel setting",
        "echo '|/tmp/x' > /proc/sys/kernel/core_pattern",
    ),
    (
        "a setting of the machine",
        "echo 1 > /proc/sys/vm/drop_caches",
    ),
    ("sysrq", "echo h > /proc/sysrq-trigger"),
    (
        "a disk",
        "for disk in /dev/vd* /dev/sd* /dev/nvme*; do head -c 1 $disk && exit 0; done; exit 1",
    ),
    ("the kernel's log", "head -c 1 /dev/kmsg"),
    ("memory", "head -c 1 /dev/mem"),
    ("a new node of a device", "mknod /tmp/disk b 254 0"),
    (
        "the clock",
        "date -s @$(date +%s) 2>&1 | grep -q set && exit 1; exit 0",
    ),
    (
        "a disk's mount",
        "mkdir -p /mnt && mount -t ext4 /dev/vda /mnt",
    ),
    ("devtmpfs", "mount -t devtmpfs none /mnt"),
    (
        "the cgroups",
        "for file in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do test -e $file && mkdir ${file%/*}/attack && exit 0; done; exit 1",
    ),
    ("swap", "swapoff -a && swapon /dev/vda"),
    ("the host's secrets", "cat /host/secret"),
    ("the host's files", "echo owned > /host/file"),
    ("a file's owner", "chown 0:0 /host/file"),
    (
        "a read-only volume",
        "mount -o remount,rw /frozen && echo owned > /frozen/file",
    ),
    (
        "more user ids",
        "echo '0 0 4294967295' > /proc/self/uid_map",
    ),
    (
        "a nicer life",
        "nice -n -20 true && test $(nice -n -20 nice) = -20",
    ),
    ("modules", "insmod /bin/busybox"),
];

#[tokio::test]
async fn root_inside_has_no_power_over_the_host() -> Result<()> {
    let node = Node::start().await?;
    let mut spec = pod_spec();
    spec.linux()
        .security_context
        .get_or_insert_default()
        .privileged = true;
    let pod = node.cri.run_pod(spec).await?;
    let host = node.daemon.slot().path("host");
    fs::create_dir(&host)?;
    fs::set_permissions(&host, fs::Permissions::from_mode(0o755))?;
    fs::write(host.join("secret"), "secret")?;
    fs::set_permissions(host.join("secret"), fs::Permissions::from_mode(0o600))?;
    fs::write(host.join("file"), "whole")?;
    let path = host.to_string_lossy();
    let mut spec = container("c").mount(&path, "/host").mount(&path, "/frozen");
    spec.config.mounts[1].readonly = true;
    let id = node
        .cri
        .run(
            &pod,
            spec.with_security(|security| security.privileged = true),
        )
        .await?;
    let caps = node.cri.shell(&id, "grep CapEff /proc/self/status").await?;
    assert!(
        caps.trim().ends_with("ffff"),
        "it is privileged inside: {caps}"
    );
    let core = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    for (what, script) in ATTACKS {
        let done = node.cri.exec(&id, &["sh", "-c", script], 20).await?;
        assert_ne!(done.exit_code, 0, "{what}: {script:?} worked");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern")?, core);
    assert_eq!(fs::read_to_string(host.join("file"))?, "whole");
    assert_eq!(fs::metadata(host.join("file"))?.uid(), 0);
    node.finish().await
}

#[tokio::test]
async fn volumes_are_mapped_when_the_request_says_so() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(pod_spec()).await?;
    let volume = node.daemon.slot().path("volume");
    fs::create_dir(&volume)?;
    for (name, owner) in [("root", 0), ("web", 33)] {
        fs::write(volume.join(name), name)?;
        chown(volume.join(name), Some(owner), Some(owner))?;
    }
    let path = volume.to_string_lossy();
    let spec = container("c")
        .mapped_mount(&path, "/mapped", mapping())
        .mount(&path, "/plain");
    let id = node.cri.run(&pod, spec).await?;
    let seen = node
        .cri
        .shell(&id, "stat -c %u /mapped/root /mapped/web /plain/root; echo x > /mapped/new; echo y > /plain/new || echo refused")
        .await?;
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>(),
        ["0", "33", "65534", "refused"]
    );
    assert_eq!(fs::metadata(volume.join("new"))?.uid(), 0);
    for (name, host_path, wrong, parts) in [
        (
            "proc",
            "/proc/sys/net",
            mapping(),
            ["(proc)", "idmapped mounts"],
        ),
        (
            "other",
            &*path,
            IdMapping {
                host_id: BASE + 1,
                ..mapping()
            },
            ["/volume", "others than the pod's"],
        ),
    ] {
        let spec = container(name).mapped_mount(host_path, "/data", wrong);
        let status = node.cri.create(&pod, spec).await.expect_err(name);
        let told = parts.iter().all(|part| status.message().contains(part));
        assert!(
            told && status.message().contains(host_path),
            "{name}: {status:?}"
        );
    }
    let mut shared = container("shared").mapped_mount(&path, "/data", mapping());
    shared.config.mounts[0].propagation = 2;
    let status = node
        .cri
        .create(&pod, shared)
        .await
        .expect_err("it would mount on the host");
    assert!(status.message().contains("bidirectional"), "{status:?}");
    node.finish().await
}

#[tokio::test]
async fn the_pod_s_namespaces_are_shared_and_set_up() -> Result<()> {
    let node = Node::start().await?;
    let spec = pod_spec()
        .shared_pid()
        .sysctl("kernel.shm_rmid_forced", "1")
        .sysctl("fs.mqueue.msg_max", "11")
        .sysctl("net.ipv4.ip_local_port_range", "2000 3000");
    let pod = node.cri.run_pod(spec).await?;
    let shared = |name: &str| {
        container(name).with_security(|security| {
            let options = security.namespace_options.get_or_insert_default();
            options.pid = NamespaceMode::Pod.into();
        })
    };
    let one = node
        .cri
        .run(
            &pod,
            shared("one").shell("echo x > /dev/shm/x; exec sleep 1001"),
        )
        .await?;
    let two = node.cri.run(&pod, shared("two").user(1000)).await?;
    let mut target = container("three");
    let id = one.clone();
    target = target.with_security(move |security| {
        let options = security.namespace_options.get_or_insert_default();
        options.pid = NamespaceMode::Target.into();
        options.target_id = id;
    });
    let three = node.cri.run(&pod, target).await?;
    for id in [&two, &three] {
        let seen = node.cri.shell(id, "cat /proc/1/comm /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max /dev/shm/x; pgrep -f 'sleep 1001'").await?;
        let fields: Vec<&str> = seen.split_whitespace().collect();
        assert_eq!(fields[..4], ["pod-init", "1", "11", "x"], "{seen}");
        assert_eq!(fields.len(), 5, "{seen}");
    }
    let range = node
        .cri
        .shell(
            &two,
            "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv6/conf/eth0/accept_ra; ip -4 addr show eth0",
        )
        .await?;
    assert!(
        range.starts_with("2000\t3000\n0\n") && range.contains("inet "),
        "{range}"
    );
    node.finish().await
}

#[tokio::test]
async fn terminals_and_small_mappings() -> Result<()> {
    let node = Node::start().await?;
    // Without group 5, which terminals belong to elsewhere.
    let small = IdMapping {
        length: 4,
        ..mapping()
    };
    let pod = node
        .cri
        .run_pod(PodSpec::new("pod").user_namespace(small))
        .await?;
    let mut spec = ContainerSpec::new("c")
        .user_namespace(small)
        .shell("tty; stat -c %u /dev/console; test -t 0 && echo terminal; exec sleep 1000")
        .user(3);
    spec.config.tty = true;
    let id = node.cri.run(&pod, spec).await?;
    podwright_integration::node::until("the log", || async {
        let lines = node
            .cri
            .logs(&id)
            .await
            .map_err(|error| error.to_string())?;
        let text: String = lines
            .iter()
            .map(|line| line.text.trim().to_owned() + ";")
            .collect();
        if text == "/dev/pts/0;3;terminal;" {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await?;
    let unmapped = ContainerSpec::new("u").user_namespace(small).user(4);
    let status = node
        .cri
        .create(&pod, unmapped)
        .await
        .expect_err("4 is not mapped");
    assert!(
        status.message().contains("does not map the user id 4"),
        "{status:?}"
    );
    node.finish().await
}

#[tokio::test]
async fn survives_the_daemon() -> Result<()> {
    let (mut node, pod, id) = run(container("c")).await?;
    node.daemon.kill9().await?;
    node.daemon.restart().await?;
    node.cri = podwright_integration::cri::Cri::new(
        node.daemon.client(),
        &node.daemon.slot().path("logs"),
    );
    assert_eq!(
        node.cri
            .shell(&id, "id -u; awk '{print $2}' /proc/self/uid_map")
            .await?
            .split_whitespace()
            .last(),
        Some("300000")
    );
    let late = node.cri.run(&pod, container("late")).await?;
    node.cri
        .shell(&late, "touch /x && test $(stat -c %u /x) = 0")
        .await?;
    node.finish().await
}

#[tokio::test]
async fn impossible_requests_are_refused() -> Result<()> {
    let node = Node::start().await?;
    let map = |container_id, host_id, length| IdMapping {
        container_id,
        host_id,
        length,
    };
    let with = |mapping| PodSpec::new("pod").user_namespace(mapping);
    let mut two = with(map(0, 1000, 100));
    if let Some(options) = &mut two.namespaces().userns_options {
        options.uids.push(map(0, 2000, 100));
    }
    let mut groups = with(mapping());
    if let Some(options) = &mut groups.namespaces().userns_options {
        options.gids.clear();
    }
    let mut node_mode = with(mapping());
    if let Some(options) = &mut node_mode.namespaces().userns_options {
        options.mode = NamespaceMode::Node.into();
    }
    let mut of_container = with(mapping());
    if let Some(options) = &mut of_container.namespaces().userns_options {
        options.mode = NamespaceMode::Container.into();
    }
    let mut ipc = with(mapping());
    ipc.namespaces().ipc = NamespaceMode::Node.into();
    let mut pid = with(mapping());
    pid.namespaces().pid = NamespaceMode::Node.into();
    for (spec, expected) in [
        (with(map(0, 1000, 0)), "maps 1 id at least"),
        (with(map(0, u32::MAX, 2)), "impossible"),
        (with(map(1, 1000, 100)), "container's id 0"),
        (with(map(0, 0, 100)), "host's id 0"),
        (two, "overlap"),
        (groups, "no group id mappings"),
        (node_mode, "mode NODE"),
        (of_container, "POD and NODE"),
        (with(mapping()).host_network(), "host's network"),
        (ipc, "host's IPC"),
        (pid, "host's PID"),
    ] {
        let request = RunPodSandboxRequest {
            config: Some(spec.config),
            ..Default::default()
        };
        let status = node
            .cri
            .client()
            .runtime
            .run_pod_sandbox(request)
            .await
            .expect_err(expected);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(
            status.message().contains(expected),
            "{expected}: {status:?}"
        );
    }
    let pod = node.cri.run_pod(pod_spec()).await?;
    let status = node
        .cri
        .create(&pod, ContainerSpec::new("c"))
        .await
        .expect_err("it asks for the host's");
    assert!(
        status.message().contains("both must be the same"),
        "{status:?}"
    );
    node.finish().await
}
