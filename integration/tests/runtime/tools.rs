//! crictl works, and reads well.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use podwright_integration::{
    images::BUSYBOX,
    node::{Node, until},
    pod::{ContainerSpec, PodSpec},
    tools::Tools,
};
use serde_json::{Value, json};

struct Crictl {
    tools: Tools,
    socket: std::path::PathBuf,
}

impl Crictl {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command: Command = self.tools.crictl_for(&self.socket);
        let output = command
            .args(arguments)
            .output()
            .context("starting crictl")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        ensure!(
            output.status.success(),
            "crictl {} failed: {}",
            arguments.join(" "),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crictl_drives_a_pod_through_its_life() -> Result<()> {
    let tools = tokio::task::spawn_blocking(Tools::open).await??;
    let node = Node::start().await?;
    let crictl = Crictl {
        tools,
        socket: node.daemon.socket(),
    };
    let files = tempfile::tempdir()?;
    let logs = files.path().join("logs").display().to_string();
    let write = |name: &str, content: serde_json::Value| -> Result<String> {
        let path = files.path().join(name);
        fs::write(&path, content.to_string())?;
        Ok(path.display().to_string())
    };
    let pod_file = write(
        "pod.json",
        json!({
            "metadata": { "name": "demo", "namespace": "test", "uid": "1", "attempt": 1 },
            "hostname": "demo", "log_directory": logs, "linux": {},
        }),
    )?;
    let container_file = write(
        "container.json",
        json!({
            "metadata": { "name": "shell" }, "image": { "image": BUSYBOX },
            "command": ["sh", "-c", "echo hello; exec sleep 1000"],
            "log_path": "shell.log", "linux": {},
        }),
    )?;

    assert!(
        crictl
            .run(&["version"])?
            .contains("RuntimeName:  podwright")
    );
    crictl.run(&["info"])?;
    crictl.run(&["pull", BUSYBOX])?;
    assert!(crictl.run(&["images"])?.contains("e2e-test-images/busybox"));
    crictl.run(&["inspecti", BUSYBOX])?;

    let pod = crictl.run(&["runp", &pod_file])?;
    let container = crictl.run(&["create", &pod, &container_file, &pod_file])?;
    crictl.run(&["start", &container])?;
    assert!(crictl.run(&["pods"])?.contains("demo"));
    assert!(crictl.run(&["ps"])?.contains("shell"));
    assert!(
        crictl
            .run(&["inspect", &container])?
            .contains("CONTAINER_RUNNING")
    );
    assert!(crictl.run(&["inspectp", &pod])?.contains("SANDBOX_READY"));
    assert_eq!(crictl.run(&["exec", "-s", &container, "hostname"])?, "demo");
    assert_eq!(crictl.run(&["logs", &container])?, "hello");
    crictl.run(&["stats", "-a"])?;

    crictl.run(&["stop", "-t", "0", &container])?;
    crictl.run(&["rm", &container])?;
    crictl.run(&["stopp", &pod])?;
    crictl.run(&["rmp", &pod])?;
    crictl.run(&["rmi", BUSYBOX])?;
    assert!(!crictl.run(&["images"])?.contains("busybox"));
    node.cri.pull(BUSYBOX).await?;
    node.finish().await
}

/// `crictl events`, which ends only when it is told to.
struct Events {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Events {
    fn start(crictl: &Crictl) -> Result<Self> {
        let output = tempfile::NamedTempFile::new()?;
        let child = crictl
            .tools
            .crictl_for(&crictl.socket)
            .arg("events")
            .stdout(output.reopen()?)
            .stderr(Stdio::null())
            .spawn()
            .context("starting crictl events")?;
        Ok(Self { child, output })
    }

    /// What it has shown so far, whole events only.
    fn shown(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.output.path())?;
        let events = serde_json::Deserializer::from_str(&text).into_iter();
        Ok(events.map_while(Result::ok).collect())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crictl_shows_what_happens_and_what_pods_use() -> Result<()> {
    let tools = tokio::task::spawn_blocking(Tools::open).await??;
    let node = Node::start().await?;
    let crictl = Crictl {
        tools,
        socket: node.daemon.socket(),
    };
    let events = Events::start(&crictl)?;
    let spec = PodSpec::new("measured").label("tier", "front");
    let pod = node.cri.run_pod(spec).await?;
    let container = ContainerSpec::new("busy").shell("while :; do :; done");
    let container = node.cri.run(&pod, container).await?;
    let told = |id: &str, kind: &str| json!([id, kind]);
    let expected = [
        told(&pod.id, "CONTAINER_CREATED_EVENT"),
        told(&pod.id, "CONTAINER_STARTED_EVENT"),
        told(&container, "CONTAINER_CREATED_EVENT"),
        told(&container, "CONTAINER_STARTED_EVENT"),
    ];
    until("crictl to show the events", || async {
        let shown = events.shown().map_err(|error| error.to_string())?;
        let shown: Vec<_> = shown
            .iter()
            .map(|event| json!([event["containerId"], event["containerEventType"]]))
            .collect();
        (shown == expected)
            .then_some(())
            .ok_or_else(|| format!("{shown:?}"))
    })
    .await?;
    let last = events.shown()?.pop().context("events")?;
    assert_eq!(last["podSandboxStatus"]["metadata"]["name"], "measured");
    assert_eq!(last["containersStatuses"][0]["state"], "CONTAINER_RUNNING");

    // A row per pod with its CPU, which a loop keeps busy, and its memory.
    let table = crictl.run(&["statsp", "--label", "tier=front"])?;
    let row = table.lines().find(|line| line.contains("measured"));
    let words: Vec<_> = row.context(table.clone())?.split_whitespace().collect();
    assert!(words[2].parse::<f64>()? > 1.0, "{table}");
    assert!(words[3].ends_with('B'), "{table}");
    let table = crictl.run(&["statsp", "--label", "tier=back"])?;
    assert!(!table.contains("measured"), "{table}");
    let table = crictl.run(&["stats", &container])?;
    let row = table.lines().find(|line| line.contains("busy"));
    let words: Vec<_> = row.context(table.clone())?.split_whitespace().collect();
    assert!(words[2].parse::<f64>()? > 1.0, "{table}");

    let described: Value = serde_json::from_str(&crictl.run(&["metricdescs"])?)?;
    let described = described["descriptors"].as_array().context("descriptors")?;
    let metrics: Value = serde_json::from_str(&crictl.run(&["metricsp"])?)?;
    let own = &metrics["podMetrics"][0];
    assert_eq!(own["podSandboxId"], pod.id);
    let told = own["containerMetrics"][0]["metrics"].as_array();
    for metric in told.context("metrics")? {
        let mut all = described.iter();
        let described = all.find(|one| one["name"] == metric["name"]);
        let keys = &described.context("not described")?["labelKeys"];
        assert_eq!(
            keys.as_array().map(Vec::len),
            metric["labelValues"].as_array().map(Vec::len)
        );
    }
    drop(events);
    node.finish().await
}
