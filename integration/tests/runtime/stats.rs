//! What pods and containers use, against what the kernel and the test know of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podwright_cri_api::v1::{
    ContainerStats, ContainerStatsFilter, ContainerStatsRequest, ImageFsInfoRequest,
    ListContainerStatsRequest, ListMetricDescriptorsRequest, ListPodSandboxMetricsRequest,
    ListPodSandboxStatsRequest, Metric, MetricType, PodSandboxMetrics, PodSandboxStats,
    PodSandboxStatsFilter, PodSandboxStatsRequest, StreamContainerStatsRequest,
    StreamPodSandboxMetricsRequest, StreamPodSandboxStatsRequest, UInt64Value,
};
use podwright_integration::{
    node::{Node, Usage, until},
    patience::patience,
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

const MIB: u64 = 1 << 20;

/// A number that has to be there.
fn number(value: Option<UInt64Value>) -> u64 {
    value.expect("a value").value
}

async fn pod_stats(node: &Node, id: &str) -> Result<PodSandboxStats> {
    let request = PodSandboxStatsRequest {
        pod_sandbox_id: id.to_owned(),
    };
    let answer = node.cri.client().runtime.pod_sandbox_stats(request).await?;
    answer.into_inner().stats.context("no stats")
}

async fn container_stats(node: &Node, id: &str) -> Result<ContainerStats> {
    let request = ContainerStatsRequest {
        container_id: id.to_owned(),
    };
    let answer = node.cri.client().runtime.container_stats(request).await?;
    answer.into_inner().stats.context("no stats")
}

async fn list(node: &Node, filter: Option<PodSandboxStatsFilter>) -> Result<Vec<PodSandboxStats>> {
    let request = ListPodSandboxStatsRequest { filter };
    let mut runtime = node.cri.client().runtime;
    let answer = runtime.list_pod_sandbox_stats(request).await?;
    Ok(answer.into_inner().stats)
}

fn ids(stats: &[PodSandboxStats]) -> BTreeSet<&str> {
    let attributes = stats.iter().filter_map(|stats| stats.attributes.as_ref());
    attributes
        .map(|attributes| attributes.id.as_str())
        .collect()
}

/// A CPU rate is of a second at least.
const WINDOW: Duration = Duration::from_millis(1100);

#[tokio::test]
async fn a_pod_tells_its_cpu_memory_processes_and_containers() -> Result<()> {
    let node = Node::start().await?;
    let spec = PodSpec::new("pod").label("app", "busy");
    let pod = node.cri.run_pod(spec).await?;
    let busy = ContainerSpec::new("busy").shell("while :; do :; done");
    let busy = node.cri.run(&pod, busy).await?;
    // 24 MiB in a variable, and what the shell itself takes.
    let large = ContainerSpec::new("large")
        .shell("x=$(head -c 25165824 /dev/zero | tr '\\0' x); sleep 1000 & sleep 1000; echo $x")
        .with_resources(|resources| resources.memory_limit_in_bytes = 256 << 20);
    let large = node.cri.run(&pod, large).await?;
    let stats = until("the memory to be in use", || async {
        let stats = container_stats(&node, &large).await;
        let stats = stats.map_err(|error| error.to_string())?;
        let memory = stats.memory.ok_or("no memory")?;
        if number(memory.rss_bytes) >= 24 * MIB {
            return Ok(stats);
        }
        Err(format!("{memory:?}"))
    })
    .await?;
    let memory = stats.memory.context("memory")?;
    assert!(number(memory.working_set_bytes) <= number(memory.usage_bytes));
    let free = number(memory.available_bytes);
    assert_eq!(free, 256 * MIB - number(memory.working_set_bytes));
    // Huge pages save most of one for each page.
    assert!(number(memory.page_faults) > 24 * MIB / (2 * MIB));

    until("all processes to run", || async {
        let stats = pod_stats(&node, &pod.id).await;
        let stats = stats.map_err(|error| error.to_string())?;
        // pause, the loop, a shell and its two children.
        let linux = stats.linux.as_ref().ok_or("no Linux stats")?;
        let tasks = linux
            .process
            .map_or(0, |process| number(process.process_count));
        match tasks {
            5.. => Ok(()),
            _ => Err(format!("{tasks} processes")),
        }
    })
    .await?;
    // A window of a second: a loop takes what of a CPU the machine has to give.
    tokio::time::sleep(WINDOW).await; // Who asks sooner gets what was told before, and the window that it begins is older.
    let first = pod_stats(&node, &pod.id).await?;
    tokio::time::sleep(WINDOW).await; // So long is the least that a rate is told of.
    let second = pod_stats(&node, &pod.id).await?;
    let linux = |stats: &PodSandboxStats| stats.linux.clone().context("no Linux stats");
    let (before, after) = (linux(&first)?, linux(&second)?);
    let (before, cpu) = (before.cpu.context("cpu")?, after.cpu.context("cpu")?);
    let used = number(cpu.usage_core_nano_seconds) - number(before.usage_core_nano_seconds);
    let elapsed = u64::try_from(cpu.timestamp - before.timestamp)?;
    let rate = number(cpu.usage_nano_cores);
    assert!(used > 0 && rate > 0, "used {used}, rate {rate}");
    let expected = used as f64 / elapsed as f64 * 1e9;
    assert!(
        (rate as f64 - expected).abs() <= expected * 0.05,
        "{rate} per second, {expected} by the counter"
    );

    let tasks = number(after.process.context("process")?.process_count);
    assert!(tasks < 20, "{tasks} processes");
    let memory = after.memory.context("memory")?;
    assert!(number(memory.working_set_bytes) >= 24 * MIB);
    let names: BTreeSet<_> = after
        .containers
        .iter()
        .filter_map(|stats| Some(stats.attributes.as_ref()?.id.clone()))
        .collect();
    assert_eq!(names, BTreeSet::from([busy, large]));
    let attributes = second.attributes.context("attributes")?;
    assert_eq!(attributes.labels["app"], "busy");
    assert!(second.windows.is_none());
    // Where the kernel tells pressure, it is told.
    if fs::exists("/proc/pressure/cpu")? {
        assert!(cpu.psi.is_some() && memory.psi.is_some() && after.io.is_some());
    }
    node.finish().await
}

#[tokio::test]
async fn a_pod_tells_its_traffic() -> Result<()> {
    let node = Node::start().await?;
    let pods = [
        node.cri.run_pod(PodSpec::new("receiver")).await?,
        node.cri.run_pod(PodSpec::new("sender")).await?,
    ];
    let host = node
        .cri
        .run_pod(PodSpec::new("host").host_network())
        .await?;
    let receiver = node.cri.run(&pods[0], ContainerSpec::new("c")).await?;
    let script = format!(
        "mkdir /www && head -c {} /dev/zero > /www/file && exec httpd -f -p 80 -h /www",
        4 * MIB
    );
    let sender = ContainerSpec::new("c").shell(&script);
    node.cri.run(&pods[1], sender).await?;
    let ip = node.cri.pod_status(&pods[1].id).await?.network;
    let ip = ip.context("no network status")?.ip;
    let script = format!("wget -q -O - http://{ip}/file | wc -c");
    until("the sender to listen", || async {
        let count = node.cri.shell(&receiver, &script).await;
        let count = count.map_err(|error| error.to_string())?;
        let all = count.trim() == (4 * MIB).to_string();
        all.then_some(()).ok_or(count)
    })
    .await?;

    let mut traffic = Vec::new();
    for pod in &pods {
        let linux = pod_stats(&node, &pod.id).await?.linux.context("linux")?;
        let network = linux.network.context("no network usage")?;
        let interface = network.default_interface.context("no interface")?;
        assert_eq!(interface.name, "eth0");
        assert_eq!(
            (number(interface.rx_errors), number(interface.tx_errors)),
            (0, 0)
        );
        traffic.push((number(interface.rx_bytes), number(interface.tx_bytes)));
    }
    let [(received, answered), (heard, sent)] = traffic[..] else {
        panic!("{traffic:?}");
    };
    assert!(received >= 4 * MIB && sent >= 4 * MIB, "{traffic:?}");
    assert!(answered < MIB && heard < MIB, "{traffic:?}");
    let linux = pod_stats(&node, &host.id).await?.linux.context("linux")?;
    assert!(
        linux.network.is_none(),
        "the host's traffic is not the pod's"
    );
    node.finish().await
}

#[tokio::test]
async fn lists_are_filtered_and_streams_say_the_same() -> Result<()> {
    let node = Node::start().await?;
    let mut pods = Vec::new();
    for (name, tier) in [("a", "front"), ("b", "back"), ("c", "back")] {
        let pod = node
            .cri
            .run_pod(PodSpec::new(name).label("tier", tier))
            .await?;
        let id = node
            .cri
            .run(&pod, ContainerSpec::new("c").label("of", name))
            .await?;
        pods.push((pod, id));
    }
    let (stopped, _) = &pods[2];
    node.cri.stop_pod(&stopped.id).await?;
    let id = |number: usize| pods[number].0.id.as_str();
    let by = |id: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter();
        Some(PodSandboxStatsFilter {
            id: id.to_owned(),
            label_selector: labels
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        })
    };
    for (filter, expected) in [
        (None, vec![id(0), id(1)]),
        (by("", &[("tier", "back")]), vec![id(1)]),
        (by(&id(0)[..20], &[]), vec![id(0)]),
        (by(id(0), &[("tier", "back")]), vec![]),
        (by("absent", &[]), vec![]),
    ] {
        let stats = list(&node, filter.clone()).await?;
        assert_eq!(
            ids(&stats),
            expected.iter().copied().collect(),
            "{filter:?}"
        );
        let request = StreamPodSandboxStatsRequest { filter };
        let mut runtime = node.cri.client().runtime;
        let stream = runtime
            .stream_pod_sandbox_stats(request)
            .await?
            .into_inner();
        let parts: Vec<_> = stream.try_collect().await?;
        let streamed: Vec<_> = parts
            .into_iter()
            .flat_map(|part| part.pod_sandbox_stats)
            .collect();
        assert_eq!(ids(&streamed), ids(&stats));
    }
    let filter = Some(ContainerStatsFilter {
        pod_sandbox_id: id(1).to_owned(),
        ..ContainerStatsFilter::default()
    });
    let mut runtime = node.cri.client().runtime;
    let request = ListContainerStatsRequest {
        filter: filter.clone(),
    };
    let listed = runtime
        .list_container_stats(request)
        .await?
        .into_inner()
        .stats;
    let request = StreamContainerStatsRequest { filter };
    let stream = runtime.stream_container_stats(request).await?.into_inner();
    let parts: Vec<_> = stream.try_collect().await?;
    let streamed = parts.into_iter().flat_map(|part| part.container_stats);
    for stats in [listed, streamed.collect()] {
        let ids: Vec<_> = stats
            .into_iter()
            .filter_map(|stats| stats.attributes)
            .collect();
        assert_eq!(ids.len(), 1);
        assert_eq!(
            (&ids[0].id, ids[0].labels["of"].as_str()),
            (&pods[1].1, "b")
        );
    }

    // A stopped pod is there, and uses nothing; an absent one is not there.
    let linux = pod_stats(&node, &stopped.id)
        .await?
        .linux
        .context("linux")?;
    assert!(linux.cpu.is_none() && linux.containers.is_empty());
    let request = PodSandboxStatsRequest {
        pod_sandbox_id: "absent".to_owned(),
    };
    let refused = runtime.pod_sandbox_stats(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    node.finish().await
}

#[tokio::test]
async fn a_writable_layer_is_counted_in_the_background() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let layer = |stats: ContainerStats| stats.writable_layer.context("no writable layer");
    let empty = layer(container_stats(&node, &id).await?)?;
    assert!(number(empty.used_bytes) < MIB, "{empty:?}");
    // Hard links and links to elsewhere count as they are; holes do not count.
    node.cri
        .shell(
            &id,
            "mkdir /d && head -c 3145728 /dev/zero > /d/file && ln /d/file /d/same && ln -s /proc /d/proc && \
             dd if=/dev/zero of=/d/holes bs=1 count=0 seek=1073741824 2>/dev/null && cd /d && \
             for i in 1 2 3 4 5 6 7 8 9; do mkdir -p deep && cd deep; done",
        )
        .await?;
    let full = until("the layer to be looked at again", || async {
        let stats = container_stats(&node, &id).await;
        let layer = stats.and_then(layer).map_err(|error| error.to_string())?;
        if number(layer.used_bytes) >= 3 * MIB {
            return Ok(layer);
        }
        Err(format!("{layer:?}"))
    })
    .await?;
    assert!(number(full.used_bytes) < 4 * MIB, "{full:?}");
    let more = number(full.inodes_used) - number(empty.inodes_used);
    assert_eq!(more, 1 + 3 + 9, "directory, files, deep directories");
    assert!(full.timestamp > empty.timestamp);
    // It is the images' file system.
    let mut image = node.cri.client().image;
    let info = image
        .image_fs_info(ImageFsInfoRequest {})
        .await?
        .into_inner();
    assert_eq!(info.container_filesystems.len(), 1);
    let images = info.image_filesystems.first().context("none")?;
    assert!(number(images.used_bytes) > 0 && number(images.inodes_used) > 0);
    assert_eq!(images.fs_id, info.container_filesystems[0].fs_id);
    assert_eq!(images.fs_id, full.fs_id);
    node.finish().await
}

/// A pod whose pause and processes are stopped is told like any other, and costs nobody a wait.
#[tokio::test]
async fn a_frozen_pod_holds_up_nobody() -> Result<()> {
    let node = Node::start().await?;
    let mut pods = Vec::new();
    for name in ["frozen", "other"] {
        let pod = node.cri.run_pod(PodSpec::new(name)).await?;
        let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
        pods.push((pod, id));
    }
    let pid = node.cri.container_pid(&pods[0].1).await?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let stopped = [
        parent.context("no PPid")?.trim().parse()?,
        i32::try_from(pid)?,
    ];
    for pid in stopped {
        kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    }
    let start = Instant::now();
    let stats = list(&node, None).await?;
    let mut runtime = node.cri.client().runtime;
    let request = ListPodSandboxMetricsRequest {};
    let metrics = runtime
        .list_pod_sandbox_metrics(request)
        .await?
        .into_inner();
    let took = start.elapsed();
    for pid in stopped {
        kill(Pid::from_raw(pid), Signal::SIGCONT)?;
    }
    assert_eq!((stats.len(), metrics.pod_metrics.len()), (2, 2));
    assert!(took < patience(Duration::from_secs(5)), "it took {took:?}");
    node.finish().await
}

/// The values of a metric, by the labels' values.
fn values<'a>(metrics: &'a [Metric], name: &str) -> BTreeMap<&'a [String], u64> {
    let found = metrics.iter().filter(|metric| metric.name == name);
    found
        .map(|metric| (&metric.label_values[..], number(metric.value)))
        .collect()
}

/// The value of a metric that has one.
fn value(metrics: &[Metric], name: &str) -> u64 {
    let values: Vec<_> = values(metrics, name).into_values().collect();
    assert_eq!(values.len(), 1, "{name}: {values:?}");
    values[0]
}

async fn metrics(node: &Node) -> Result<Vec<PodSandboxMetrics>> {
    let request = ListPodSandboxMetricsRequest {};
    let mut runtime = node.cri.client().runtime;
    let answer = runtime.list_pod_sandbox_metrics(request).await?;
    Ok(answer.into_inner().pod_metrics)
}

#[tokio::test]
async fn metrics_are_as_described_and_true() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let gone = node.cri.run_pod(PodSpec::new("gone")).await?;
    node.cri.stop_pod(&gone.id).await?;
    let spec = ContainerSpec::new("measured")
        .shell("httpd -f -p 81 & sleep 1000; true")
        .with_resources(|resources| {
            resources.memory_limit_in_bytes = 64 << 20;
            resources.cpu_quota = 50_000;
            resources.cpu_period = 100_000;
            resources.cpu_shares = 512;
        });
    let id = node.cri.run(&pod, spec).await?;
    let ended = ContainerSpec::new("ended").command(&["true"]);
    let ended = node.cri.run(&pod, ended).await?;
    node.cri.wait_exit(&ended).await?;

    let request = ListMetricDescriptorsRequest {};
    let mut runtime = node.cri.client().runtime;
    let described = runtime.list_metric_descriptors(request).await?.into_inner();
    let described: BTreeMap<_, _> = described
        .descriptors
        .into_iter()
        .map(|one| (one.name.clone(), one))
        .collect();
    let told = until("the container's server to run", || async {
        let told = metrics(&node).await.map_err(|error| error.to_string())?;
        let measured = told.first().and_then(|pod| pod.container_metrics.first());
        let measured = &measured.ok_or("no container")?.metrics;
        let processes = value(measured, "container_processes");
        let sockets = value(measured, "container_sockets");
        (processes >= 3 && sockets >= 1)
            .then(|| told.clone())
            .ok_or_else(|| format!("{processes} processes with {sockets} sockets"))
    })
    .await?;
    assert_eq!(told.len(), 1, "those of pods that are ready");
    let told = &told[0];
    assert_eq!(told.pod_sandbox_id, pod.id);
    assert_eq!(
        told.container_metrics.len(),
        1,
        "those of containers that run"
    );
    let own = &told.container_metrics[0];
    assert_eq!(own.container_id, id);
    for metric in told.metrics.iter().chain(&own.metrics) {
        let described = described.get(&metric.name).context(metric.name.clone())?;
        assert!(!described.help.is_empty());
        assert_eq!(metric.label_values.len(), described.label_keys.len());
        let labels: BTreeMap<_, _> = described
            .label_keys
            .iter()
            .zip(&metric.label_values)
            .collect();
        let label = |key: &str| labels[&key.to_owned()].as_str();
        assert_eq!((label("pod"), label("namespace")), ("pod", "test"));
        assert!(label("id").contains(&pod.id));
    }
    let labels = &own.metrics[0].label_values;
    assert_eq!((labels[0].as_str(), &labels[3]), ("measured", &id));
    assert!(labels[1].ends_with(&id) && labels[2].contains("busybox"));

    let value = |name: &str| value(&own.metrics, name);
    assert_eq!(value("container_spec_memory_limit_bytes"), 64 * MIB);
    assert_eq!(value("container_spec_cpu_quota"), 50_000);
    assert_eq!(value("container_spec_cpu_period"), 100_000);
    assert_eq!(value("container_oom_events_total"), 0);
    assert!((1..64 * MIB).contains(&value("container_memory_working_set_bytes")));
    assert!(value("container_threads") >= value("container_processes"));
    assert!(value("container_file_descriptors") >= 3 * value("container_processes"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let ago = now.as_secs() - value("container_start_time_seconds");
    assert!(ago < 60, "started {ago} s ago");
    let traffic = values(&told.metrics, "container_network_receive_packets_total");
    let (labels, _) = traffic.first_key_value().context("no traffic")?;
    assert_eq!((labels[0].as_str(), labels[6].as_str()), ("POD", "eth0"));
    let counter = own
        .metrics
        .iter()
        .find(|one| one.name == "container_cpu_usage_seconds_total");
    let counter = counter.context("no CPU time")?;
    assert_eq!(
        (counter.metric_type(), counter.timestamp),
        (MetricType::Counter, 0)
    );

    let request = StreamPodSandboxMetricsRequest {};
    let stream = runtime
        .stream_pod_sandbox_metrics(request)
        .await?
        .into_inner();
    let parts: Vec<_> = stream.try_collect().await?;
    let streamed: Vec<_> = parts
        .into_iter()
        .flat_map(|part| part.pod_sandbox_metrics)
        .collect();
    assert_eq!(streamed.len(), 1);
    let names = |metrics: &[Metric]| -> BTreeSet<String> {
        metrics.iter().map(|metric| metric.name.clone()).collect()
    };
    assert_eq!(names(&streamed[0].metrics), names(&told.metrics));
    node.finish().await
}

/// What is held open for pods goes with them.
#[tokio::test]
async fn measured_pods_leave_no_descriptors() -> Result<()> {
    let node = Node::start().await?;
    let pid = node.daemon.pid().context("the daemon runs")?;
    let descriptors = || Usage::of(pid).map(|usage| usage.descriptors.values().sum::<usize>());
    list(&node, None).await?;
    // The first has the daemon open the procfs by which pods' settings are written.
    let before = descriptors()? + 1;
    node.cri.run_pod(PodSpec::new("first")).await?;
    node.cri.remove_all_pods().await?;
    let mut pods = Vec::new();
    for number in 0..6 {
        let pod = node
            .cri
            .run_pod(PodSpec::new(&format!("pod-{number}")))
            .await?;
        let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
        pods.push((pod, id));
    }
    list(&node, None).await?;
    list(&node, None).await?;
    assert!(descriptors()? > before + 12, "files are held open");
    // Some go as a whole, some when their container has ended.
    for (pod, id) in &pods[..3] {
        node.cri.stop(id, 0).await?;
        node.cri.stop_pod(&pod.id).await?;
    }
    for (pod, _) in &pods[3..] {
        node.cri.stop_pod(&pod.id).await?;
    }
    until("the descriptors to be closed", || async {
        let now = descriptors().map_err(|error| error.to_string())?;
        (now <= before)
            .then_some(())
            .ok_or_else(|| format!("{before} before, {now} now"))
    })
    .await?;
    node.finish().await
}
