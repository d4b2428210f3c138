//! Containers.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use podwright_cri_api::v1::{ContainerState, ListContainersRequest};
use podwright_integration::{cri::Pod, images::BUSYBOX, node::until};
use serde_json::{Value, json};

use super::{crictl::Crictl, runtime::number, table};

pub(super) const COMMANDS: &[&str] = &[
    "create",
    "start",
    "ps",
    "inspect",
    "update",
    "logs",
    "stop",
    "rm",
    "run",
    "checkpoint",
];

/// Prints to both streams, and stays.
const SCRIPT: &str = "echo one; echo two; echo wrong >&2; exec sleep 1000";

#[tokio::test]
async fn containers() -> Result<()> {
    let crictl = Crictl::start(COMMANDS).await?;
    let pod = crictl.pod("containers").await?;
    let first = create(&crictl, &pod, "first").await?;
    let second = create(&crictl, &pod, "second").await?;
    list(&crictl, &pod).await?;
    filters(&crictl, &pod, &first, &second).await?;
    inspect(&crictl, &first).await?;
    update(&crictl, &first).await?;
    logs(&crictl, &first).await?;
    checkpoint(&crictl, &first).await?;
    stop_and_remove(&crictl, &first, &second).await?;
    run(&crictl).await?;
    crictl.finish().await
}

/// Makes a container; `first` is started, too.
async fn create(crictl: &Crictl, pod: &Pod, name: &str) -> Result<String> {
    let container = crictl.container_file(name, SCRIPT, json!({}))?;
    let logs = crictl.path("logs");
    let of_pod = json!({
        "metadata": { "name": "containers", "namespace": "test", "uid": pod.spec.uid() },
        "log_directory": logs, "linux": {},
    });
    let of_pod = crictl.file("pod.json", &of_pod)?;
    let create = ["create", "--with-pull", &pod.id, &container, &of_pod];
    let id = crictl.run(&create).await?;
    let status = crictl.node.cri.status(&id).await?;
    assert_eq!(status.state(), ContainerState::ContainerCreated);
    if name == "first" {
        assert_eq!(crictl.run(&["start", &id]).await?, id);
        let status = crictl.node.cri.status(&id).await?;
        assert_eq!(status.state(), ContainerState::ContainerRunning);
    }
    let schema = crictl.json(&["create", "jsonschema", "-c"]).await?;
    assert!(schema.to_string().contains("working_dir"), "{schema}");
    Ok(id)
}

async fn list(crictl: &Crictl, pod: &Pod) -> Result<()> {
    let mut client = crictl.node.cri.client().runtime;
    let answer = client.list_containers(ListContainersRequest::default());
    let mut containers = answer.await?.into_inner().containers;
    containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    assert_eq!(containers.len(), 2);

    let shown = crictl.json(&["ps", "-a", "-o", "json"]).await?;
    let shown = shown["containers"].as_array().context("no list")?;
    assert_eq!(shown.len(), 2);
    for (shown, container) in shown.iter().zip(&containers) {
        assert_eq!(shown["id"], Value::from(container.id.as_str()));
        assert_eq!(shown["podSandboxId"], Value::from(pod.id.as_str()));
        assert_eq!(shown["state"], Value::from(container.state().as_str_name()));
        assert_eq!(number(&shown["createdAt"]), Some(container.created_at));
        assert_eq!(shown["imageRef"], Value::from(container.image_ref.as_str()));
        let name = container.labels["tour"].as_str();
        assert_eq!(shown["labels"]["tour"], Value::from(name));
        assert_eq!(shown["metadata"]["name"], Value::from(name));
    }
    let yaml = crictl.run(&["ps", "-a", "-o", "yaml"]).await?;
    assert!(yaml.contains(&containers[0].id), "{yaml}");
    let table = table::rows(&crictl.run(&["ps", "-a", "--no-trunc"]).await?)?;
    let ids: Vec<_> = containers.iter().map(|container| &container.id).collect();
    assert_eq!(
        table::column(&table, "CONTAINER")
            .iter()
            .collect::<Vec<_>>(),
        ids
    );
    assert_eq!(table::column(&table, "STATE"), ["Created", "Running"]);
    assert_eq!(table::column(&table, "NAME"), ["second", "first"]);
    let pods = table::column(&table, "POD ID");
    assert_eq!(pods, [pod.id.as_str(), &pod.id]);
    let table = table::rows(&crictl.run(&["ps", "-r"]).await?)?;
    assert_eq!(table::column(&table, "IMAGE"), [BUSYBOX]);
    let verbose = crictl.run(&["ps", "-v"]).await?;
    assert!(verbose.contains("State: Running"), "{verbose}");
    Ok(())
}

async fn filters(crictl: &Crictl, pod: &Pod, first: &str, second: &str) -> Result<()> {
    for (options, expected) in [
        (&[][..], &[first][..]),
        (&["-a"], &[second, first]),
        (&["-a", "--id", second], &[second]),
        (&["-a", "--id", &second[..20]], &[second]),
        (&["-a", "--name", "^sec"], &[second]),
        (&["--pod", &pod.id], &[first]),
        (&["-a", "--pod", &pod.id[..20]], &[second, first]),
        (&["--pod", "absent"], &[]),
        (&["--state", "Created"], &[second]),
        (&["--state", "Exited"], &[]),
        (&["-a", "--label", "tour=second"], &[second]),
        (&["--image", BUSYBOX], &[first]),
        (&["--image", "absent"], &[]),
        (&["--latest"], &[second]),
        (&["--last", "9"], &[second, first]),
    ] {
        let shown = crictl.lines(&[&["ps", "-q"], options].concat()).await?;
        assert_eq!(shown, expected, "{options:?}");
    }
    Ok(())
}

async fn inspect(crictl: &Crictl, id: &str) -> Result<()> {
    let status = crictl.node.cri.status(id).await?;
    let shown = crictl.json(&["inspect", id]).await?;
    assert_eq!(shown["status"]["id"], Value::from(id));
    assert_eq!(shown["status"]["state"], Value::from("CONTAINER_RUNNING"));
    assert_eq!(shown["status"]["imageRef"], Value::from(status.image_ref));
    assert_eq!(shown["status"]["logPath"], Value::from(status.log_path));
    let pid = crictl.node.cri.container_pid(id).await?;
    assert_eq!(shown["info"]["pid"], Value::from(pid));
    let shown = crictl.json(&["inspect", "-q", id]).await?;
    assert!(shown["info"].is_null(), "{shown}");
    let template = "{{.status.metadata.name}} {{.status.state}}";
    let inspect = ["inspect", "-o", "go-template", "--template", template];
    let shown = crictl.run(&[&inspect[..], &[id]].concat()).await?;
    assert_eq!(shown, "first CONTAINER_RUNNING");
    let shown = crictl.run(&["inspect", "-o", "table", id]).await?;
    assert!(shown.contains("State: CONTAINER_RUNNING"), "{shown}");
    let shown = crictl.run(&["inspect", "-o", "yaml", id]).await?;
    assert!(shown.contains(&format!("id: {id}")), "{shown}");
    let shown = crictl.json(&["inspect", "--label", "tour=first"]).await?;
    assert_eq!(shown["status"]["id"], Value::from(id));
    let refused = crictl.refused(&["inspect", "absent"]).await?;
    assert!(refused.contains("NotFound"), "{refused}");
    Ok(())
}

async fn update(crictl: &Crictl, id: &str) -> Result<()> {
    let update = ["update", "--memory", "67108864", "--cpu-share", "512"];
    let more = ["--cpu-quota", "50000", "--cpu-period", "100000", id];
    let shown = crictl.run(&[update, more].concat()).await?;
    assert_eq!(shown, id);
    let status = crictl.node.cri.status(id).await?;
    let limits = status.resources.and_then(|resources| resources.linux);
    let limits = limits.context("no limits")?;
    assert_eq!(limits.memory_limit_in_bytes, 64 << 20);
    assert_eq!((limits.cpu_shares, limits.cpu_quota), (512, 50_000));
    let refused = crictl.refused(&["update", "--memory", "1", id]).await?;
    assert!(refused.contains("memory"), "{refused}");
    Ok(())
}

async fn logs(crictl: &Crictl, id: &str) -> Result<()> {
    until("three lines in the log", || async {
        let lines = crictl.node.cri.logs(id).await;
        let lines = lines.map_err(|error| format!("{error:#}"))?.len();
        (lines == 3).then_some(()).ok_or(format!("{lines} lines"))
    })
    .await?;
    let stdout = |options: &'static [&'static str]| async move {
        crictl.lines(&[&["logs"], options, &[id]].concat()).await
    };
    assert_eq!(stdout(&[]).await?, ["one", "two"]);
    assert_eq!(stdout(&["--stream", "stderr"]).await?, [""; 0]);
    assert_eq!(stdout(&["--limit-bytes", "3"]).await?, ["one"]);
    assert_eq!(stdout(&["--since", "1h"]).await?, ["one", "two"]);
    let stamped = stdout(&["--timestamps"]).await?;
    let log = crictl.node.cri.logs(id).await?;
    assert_eq!(stamped[0], format!("{} one", log[0].time));
    // Rotated as the kubelet does it.
    let path = crictl.node.cri.log_path(id).await?;
    fs::rename(&path, path.with_extension("log.1"))?;
    crictl.run(&["logs", "--reopen", id]).await?;
    ensure!(fs::metadata(&path)?.len() == 0, "the new log is not empty");
    Ok(())
}

async fn checkpoint(crictl: &Crictl, id: &str) -> Result<()> {
    let archive = crictl.path("checkpoint.tar");
    let arguments = ["checkpoint", "--export", &archive, id];
    let output = super::crictl::finished(crictl.command(&arguments)).await?;
    if output.status.success() {
        ensure!(Path::new(&archive).is_file(), "no {archive}");
        return Ok(());
    }
    let refused = String::from_utf8_lossy(&output.stderr);
    assert!(refused.contains("FailedPrecondition"), "{refused}");
    assert!(refused.to_lowercase().contains("criu"), "{refused}");
    ensure!(!Path::new(&archive).exists(), "{archive} was made");
    Ok(())
}

async fn stop_and_remove(crictl: &Crictl, first: &str, second: &str) -> Result<()> {
    let refused = crictl.refused(&["rm", first]).await?;
    assert!(refused.contains("is running"), "{refused}");
    assert_eq!(crictl.run(&["stop", "-t", "0", first]).await?, first);
    let status = crictl.node.cri.status(first).await?;
    assert_eq!(status.state(), ContainerState::ContainerExited);
    let log = crictl.node.cri.log_path(first).await?;
    assert_eq!(crictl.run(&["rm", "--keep-logs", first]).await?, first);
    ensure!(log.exists(), "the log is gone");
    crictl.run(&["start", second]).await?;
    assert_eq!(crictl.run(&["stop", "-a"]).await?, second);
    let none = crictl.run(&["stop", "-a"]).await?;
    assert_eq!(none, "No running containers found.");
    assert_eq!(crictl.run(&["rm", "-a"]).await?, second);
    assert_eq!(crictl.run(&["ps", "-aq"]).await?, "");
    Ok(())
}

/// A pod with a container at once.
async fn run(crictl: &Crictl) -> Result<()> {
    let pod = crictl.pod_file("run")?;
    let container = crictl.container_file("run", SCRIPT, json!({}))?;
    let id = crictl.run(&["run", "--no-pull", &container, &pod]).await?;
    let status = crictl.node.cri.status(&id).await?;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    let removed = crictl.lines(&["rm", "-f", &id]).await?;
    assert_eq!(removed, [id.as_str(), &id]);
    Ok(())
}
