//! Statistics, metrics and events.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use podwright_integration::{cri::Pod, node::until, pod::ContainerSpec};
use serde_json::{Deserializer, Value};

use super::{crictl::Crictl, runtime::number, table};

pub(super) const COMMANDS: &[&str] = &["stats", "statsp", "metricsp", "metricdescs", "events"];

/// Uses some memory and the processor, and writes to its layer.
const BUSY: &str = "dd if=/dev/zero of=/file bs=1024 count=512; while :; do :; done";

#[tokio::test]
async fn numbers() -> Result<()> {
    let crictl = Crictl::start(COMMANDS).await?;
    let pod = crictl.pod("numbers").await?;
    let busy = ContainerSpec::new("busy").shell(BUSY).label("tour", "busy");
    let busy = crictl.node.cri.run(&pod, busy).await?;
    container_stats(&crictl, &pod, &busy).await?;
    pod_stats(&crictl, &pod, &busy).await?;
    metrics(&crictl, &pod, &busy).await?;
    crictl.node.cri.remove_all_pods().await?;
    events(&crictl).await?;
    crictl.finish().await
}

async fn container_stats(crictl: &Crictl, pod: &Pod, id: &str) -> Result<()> {
    let idle = crictl.node.cri.run(pod, ContainerSpec::new("idle")).await?;
    let shown = crictl.json(&["stats", "-o", "json"]).await?;
    let stats = shown["stats"].as_array().context("no list")?;
    assert_eq!(stats.len(), 2);
    for (options, expected) in [
        (&["--id", id][..], id),
        (&[id], id),
        (&["--label", "tour=busy"], id),
        (&["--id", &idle], &idle),
    ] {
        let stats = ["stats", "-o", "json"];
        let shown = crictl.json(&[&stats[..], options].concat()).await?;
        let ids = shown["stats"].as_array().into_iter().flatten();
        let ids: Vec<_> = ids.map(|of| of["attributes"]["id"].as_str()).collect();
        assert_eq!(ids, [Some(expected)], "{options:?}");
    }
    until("the file to be counted", || async {
        let shown = crictl.json(&["stats", "-o", "json", id]).await;
        let shown = shown.map_err(|error| format!("{error:#}"))?;
        let layer = &shown["stats"][0]["writableLayer"]["usedBytes"]["value"];
        let counted = number(layer) >= Some(512 << 10);
        counted.then_some(()).ok_or(shown.to_string())
    })
    .await?;
    let table = table::rows(&crictl.run(&["stats", "--pod", &pod.id]).await?)?;
    let row = table.iter().find(|row| row["NAME"] == "busy");
    let row = row.with_context(|| format!("no busy container in {table:?}"))?;
    assert!(id.starts_with(&row["CONTAINER"]), "{row:?}");
    let percent: f64 = row["CPU %"].parse()?;
    assert!(percent > 1.0 && percent < 110.0, "{row:?}");
    assert!(row["MEM"].ends_with('B') && row["MEM"] != "0B", "{row:?}");
    crictl.node.cri.stop(&idle, 0).await?;
    Ok(crictl.node.cri.remove(&idle).await?)
}

async fn pod_stats(crictl: &Crictl, pod: &Pod, id: &str) -> Result<()> {
    let other = crictl.pod("other").await?;
    let shown = crictl.json(&["statsp", "-o", "json"]).await?;
    assert_eq!(shown["stats"].as_array().map(Vec::len), Some(2));
    for options in [&["--id", &pod.id][..], &["--label", "tour=numbers"]] {
        let stats = ["statsp", "-o", "json"];
        let shown = crictl.json(&[&stats[..], options].concat()).await?;
        let stats = shown["stats"].as_array().context("no list")?;
        assert_eq!(stats.len(), 1, "{options:?}");
        let of_pod = &stats[0];
        assert_eq!(of_pod["attributes"]["id"], Value::from(pod.id.as_str()));
        let linux = &of_pod["linux"];
        let used = number(&linux["cpu"]["usageCoreNanoSeconds"]["value"]);
        assert!(used > Some(0), "{linux}");
        let memory = number(&linux["memory"]["workingSetBytes"]["value"]);
        assert!(memory > Some(0), "{linux}");
        // pause, the shell.
        let processes = number(&linux["process"]["processCount"]["value"]);
        assert!(processes >= Some(2), "{linux}");
        let link = &linux["network"]["defaultInterface"]["name"];
        assert_eq!(*link, Value::from("eth0"), "{linux}");
        let containers = linux["containers"].as_array().context("no containers")?;
        let ids: Vec<_> = containers
            .iter()
            .map(|of| of["attributes"]["id"].as_str())
            .collect();
        assert_eq!(ids, [Some(id)]);
    }
    let table = table::rows(&crictl.run(&["statsp", "-s", "1"]).await?)?;
    let row = table.iter().find(|row| row["POD"] == "numbers");
    let row = row.with_context(|| format!("no pod in {table:?}"))?;
    assert!(pod.id.starts_with(&row["POD ID"]), "{row:?}");
    let percent: f64 = row["CPU %"].parse()?;
    assert!(percent > 1.0 && percent < 110.0, "{row:?}");
    crictl.node.cri.stop_pod(&other.id).await?;
    Ok(crictl.node.cri.remove_pod(&other.id).await?)
}

/// Every metric has a description, with as many labels as it has values for them.
async fn metrics(crictl: &Crictl, pod: &Pod, id: &str) -> Result<()> {
    let shown = crictl.json(&["metricdescs"]).await?;
    let mut labels = BTreeMap::new();
    for descriptor in shown["descriptors"].as_array().context("no list")? {
        let name = descriptor["name"].as_str().context("no name")?;
        let keys = descriptor["labelKeys"].as_array().map_or(0, Vec::len);
        ensure!(descriptor["help"] != "", "{name} has no help");
        ensure!(labels.insert(name, keys).is_none(), "{name} comes twice");
    }
    for name in [
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
    ] {
        ensure!(labels.contains_key(name), "no {name} in {labels:?}");
    }
    let shown = crictl.json(&["metricsp"]).await?;
    let of_pods = shown["podMetrics"].as_array().context("no list")?;
    assert_eq!(of_pods.len(), 1);
    assert_eq!(of_pods[0]["podSandboxId"], Value::from(pod.id.as_str()));
    let of_containers = of_pods[0]["containerMetrics"].as_array();
    let of_containers = of_containers.context("no containers")?;
    let ids: Vec<_> = of_containers
        .iter()
        .map(|of| of["containerId"].as_str())
        .collect();
    assert_eq!(ids, [Some(id)]);
    for of in of_containers.iter().chain(of_pods) {
        let metrics = of["metrics"].as_array().context("no metrics")?;
        ensure!(!metrics.is_empty(), "no metrics of {of}");
        for metric in metrics {
            let name = metric["name"].as_str().context("no name")?;
            let values = metric["labelValues"].as_array().map_or(0, Vec::len);
            assert_eq!(labels.get(name), Some(&values), "{metric}");
        }
    }
    for command in ["metricdescs", "metricsp"] {
        let yaml = crictl.run(&[command, "-o", "yaml"]).await?;
        assert!(
            yaml.contains("container_cpu_usage_seconds_total"),
            "{command}"
        );
    }
    Ok(())
}

async fn events(crictl: &Crictl) -> Result<()> {
    let mut json = crictl.background(&["events"])?;
    let template = "{{.containerEventType}} {{.containerId}}";
    let mut lines = crictl.background(&["events", "-o", "go-template", "--template", template])?;
    // A stream has no beginning to wait for: what happens before it is not in it.
    until("both streams to have begun", || async {
        let pod = crictl.pod("early").await;
        let pod = pod.map_err(|error| format!("{error:#}"))?;
        let removed = crictl.node.cri.remove_all_pods().await;
        removed.map_err(|error| format!("{error:#}"))?;
        let begun = [&json, &lines].map(|events| events.stdout.text().contains(&pod.id));
        (begun == [true, true])
            .then_some(())
            .ok_or(format!("{begun:?}"))
    })
    .await?;

    let pod = crictl.pod("watched").await?;
    let id = crictl
        .node
        .cri
        .run(&pod, ContainerSpec::new("watched").shell("exit 5"))
        .await?;
    crictl.node.cri.wait_exit(&id).await?;
    crictl.node.cri.remove(&id).await?;
    crictl.node.cri.stop_pod(&pod.id).await?;
    crictl.node.cri.remove_pod(&pod.id).await?;
    let last = format!("CONTAINER_DELETED_EVENT {}", pod.id);
    lines.stdout.wait(&last).await?;

    let of = |id: &str| {
        let expected = ["CREATED", "STARTED", "STOPPED", "DELETED"];
        expected.map(|name| format!("CONTAINER_{name}_EVENT {id}"))
    };
    let text = lines.stdout.text();
    for id in [&id, &pod.id] {
        let seen: Vec<_> = text
            .lines()
            .filter(|line| line.ends_with(id.as_str()))
            .collect();
        assert_eq!(seen, of(id));
    }
    until("the same events as JSON", || async {
        let seen = parsed(&json.stdout.text());
        let seen: Vec<_> = seen.iter().map(line).collect();
        seen.contains(&last)
            .then_some(())
            .ok_or(format!("{seen:?}"))
    })
    .await?;
    let seen = parsed(&json.stdout.text());
    let stopped = format!("CONTAINER_STOPPED_EVENT {id}");
    let stopped = seen.iter().find(|event| line(event) == stopped);
    let stopped = stopped.context("no stopped event")?;
    let status = &stopped["containersStatuses"][0];
    assert_eq!(status["exitCode"], Value::from(5), "{stopped}");
    assert_eq!(stopped["podSandboxStatus"]["id"], Value::from(pod.id));
    for events in [&mut json, &mut lines] {
        events.interrupt()?;
        events.end().await?;
    }
    Ok(())
}

/// The documents that were printed whole.
fn parsed(text: &str) -> Vec<Value> {
    Deserializer::from_str(text)
        .into_iter::<Value>()
        .map_while(Result::ok)
        .collect()
}

/// An event as the template shows it.
fn line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("containerEventType"), text("containerId"))
}
