//! Wrong requests: each gets the right code and a message that names what was wrong; nothing is
//! left behind.

use std::{fs, os::unix::fs::symlink};

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{
    ContainerStatusRequest, CreateContainerRequest, Device, ExecSyncRequest, Int64Value, Mount,
    NamespaceMode, PodSandboxConfig, RunPodSandboxRequest, StartContainerRequest,
    UpdateContainerResourcesRequest,
};
use podwright_integration::{
    images::{Compression, Entry, Image, Layer, Vocabulary},
    node::Node,
    pod::{ContainerSpec, PodSpec},
};
use serde_json::json;
use tonic::{Code, Status};

/// Long beyond any limit of a name, and below gRPC's of a message.
fn endless() -> String {
    "x".repeat(64 * 1024)
}

/// Why `answer` is not a refusal with one of `codes` that names all `parts`.
fn problem<T: std::fmt::Debug>(
    what: &str,
    answer: Result<T, Status>,
    codes: &[Code],
    parts: &[&str],
) -> Option<String> {
    let status = match answer {
        Ok(done) => return Some(format!("{what}: it was done: {done:.300?}")),
        Err(status) => status,
    };
    let message = status.message();
    let lacks = |part: &&&str| !message.contains(**part);
    if !codes.contains(&status.code()) {
        Some(format!(
            "{what}: {:?} for {codes:?}: {message}",
            status.code()
        ))
    } else if let Some(part) = parts.iter().find(lacks) {
        Some(format!("{what}: no {part:?} in {message:?}"))
    } else if message.len() >= 4096 {
        Some(format!(
            "{what}: the message repeats the input: {} bytes",
            message.len()
        ))
    } else {
        None
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(
    what: &str,
    answer: Result<T, Status>,
    codes: &[Code],
    parts: &[&str],
) {
    assert_eq!(problem(what, answer, codes, parts), None);
}

#[tokio::test]
async fn unknown_ids_are_not_found() -> Result<()> {
    let node = Node::start().await?;
    let mut runtime = node.cri.client().runtime;
    for id in [
        "",
        "nonsense",
        "../../etc/passwd",
        &"f".repeat(64),
        &endless(),
    ] {
        let what = &id[..id.len().min(20)];
        let codes = [Code::NotFound, Code::InvalidArgument];
        let container_id = id.to_owned();
        let status = ContainerStatusRequest {
            container_id: container_id.clone(),
            verbose: true,
        };
        refused(what, runtime.container_status(status).await, &codes, &[]);
        let start = StartContainerRequest {
            container_id: container_id.clone(),
        };
        refused(what, runtime.start_container(start).await, &codes, &[]);
        let cmd = vec!["true".to_owned()];
        let exec = ExecSyncRequest {
            container_id: container_id.clone(),
            cmd,
            timeout: 1,
        };
        refused(what, runtime.exec_sync(exec).await, &codes, &[]);
        let update = UpdateContainerResourcesRequest {
            container_id,
            ..Default::default()
        };
        refused(
            what,
            runtime.update_container_resources(update).await,
            &codes,
            &[],
        );
        refused(what, node.cri.pod_status(id).await, &codes, &[]);
        let config = Some(ContainerSpec::new("c").config);
        let pod_sandbox_id = id.to_owned();
        let create = CreateContainerRequest {
            pod_sandbox_id,
            config,
            ..Default::default()
        };
        refused(what, runtime.create_container(create).await, &codes, &[]);
    }
    node.finish().await
}

#[tokio::test]
async fn pods_without_what_they_need_are_refused() -> Result<()> {
    let node = Node::start().await?;
    let invalid = &[Code::InvalidArgument][..];
    let mut runtime = node.cri.client().runtime;
    refused(
        "no config",
        runtime
            .run_pod_sandbox(RunPodSandboxRequest::default())
            .await,
        invalid,
        &["config"],
    );
    let config = Some(PodSandboxConfig::default());
    let request = RunPodSandboxRequest {
        config,
        ..Default::default()
    };
    refused(
        "no metadata",
        runtime.run_pod_sandbox(request).await,
        invalid,
        &["metadata"],
    );
    let request = RunPodSandboxRequest {
        config: Some(PodSpec::new("pod").config),
        runtime_handler: "gvisor".to_owned(),
    };
    let codes = [Code::InvalidArgument, Code::NotFound];
    refused(
        "handler",
        runtime.run_pod_sandbox(request).await,
        &codes,
        &["gvisor"],
    );

    let change = |change: fn(&mut PodSpec)| {
        let mut spec = PodSpec::new("pod");
        change(&mut spec);
        spec
    };
    let cases: Vec<(&str, PodSpec, &[&str])> = vec![
        (
            "long name",
            change(|spec| spec.config.metadata.as_mut().unwrap().name = endless()),
            &["name"],
        ),
        (
            "no name",
            change(|spec| spec.config.metadata.as_mut().unwrap().name.clear()),
            &["name"],
        ),
        (
            "long hostname",
            change(|spec| spec.config.hostname = "h".repeat(65)),
            &["hostname"],
        ),
        (
            "hostname with a newline",
            change(|spec| spec.config.hostname = "a\nb".into()),
            &["hostname"],
        ),
        (
            "a relative log directory",
            change(|spec| spec.config.log_directory = "logs".into()),
            &["log"],
        ),
        (
            "a log directory with ..",
            change(|spec| spec.config.log_directory = "/tmp/../etc".into()),
            &["log"],
        ),
        (
            "host port",
            PodSpec::new("pod").port(80, 70_000),
            &["70000"],
        ),
        (
            "container port",
            PodSpec::new("pod").port(-1, 8080),
            &["-1"],
        ),
        (
            "sysctl",
            PodSpec::new("pod").sysctl("kernel.core_pattern", "|/x"),
            &["kernel.core_pattern"],
        ),
        (
            "sysctl path",
            PodSpec::new("pod").sysctl("net/../../kernel/panic", "1"),
            &["net/"],
        ),
        (
            "cgroup parent",
            PodSpec::new("pod").cgroup_parent("/a/../../b"),
            &["/a/../../b"],
        ),
        (
            "network mode",
            change(|spec| spec.namespaces().network = NamespaceMode::Container.into()),
            &["network"],
        ),
        (
            "unknown mode",
            change(|spec| spec.namespaces().ipc = 77),
            &["77"],
        ),
        (
            "dns newline",
            change(|spec| {
                spec.config.dns_config.get_or_insert_default().searches = vec!["a\nb".into()];
            }),
            &["DNS"],
        ),
    ];
    let mut problems = Vec::new();
    for (what, spec, parts) in cases {
        problems.extend(problem(what, node.cri.run_pod(spec).await, invalid, parts));
        node.cri.remove_all_pods().await?;
        node.check_leaks().await.with_context(|| what.to_owned())?;
    }
    assert!(problems.is_empty(), "{problems:#?}");
    node.finish().await
}

#[tokio::test]
async fn containers_without_what_they_need_are_refused() -> Result<()> {
    let mut node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    node.settle()?;
    let invalid = &[Code::InvalidArgument][..];
    let not_found = &[Code::NotFound, Code::InvalidArgument][..];
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.id.clone(),
        ..Default::default()
    };
    refused(
        "no config",
        node.cri.client().runtime.create_container(request).await,
        invalid,
        &["config"],
    );

    let change = |change: fn(&mut ContainerSpec)| {
        let mut spec = ContainerSpec::new("c");
        change(&mut spec);
        spec
    };
    let cases: Vec<(&str, ContainerSpec, &[Code], &[&str])> = vec![
        (
            "no metadata",
            change(|spec| spec.config.metadata = None),
            invalid,
            &["metadata"],
        ),
        (
            "no image",
            change(|spec| spec.config.image = None),
            invalid,
            &["image"],
        ),
        (
            "long name",
            ContainerSpec::new(&endless()),
            invalid,
            &["name"],
        ),
        (
            "absent image",
            ContainerSpec::new("c").image("example.test/absent:1"),
            not_found,
            &["example.test/absent:1"],
        ),
        (
            "log path",
            change(|spec| spec.config.log_path = "../../x.log".into()),
            invalid,
            &["../../x.log"],
        ),
        (
            "environment",
            ContainerSpec::new("c").env("A=B", "1"),
            invalid,
            &["A=B"],
        ),
        (
            "environment",
            ContainerSpec::new("c").env("A", "1\0"),
            invalid,
            &["A"],
        ),
        (
            "relative mount",
            ContainerSpec::new("c").mount("tmp", "/x"),
            invalid,
            &["tmp"],
        ),
        (
            "device",
            change(|spec| {
                spec.config.devices.push(Device {
                    host_path: "/dev/no-such-device".into(),
                    container_path: "/dev/x".into(),
                    permissions: "rwm".into(),
                });
            }),
            not_found,
            &["/dev/no-such-device"],
        ),
        (
            "capability",
            ContainerSpec::new("c").with_security(|security| {
                security
                    .capabilities
                    .get_or_insert_default()
                    .add_capabilities = vec!["FLY".into()];
            }),
            invalid,
            &["FLY"],
        ),
        (
            "user number",
            ContainerSpec::new("c").user(1 << 32),
            invalid,
            &["4294967296"],
        ),
        (
            "negative user",
            ContainerSpec::new("c").user(-5),
            invalid,
            &["-5"],
        ),
        (
            "user name",
            ContainerSpec::new("c").with_security(|s| s.run_as_username = "nosuchuser".into()),
            not_found,
            &["nosuchuser"],
        ),
        (
            "group alone",
            ContainerSpec::new("c")
                .with_security(|s| s.run_as_group = Some(Int64Value { value: 1 })),
            invalid,
            &["group"],
        ),
        (
            "memory",
            ContainerSpec::new("c").with_resources(|limits| limits.memory_limit_in_bytes = 1),
            invalid,
            &["memory"],
        ),
        (
            "cpus",
            ContainerSpec::new("c").with_resources(|limits| limits.cpuset_cpus = "0-9999".into()),
            invalid,
            &["0-9999"],
        ),
        (
            "cpu quota",
            ContainerSpec::new("c").with_resources(|limits| {
                (limits.cpu_quota, limits.cpu_period) = (1, 100_000);
            }),
            invalid,
            &["quota"],
        ),
        (
            "oom score",
            ContainerSpec::new("c").with_resources(|limits| limits.oom_score_adj = 2000),
            invalid,
            &["2000"],
        ),
        (
            "propagation",
            change(|spec| {
                spec.config.mounts.push(Mount {
                    host_path: "/tmp".into(),
                    container_path: "/x".into(),
                    propagation: 9,
                    ..Mount::default()
                });
            }),
            invalid,
            &["9"],
        ),
    ];
    let mut problems = Vec::new();
    for (what, spec, codes, parts) in cases {
        // Some limits are only impossible for the kernel, which is asked at the start.
        let answer = match node.cri.create(&pod, spec).await {
            Ok(id) => {
                let answer = node.cri.start_container(&id).await;
                node.cri.remove(&id).await?;
                answer
            }
            Err(refused) => Err(refused),
        };
        problems.extend(problem(what, answer, codes, parts));
        node.check_leaks().await.with_context(|| what.to_owned())?;
    }
    assert!(problems.is_empty(), "{problems:#?}");
    node.cri.remove_all_pods().await?;
    drop(node);
    Ok(())
}

/// What only shows at the start: the container ends with the reason, and the pod is as well as before.
#[tokio::test]
async fn programs_that_cannot_run_are_named() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let codes = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::PermissionDenied,
    ];
    for (number, (command, parts)) in [
        (
            &["/no/such/program"][..],
            &["/no/such/program", "No such file"][..],
        ),
        (&["nosuchcommand"], &["nosuchcommand"]),
        (&["/etc/passwd"], &["/etc/passwd", "denied"]),
        (&["/etc"], &["/etc"]),
    ]
    .into_iter()
    .enumerate()
    {
        let spec = ContainerSpec::new(&format!("c{number}")).command(command);
        refused(command[0], node.cri.run(&pod, spec).await, &codes, parts);
    }
    let id = node.cri.run(&pod, ContainerSpec::new("well")).await?;
    match node.cri.exec(&id, &["/no/such/program"], 5).await {
        Ok(done) => {
            assert_eq!(done.exit_code, 127);
            assert!(String::from_utf8_lossy(&done.stderr).contains("/no/such/program"));
        }
        Err(status) => refused::<()>("exec", Err(status), &codes, &["/no/such/program"]),
    }
    refused(
        "empty exec",
        node.cri.exec(&id, &[], 5).await,
        &[Code::InvalidArgument],
        &[],
    );
    let negative = node.cri.exec_for(&id, &["true"], -1).await;
    refused(
        "negative timeout",
        negative,
        &[Code::InvalidArgument],
        &["-1"],
    );
    node.finish().await
}

#[tokio::test]
async fn a_file_that_no_kernel_runs_is_named() -> Result<()> {
    let mut node = Node::start().await?;
    let layer = Layer::new([
        Entry::file("text", 0o755, "not a program\n"),
        Entry::file("script", 0o755, "#!/no/such/interpreter\n"),
    ]);
    let image = Image::new(Vocabulary::Oci, &[(layer, Compression::Gzip)], &json!({}))?;
    node.registry.add("example.test/unrunnable:1", &image)?;
    let reference = node.registry.reference("unrunnable:1");
    node.cri.pull(&reference).await?;
    node.settle()?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let codes = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::FailedPrecondition,
    ];
    for program in ["/text", "/script"] {
        let spec = ContainerSpec::new(&program[1..])
            .image(&reference)
            .command(&[program]);
        refused(program, node.cri.run(&pod, spec).await, &codes, &[program]);
    }
    let spec = ContainerSpec::new("none").image(&reference);
    refused(
        "no command",
        node.cri.create(&pod, spec).await,
        &[Code::InvalidArgument],
        &["command"],
    );
    node.finish().await
}

#[tokio::test]
async fn links_in_the_log_directory_are_not_followed() -> Result<()> {
    let node = Node::start().await?;
    let outside = tempfile::tempdir()?;
    let directory = node.daemon.slot().path("logs/linked");
    fs::create_dir_all(&directory)?;
    symlink(outside.path(), directory.join("link"))?;
    let mut spec = PodSpec::new("pod");
    spec.config.log_directory = directory.display().to_string();
    let pod = node.cri.run_pod(spec).await?;
    let mut container = ContainerSpec::new("c").shell("echo x");
    container.config.log_path = "link/c.log".to_owned();
    assert!(node.cri.run(&pod, container).await.is_err());
    assert_eq!(
        fs::read_dir(outside.path())?.count(),
        0,
        "the link was followed"
    );
    node.finish().await
}

#[tokio::test]
async fn an_unreachable_registry_is_named() -> Result<()> {
    let node = Node::start().await?;
    // Port 1 of the loopback: nothing listens there.
    let refusal = node.cri.pull("127.0.0.1:1/a/b:1").await;
    refused(
        "unreachable",
        refusal,
        &[Code::Unavailable],
        &["127.0.0.1:1/a/b:1", "refused"],
    );
    for wrong in ["", "localhost/UPPER", "a b", "x@sha256:12", &endless()] {
        let what = &wrong[..wrong.len().min(20)];
        refused(
            what,
            node.cri.pull(wrong).await,
            &[Code::InvalidArgument],
            &[],
        );
    }
    let absent = node.registry.reference("no/such/image:1");
    refused(
        "absent",
        node.cri.pull(&absent).await,
        &[Code::NotFound],
        &[&absent],
    );
    node.finish().await
}
