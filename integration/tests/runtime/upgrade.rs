//! Another version of the program takes over the pods of this one, and gives them back, newer and older ones alike.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use podwright_cri_api::v1::{ContainerState, ContainerStatsRequest, PodSandboxState};
use podwright_integration::{
    cri::{Cri, Pod},
    node::{Build, Node, until},
    patience::amount,
    pod::{ContainerSpec, PodSpec},
    stream::{IN_OUT, STDIN},
};
use tonic::Code;

const PODS: usize = 4;
/// Numbered lines of each writer: at 40 in 20 ms, they last as long as the takeovers do.
fn lines() -> usize {
    amount(20_000).max(6000)
}

/// What a release before the protocol's second version speaks.
const OLDER: Build = Build::Speaking("1-1");
/// What a later release will speak.
const NEWER: Build = Build::Speaking("1-3");
/// A release that has forgotten all that this one speaks.
const STRANGER: Build = Build::Speaking("3-3");

/// Writes until a file is there, and then so many lines that all are [`lines`]; ends with 7.
fn writer(directory: &str) -> ContainerSpec {
    let lines = lines();
    let script = format!(
        "i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); \
         [ $((i % 40)) = 0 ] && [ ! -e /flag/go ] && sleep 0.02; done; exit 7"
    );
    ContainerSpec::new("writer")
        .shell(&script)
        .mount(directory, "/flag")
}

/// Says again what it reads.
fn reader() -> ContainerSpec {
    let mut container = ContainerSpec::new("reader").shell("cat");
    container.config.stdin = true;
    container
}

/// A pod that was made by one build and is used by others.
struct Made {
    pod: Pod,
    writer: String,
    reader: String,
    pids: BTreeMap<String, u32>,
}

impl Made {
    async fn new(cri: &Cri, name: &str, directory: &str) -> Result<Self> {
        let pod = cri.run_pod(PodSpec::new(name)).await?;
        let writer = cri.run(&pod, writer(directory)).await?;
        let reader = cri.run(&pod, reader()).await?;
        let mut pids = BTreeMap::new();
        for id in [&writer, &reader] {
            pids.insert(id.clone(), cri.container_pid(id).await?);
        }
        Ok(Self {
            pod,
            writer,
            reader,
            pids,
        })
    }

    /// All that a daemon does with a pod, done by one that did not make it. `turn` tells the takeovers apart.
    async fn use_it(&self, cri: &Cri, turn: &str) -> Result<()> {
        let status = cri.pod_status(&self.pod.id).await?;
        assert_eq!(status.state(), PodSandboxState::SandboxReady);
        for (id, pid) in &self.pids {
            assert_eq!(
                cri.container_pid(id).await?,
                *pid,
                "{turn}: another process"
            );
        }
        assert_eq!(cri.shell(&self.reader, "echo $((6 * 7))").await?, "42\n");
        let mut session = cri.attach(&self.reader, IN_OUT).await?;
        session.send(STDIN, format!("{turn}\n").as_bytes()).await?;
        session.until_stdout(&format!("{turn}\n")).await?;
        drop(session);
        let request = ContainerStatsRequest {
            container_id: self.reader.clone(),
        };
        let stats = cri.client().runtime.container_stats(request).await?;
        let memory = stats.into_inner().stats.and_then(|stats| stats.memory);
        let used = memory.and_then(|memory| memory.usage_bytes);
        assert!(used.context("no memory usage")?.value > 0);
        let more = ContainerSpec::new(turn).shell("echo further; exec sleep 1000");
        let more = cri.run(&self.pod, more).await?;
        until("the further container to speak", || async {
            let lines = cri.logs(&more).await.map_err(|error| error.to_string())?;
            match lines.first() {
                Some(line) if line.text == "further" => Ok(()),
                _ => Err(format!("{lines:?}")),
            }
        })
        .await?;
        cri.stop(&more, 0).await?;
        assert_eq!(cri.wait_exit(&more).await?.exit_code, 137);
        cri.remove(&more).await?;
        Ok(())
    }

    /// The writer's log, from its first line to its last, over all takeovers.
    async fn check_log(&self, cri: &Cri) -> Result<()> {
        let ended = cri.wait_exit(&self.writer).await?;
        assert_eq!(ended.exit_code, 7);
        let log = cri.logs(&self.writer).await?;
        let texts = log.into_iter().map(|line| line.text);
        let expected = (0..lines()).map(|line| format!("line {line}"));
        ensure!(
            texts.eq(expected),
            "{}: lines are missing, doubled or torn",
            self.pod.id
        );
        Ok(())
    }
}

/// Runs commands in a container all the time. Calls fail while no daemon is there; those that succeed are right.
async fn exec_all_the_time(cri: &Cri, id: &str, end: &AtomicBool, done: &AtomicU64) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        match cri.exec(id, &["sh", "-c", "echo said; exit 3"], 10).await {
            Ok(answer) => {
                ensure!(
                    answer.exit_code == 3 && answer.stdout == b"said\n",
                    "a command ended with {}: {:?}",
                    answer.exit_code,
                    answer.stdout
                );
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(_no_daemon) => tokio::task::yield_now().await,
        }
    }
    Ok(())
}

/// A takeover, orderly or not.
#[derive(Clone, Copy)]
enum Change {
    Upgrade,
    Crash,
}

async fn take_over(node: &mut Node, build: Build, change: Change) -> Result<()> {
    match change {
        Change::Upgrade => node.daemon.terminate().await?,
        Change::Crash => node.daemon.kill9().await?,
    }
    node.daemon.set_build(build);
    node.daemon.restart().await
}

/// From one build to the other and back, with pods of both at work.
async fn there_and_back(first: Build, second: Build) -> Result<()> {
    let mut node = Node::start().await?;
    let flags = tempfile::tempdir()?;
    let directory = flags.path().display().to_string();
    take_over(&mut node, first, Change::Upgrade).await?;
    let cri = node.cri.clone();
    let cri = &cri;
    let names: Vec<String> = (0..PODS).map(|number| format!("first-{number}")).collect();
    let pods = names.iter().map(|name| Made::new(cri, name, &directory));
    let mut pods: Vec<Made> = try_join_all(pods).await?;
    let (end, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let busy: Vec<String> = pods.iter().map(|made| made.reader.clone()).collect();
    let load = try_join_all(
        busy.iter()
            .map(|id| exec_all_the_time(cri, id, &end, &done)),
    );
    let takeovers = async {
        take_over(&mut node, second, Change::Upgrade).await?;
        for made in &pods {
            made.use_it(cri, "there").await?;
        }
        pods.push(Made::new(cri, "second", &directory).await?);
        let before = done.load(Ordering::Relaxed);
        take_over(&mut node, first, Change::Crash).await?;
        for made in &pods {
            made.use_it(cri, "back").await?;
        }
        until("commands to run again", || async {
            let now = done.load(Ordering::Relaxed);
            (now > before)
                .then_some(())
                .ok_or_else(|| format!("{now} have"))
        })
        .await?;
        end.store(true, Ordering::Relaxed);
        std::fs::write(flags.path().join("go"), "")?;
        Ok(())
    };
    // The load ends when the takeovers have; an error of either ends both.
    tokio::try_join!(load, takeovers)?;
    for made in &pods {
        made.check_log(cri).await?;
    }
    finish(node).await
}

/// Only the program of the build that was there at first is there at the end.
async fn finish(mut node: Node) -> Result<()> {
    take_over(&mut node, Build::Tested, Change::Upgrade).await?;
    node.finish().await
}

#[tokio::test]
async fn this_version_takes_over_pods_of_an_older_one_and_gives_them_back() -> Result<()> {
    there_and_back(OLDER, Build::Tested).await
}

#[tokio::test]
async fn this_version_serves_pods_of_a_newer_one_after_a_downgrade() -> Result<()> {
    there_and_back(Build::Tested, NEWER).await
}

/// The build that stands for later versions really says more than this one knows.
#[tokio::test]
async fn a_newer_version_speaks_its_own_protocol_with_its_own_pods() -> Result<()> {
    let mut node = Node::start().await?;
    take_over(&mut node, NEWER, Change::Upgrade).await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    assert_eq!(node.cri.shell(&id, "echo alive").await?, "alive\n");
    take_over(&mut node, NEWER, Change::Crash).await?;
    assert_eq!(node.cri.shell(&id, "echo alive").await?, "alive\n");
    let rehearsals = node.daemon.log().matches("rehearsed the next").count();
    assert_eq!(rehearsals, 2, "at the pod's start, and at the daemon's");
    finish(node).await
}

/// Nothing can be asked of such a pod but to end; it is not touched, and does not keep the daemon from its work.
#[tokio::test]
async fn a_pod_that_speaks_no_common_version_runs_on_until_it_is_removed() -> Result<()> {
    let mut node = Node::start().await?;
    take_over(&mut node, STRANGER, Change::Upgrade).await?;
    let mut pods = Vec::new();
    for name in ["stopped", "kept"] {
        let pod = node.cri.run_pod(PodSpec::new(name)).await?;
        let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
        let pid = node.cri.container_pid(&id).await?;
        pods.push((pod, id, pid));
    }
    take_over(&mut node, Build::Tested, Change::Crash).await?;
    for (pod, id, pid) in &pods {
        let status = node.cri.pod_status(&pod.id).await?;
        assert_eq!(status.state(), PodSandboxState::SandboxReady);
        let status = node.cri.status(id).await?;
        assert_eq!(status.state(), ContainerState::ContainerRunning);
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        let refused = node.cri.exec(id, &["true"], 5).await.unwrap_err();
        assert_ne!(refused.code(), Code::Ok);
        for part in ["version 3", "this daemon 1 to 2", "remove the pod"] {
            assert!(refused.message().contains(part), "{refused}");
        }
    }
    let pod = node.cri.run_pod(PodSpec::new("other")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    assert_eq!(node.cri.shell(&id, "echo alive").await?, "alive\n");
    node.cri.stop_pod(&pods[0].0.id).await?;
    node.cri.remove_pod(&pods[0].0.id).await?;
    assert!(!std::path::Path::new(&format!("/proc/{}", pods[0].2)).exists());

    // The version that made it has it as it was.
    take_over(&mut node, STRANGER, Change::Upgrade).await?;
    let (kept, id, pid) = &pods[1];
    assert_eq!(node.cri.container_pid(id).await?, *pid);
    assert_eq!(node.cri.shell(id, "echo alive").await?, "alive\n");
    let status = node.cri.pod_status(&kept.id).await?;
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    finish(node).await
}
