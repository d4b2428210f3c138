//! Plugins of the Node Resource Interface, written with the public Go library: they see everything, change what they may, and
//! when they fail nobody else does.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{
    CdiDevice, ContainerState, LinuxContainerResources, UpdateContainerResourcesRequest,
    UpdatePodSandboxResourcesRequest,
};
use podwright_integration::{
    node::{Node, Slot, until},
    patience::patience,
    pod::{ContainerSpec, PodSpec},
    tools::nri::{self, ExternalPlugin},
};
use tonic::{Code, Status};

const MEBIBYTE: i64 = 1 << 20;

/// A directory that the plugin mounts into containers.
fn volume(slot: &Slot) -> Result<String> {
    let directory = slot.path("logs/nri-volume");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("file"), "from the plugin")?;
    Ok(directory.display().to_string())
}

async fn memory_limit(node: &Node, id: &str) -> Result<i64> {
    let resources = node.cri.status(id).await?.resources;
    let linux = resources.and_then(|resources| resources.linux);
    Ok(linux
        .context("no resources in the status")?
        .memory_limit_in_bytes)
}

/// Changes a pod's memory limits; 0 leaves one out.
async fn update_pod(node: &Node, pod: &str, overhead: i64, memory: i64) -> Result<(), Status> {
    let limit = |bytes| LinuxContainerResources {
        memory_limit_in_bytes: bytes,
        ..LinuxContainerResources::default()
    };
    let request = UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.to_owned(),
        overhead: (overhead != 0).then(|| limit(overhead)),
        resources: (memory != 0).then(|| limit(memory)),
    };
    let mut runtime = node.cri.client().runtime;
    let updated = runtime.update_pod_sandbox_resources(request).await;
    updated.map(drop)
}

/// What the plugin has changed, as it shows inside.
async fn assert_adjusted(node: &Node, id: &str) -> Result<()> {
    let seen = node
        .cri
        .shell(
            id,
            "echo $NRI_ADDED; cat /nri/file; touch /nri/x 2>/dev/null || echo; echo read-only",
        )
        .await?;
    assert_eq!(seen, "by the plugin\nfrom the plugin\nread-only\n");
    assert_eq!(memory_limit(node, id).await?, 48 * MEBIBYTE);
    let limits = node
        .cri
        .shell(id, "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; grep core /proc/self/limits")
        .await?;
    assert!(limits.starts_with("77\n"), "{limits}");
    let core: Vec<&str> = limits
        .lines()
        .last()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(core[4..6], ["4096", "4096"], "{limits}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_sees_every_event_in_order_and_adds_a_variable_a_mount_and_limits() -> Result<()> {
    let node = Node::start().await?;
    let slot = node.daemon.slot();
    let volume = volume(slot)?;
    let config = [("adjust", "true"), ("mount", volume.as_str())];
    let plugin = ExternalPlugin::start(slot, "10", "seer", &config).await?;

    let pod = node.cri.run_pod(PodSpec::new("watched")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    assert_adjusted(&node, &id).await?;
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(LinuxContainerResources {
            memory_limit_in_bytes: 64 * MEBIBYTE,
            ..LinuxContainerResources::default()
        }),
        ..UpdateContainerResourcesRequest::default()
    };
    let mut runtime = node.cri.client().runtime;
    runtime.update_container_resources(request).await?;
    // The plugin's word comes after the client's.
    assert_eq!(memory_limit(&node, &id).await?, 96 * MEBIBYTE);
    update_pod(&node, &pod.id, 0, 128 * MEBIBYTE).await?;
    node.cri.stop(&id, 0).await?;
    node.cri.remove(&id).await?;
    node.cri.stop_pod(&pod.id).await?;
    node.cri.remove_pod(&pod.id).await?;

    let expected = [
        "Configure",
        "Synchronize",
        "RunPodSandbox",
        "CreateContainer",
        "ValidateContainerAdjustment",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "UpdateContainer",
        "PostUpdateContainer",
        "UpdatePodSandbox",
        "PostUpdatePodSandbox",
        "StopContainer",
        "RemoveContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ];
    assert_eq!(plugin.events.names(), expected);
    let all = plugin.events.all();
    assert!(all[2..].iter().all(|event| event.pod == "watched"));
    assert_eq!(all[8].memory, 64 * MEBIBYTE);
    assert_ne!(all[7].pid, 0);
    drop(plugin);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_sees_a_pods_limits_before_they_change_and_after_and_may_refuse_them() -> Result<()>
{
    let node = Node::start().await?;
    let most = (128 * MEBIBYTE).to_string();
    let config = [("mostMemory", most.as_str())];
    let plugin = ExternalPlugin::start(node.daemon.slot(), "10", "seer", &config).await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    update_pod(&node, &pod.id, 8 * MEBIBYTE, 64 * MEBIBYTE).await?;
    update_pod(&node, &pod.id, 0, 128 * MEBIBYTE).await?;
    let refused = update_pod(&node, &pod.id, 16 * MEBIBYTE, 256 * MEBIBYTE).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let text = refused.message();
    assert!(
        text.contains("10-seer") && text.contains("more memory than a pod may have"),
        "{text}"
    );
    // What makes no sense no plugin hears of.
    let senseless = update_pod(&node, &pod.id, 0, -7).await.unwrap_err();
    assert_eq!(senseless.code(), Code::InvalidArgument, "{senseless}");
    // A refused update has changed nothing, also to plugins.
    update_pod(&node, &pod.id, 0, 32 * MEBIBYTE).await?;
    let told: Vec<_> = plugin
        .events
        .all()
        .into_iter()
        .filter(|event| event.event.contains("UpdatePodSandbox"))
        .map(|event| {
            let limits = [event.overhead, event.memory].map(|bytes| bytes / MEBIBYTE);
            (event.event, event.pod, limits)
        })
        .collect();
    let event = |name: &str, limits| (name.to_owned(), "pod".to_owned(), limits);
    let expected = [
        event("UpdatePodSandbox", [8, 64]),
        event("PostUpdatePodSandbox", [8, 64]),
        event("UpdatePodSandbox", [0, 128]),
        event("PostUpdatePodSandbox", [8, 128]),
        event("UpdatePodSandbox", [16, 256]),
        event("UpdatePodSandbox", [0, 32]),
        event("PostUpdatePodSandbox", [8, 32]),
    ];
    assert_eq!(told, expected);
    drop(plugin);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_that_end_by_themselves_are_told_of_once() -> Result<()> {
    let node = Node::start().await?;
    let plugin = ExternalPlugin::start(node.daemon.slot(), "10", "seer", &[]).await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let short = node
        .cri
        .run(&pod, ContainerSpec::new("short").shell("exit 0"))
        .await?;
    plugin.events.wait("StopContainer", 1).await?;
    let created = node.cri.create(&pod, ContainerSpec::new("created")).await?;
    node.cri.run(&pod, ContainerSpec::new("long")).await?;
    node.cri.remove(&short).await?;
    node.cri.remove_pod(&pod.id).await?;
    let events = plugin.events.all();
    for name in ["short", "created", "long"] {
        let told: Vec<&str> = events
            .iter()
            .filter(|event| event.container == name)
            .map(|event| event.event.as_str())
            .filter(|event| ["StopContainer", "RemoveContainer"].contains(event))
            .collect();
        assert_eq!(
            told,
            ["StopContainer", "RemoveContainer"],
            "{name}: {events:?}"
        );
    }
    let last: Vec<_> = events
        .iter()
        .rev()
        .take(1)
        .map(|event| event.event.clone())
        .collect();
    assert_eq!(last, ["RemovePodSandbox"]);
    assert!(node.cri.status(&created).await.is_err());
    drop(plugin);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pre_installed_plugin_comes_back_with_the_daemon_and_what_it_adjusted_stays() -> Result<()>
{
    let mut events = None;
    let mut node = {
        let events = &mut events;
        tokio::task::block_in_place(nri::program)?;
        Node::start_prepared(move |slot| {
            let volume = volume(slot)?;
            let config = [("adjust", "true"), ("mount", volume.as_str())];
            *events = Some(nri::pre_install(slot, "20", "installed", &config)?);
            Ok("required_plugins = [\"installed\"]\n".to_owned())
        })
        .await?
    };
    let events = events.context("the plugin was not installed")?;
    let configured = events.wait("Configure", 1).await?;
    assert_eq!(configured.pods, ["podwright"]);

    let pod = node.cri.run_pod(PodSpec::new("survivor")).await?;
    let running = node.cri.run(&pod, ContainerSpec::new("running")).await?;
    let created = node.cri.create(&pod, ContainerSpec::new("created")).await?;
    let ended = node
        .cri
        .run(&pod, ContainerSpec::new("ended").shell("exit 0"))
        .await?;
    node.cri.wait_exit(&ended).await?;

    node.daemon.kill9().await?;
    node.daemon.restart().await?;
    let list = events.wait("Synchronize", 2).await?;
    assert_eq!(list.pods, ["survivor"]);
    let mut containers = list.containers;
    containers.sort();
    assert_eq!(containers, ["created", "running"]);
    let added = list
        .env
        .iter()
        .filter(|entry| *entry == "NRI_ADDED=by the plugin");
    assert_eq!(added.count(), 2, "{:?}", list.env);

    // What was asked for at its creation is what a later daemon starts.
    node.cri.start_container(&created).await?;
    for id in [&running, &created] {
        assert_adjusted(&node, id).await?;
    }
    node.cri.remove_all_pods().await?;
    node.settle()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_updates_containers_unasked() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let plugin = ExternalPlugin::start(node.daemon.slot(), "10", "late", &[]).await?;
    let list = plugin.events.wait("Synchronize", 1).await?;
    assert_eq!(
        (list.pods, list.containers),
        (vec!["pod".into()], vec!["c".into()])
    );
    plugin.ask_for_updates()?;
    let updated = plugin.events.wait("Updated", 1).await?;
    assert_eq!(updated.memory, 0, "no update failed");
    assert_eq!(memory_limit(&node, &id).await?, 96 * MEBIBYTE);
    drop(plugin);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_that_hang_or_die_fail_nobody() -> Result<()> {
    let node = Node::start_prepared(|_| Ok("request_timeout = \"500ms\"\n".to_owned())).await?;
    let slot = node.daemon.slot();
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let other = node.cri.run(&pod, ContainerSpec::new("other")).await?;
    for fate in ["hang", "die"] {
        let mut plugin = ExternalPlugin::start(slot, "10", fate, &[("onCreate", fate)]).await?;
        for attempt in 0..4 {
            let spec = ContainerSpec::new(fate).attempt(attempt);
            let id = node.cri.run(&pod, spec).await?;
            let status = node.cri.status(&id).await?;
            assert_eq!(status.state(), ContainerState::ContainerRunning);
        }
        // Cut off, it ends by itself: so the public library does.
        plugin.ended().await?;
        until("the log to tell", || async {
            let log = node.daemon.log();
            let gone = log.lines().any(|line| {
                line.contains(&format!("10-{fate}"))
                    && (line.contains("disconnected") || line.contains("has left"))
            });
            gone.then_some(()).ok_or(log)
        })
        .await?;
        assert_eq!(
            plugin
                .events
                .names()
                .iter()
                .filter(|name| *name == "PostStartContainer")
                .count(),
            if fate == "hang" { 2 } else { 0 }
        );
    }
    assert!(node.cri.status(&other).await?.state() == ContainerState::ContainerRunning);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn required_plugins_fail_closed() -> Result<()> {
    let config = "request_timeout = \"500ms\"\nrequired_plugins = [\"guard\"]\n";
    let node = Node::start_prepared(|_| Ok(config.to_owned())).await?;
    let slot = node.daemon.slot();
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let refused = |attempt| {
        let (node, pod) = (&node, &pod);
        async move {
            let spec = ContainerSpec::new("c").attempt(attempt);
            node.cri.create(pod, spec).await.unwrap_err()
        }
    };
    let missing = refused(0).await;
    assert_eq!(missing.code(), Code::Unavailable, "{missing}");
    assert!(
        missing.message().contains("guard is not connected"),
        "{missing}"
    );

    for (attempt, fate) in [(1, "hang"), (2, "die")] {
        let plugin = ExternalPlugin::start(slot, "10", "guard", &[("onCreate", fate)]).await?;
        let silent = refused(attempt).await;
        assert_eq!(silent.code(), Code::Unavailable, "{silent}");
        assert!(silent.message().contains("guard has not seen"), "{silent}");
        drop(plugin);
    }
    until("the plugin to be gone", || async {
        let error = refused(3).await;
        let gone = error.message().contains("is not connected");
        gone.then_some(()).ok_or(error.to_string())
    })
    .await?;
    let plugin = ExternalPlugin::start(slot, "10", "guard", &[]).await?;
    node.cri
        .run(&pod, ContainerSpec::new("c").attempt(4))
        .await?;
    drop(plugin);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_can_demand_a_plugin() -> Result<()> {
    let node = Node::start().await?;
    let mut spec = PodSpec::new("demanding");
    let key = "required-plugins.noderesource.dev/container.c".to_owned();
    spec.config.annotations.insert(key, "[ absent ]".to_owned());
    let pod = node.cri.run_pod(spec).await?;
    let refused = node
        .cri
        .create(&pod, ContainerSpec::new("c"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("absent"), "{refused}");
    node.cri.run(&pod, ContainerSpec::new("other")).await?;
    node.finish().await
}

/// A program of the host that a hook runs: it adds a line to a file of the container's root.
fn hook_program(slot: &Slot, line: &str) -> Result<String> {
    let path = slot.path(&format!("hook-{line}"));
    let text = format!(
        "#!/bin/sh\nPATH=/usr/bin:/bin\n\
         bundle=$(sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/')\n\
         root=$(sed 's/.*\"root\":{{[^}}]*\"path\":\"\\([^\"]*\\)\".*/\\1/' $bundle/config.json)\n\
         echo {line} $1 $WORD >> $root/etc/hooks\n"
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugins_cdi_devices_and_hooks_are_the_containers_for_life() -> Result<()> {
    let mut programs = Vec::new();
    let mut node = {
        let programs = &mut programs;
        Node::start_prepared(move |slot| {
            let directory = slot.path("cdi");
            fs::create_dir_all(&directory)?;
            *programs = vec![hook_program(slot, "device")?, hook_program(slot, "plugin")?];
            let of_device = &programs[0];
            let json = format!(
                r#"{{"cdiVersion":"1.0.0","kind":"v.com/d","containerEdits":{{"env":["ALL=yes"],
                    "hooks":[{{"hookName":"createContainer","path":{of_device:?}}}]}},"devices":[
                    {{"name":"asked","containerEdits":{{"env":["ASKED=yes"]}}}},
                    {{"name":"wished","containerEdits":{{"deviceNodes":[
                      {{"path":"/dev/wished","hostPath":"/dev/zero"}}]}}}}]}}"#
            );
            fs::write(directory.join("d.json"), json)?;
            Ok(format!("\n[cdi]\nspec_dirs = [{directory:?}]\n"))
        })
        .await?
    };
    let hooks = serde_json::json!({
        "create_container": [{"path": programs[1], "args": ["hook", "argument"], "env": ["WORD=word"]}],
        "start_container": [{"path": "/bin/sh", "args": ["sh", "-c", "cp /etc/hooks /etc/started"]}],
    })
    .to_string();
    let config = [("device", "v.com/d=wished"), ("hooks", hooks.as_str())];
    let plugin = ExternalPlugin::start(node.daemon.slot(), "10", "cdi", &config).await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let mut spec = ContainerSpec::new("c");
    spec.config.cdi_devices.push(CdiDevice {
        name: "v.com/d=asked".to_owned(),
    });
    let id = node.cri.create(&pod, spec).await?;
    let created = plugin.events.wait("PostCreateContainer", 1).await?;
    assert_eq!(created.devices, ["v.com/d=asked", "v.com/d=wished"]);
    // What the device's file has for any of its devices comes once.
    assert_eq!(created.hooks, programs);

    // A later daemon, without the plugin and the file, makes the same of it.
    drop(plugin);
    node.daemon.kill9().await?;
    fs::remove_file(node.daemon.slot().path("cdi/d.json"))?;
    node.daemon.restart().await?;
    node.cri.start_container(&id).await?;
    let script = "cat /etc/started; echo $ALL $ASKED; head -c 2 /dev/wished | od -An -tx1";
    let seen = node.cri.shell(&id, script).await?;
    let seen: Vec<&str> = seen.lines().map(str::trim).collect();
    let expected = ["device", "plugin argument word", "yes yes", "00 00"];
    assert_eq!(seen, expected);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cdi_devices_that_are_none_are_refused_by_name() -> Result<()> {
    let node = Node::start().await?;
    let slot = node.daemon.slot();
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for (name, device) in [("absent", "absent.com/d=x"), ("short", "unqualified")] {
        let plugin = ExternalPlugin::start(slot, "10", name, &[("device", device)]).await?;
        let spec = ContainerSpec::new(name);
        let refused = node.cri.create(&pod, spec).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let text = refused.message();
        assert!(text.contains("NRI") && text.contains(device), "{text}");
        plugin.events.wait("RemoveContainer", 1).await?;
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plugin_cannot_have_and_what_it_refuses_is_told() -> Result<()> {
    let node = Node::start().await?;
    let slot = node.daemon.slot();
    let volume = volume(slot)?;
    let config = [
        ("adjust", "true"),
        ("hooks", r#"{"poststart": [{"path": "/bin/true"}]}"#),
        ("mount", volume.as_str()),
        ("refuse", "unwanted"),
    ];
    let plugin = ExternalPlugin::start(slot, "10", "strict", &config).await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let refused = node
        .cri
        .create(&pod, ContainerSpec::new("c"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(
        refused.message().contains("poststart hook '/bin/true'"),
        "{refused}"
    );
    // The plugin is told that nothing came of it.
    plugin.events.wait("RemoveContainer", 1).await?;

    let unwanted = node
        .cri
        .run_pod(PodSpec::new("unwanted"))
        .await
        .unwrap_err();
    assert_eq!(unwanted.code(), Code::FailedPrecondition, "{unwanted}");
    let text = unwanted.message();
    assert!(
        text.contains("10-strict") && text.contains("no such pod on my node"),
        "{text}"
    );
    plugin.events.wait("RemovePodSandbox", 1).await?;
    drop(plugin);
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_private_and_rubbish_on_it_hurts_nobody() -> Result<()> {
    let node = Node::start().await?;
    let path = node.daemon.slot().path("nri/nri.sock");
    let mode = |path: &std::path::Path| -> Result<u32> {
        Ok(fs::metadata(path)?.permissions().mode() & 0o777)
    };
    assert_eq!(mode(&path)?, 0o600);
    assert_eq!(
        mode(path.parent().context("a socket has a directory")?)?,
        0o700
    );
    let closed = |bytes: Vec<u8>| {
        let path = path.clone();
        move || -> Result<()> {
            let mut socket = UnixStream::connect(path)?;
            socket.set_read_timeout(Some(patience(Duration::from_secs(20))))?;
            socket.set_write_timeout(Some(patience(Duration::from_secs(20))))?;
            // It may be closed before all is written.
            let _ = socket.write_all(&bytes);
            let _ = socket.read(&mut [0]).map(drop);
            Ok(())
        }
    };
    let giant = [&1_u32.to_be_bytes()[..], &[0xff; 4], &[0; 1 << 16]].concat();
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), giant, vec![0xff; 4096]] {
        tokio::task::spawn_blocking(closed(bytes)).await??;
    }
    // Silent ones may stay until the registration's deadline; they keep nobody out.
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(&path)).collect();
    let plugin = ExternalPlugin::start(node.daemon.slot(), "10", "good", &[]).await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    node.cri.run(&pod, ContainerSpec::new("c")).await?;
    assert!(
        plugin
            .events
            .names()
            .contains(&"PostStartContainer".to_owned())
    );
    drop((plugin, silent));
    node.finish().await
}
