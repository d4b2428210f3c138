//! A node with many pods: memory, idle CPU, lists, restart, frozen monitors.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podwright_cri_api::v1::{
    ListContainerStatsRequest, ListContainersRequest, ListPodSandboxMetricsRequest,
    ListPodSandboxStatsRequest,
};
use podwright_integration::proc;
use tonic::{Code, Status};

use crate::{Figure, Measured, Target, target::Sleeper};

const IDLE: Duration = Duration::from_secs(10);
const FROZEN: usize = 12;
/// A server that does not answer by then has failed the row.
const PATIENCE: Duration = Duration::from_secs(20);

/// The daemon before its first pod, once it has nothing to do.
pub(crate) async fn idle(target: &Target, measured: &mut Measured) -> Result<()> {
    target.long_rest().await?;
    measured.add(Figure::IdleMemory, proc::pss(target.server()?)? / 1024.0);
    Ok(())
}

/// Everything that takes many pods.
pub(crate) async fn measure(target: &mut Target, measured: &mut Measured) -> Result<()> {
    target.rest().await;
    let before = proc::all();
    let alone = proc::anonymous(target.server()?)?;
    let mut sleepers = target.crowd(50).await?;
    target.rest().await;
    let monitors = proc::monitors(&before);
    memory(target, measured, &monitors, alone)?;
    further_containers(target, measured, &before, &sleepers).await?;
    // Their cgroups are given up meanwhile.
    target.rest().await;
    freeze(target, measured, &monitors).await?;

    sleepers.extend(target.crowd(50).await?);
    target.rest().await;
    let mut runtime = proc::monitors(&before);
    runtime.push(target.server()?);
    let cpu = proc::cpu(&runtime);
    tokio::time::sleep(IDLE).await;
    let used = proc::cpu(&runtime).saturating_sub(cpu);
    measured.add(
        Figure::IdleCpu,
        used.as_secs_f64() / IDLE.as_secs_f64() * 100.0,
    );
    lists(target, measured).await?;

    target.dismiss(sleepers.split_off(50)).await?;
    restart(target, measured).await?;
    target.dismiss(sleepers).await
}

fn memory(target: &Target, measured: &mut Measured, monitors: &[u32], alone: f64) -> Result<()> {
    let all = pods_memory(target, monitors, alone)?;
    measured.add(Figure::PodMemory, all / 50.0);
    if !monitors.is_empty() {
        let count = u32::try_from(monitors.len())?;
        let private = sum(monitors, proc::private)?;
        measured.add(Figure::MonitorMemory, private / f64::from(count));
    }
    Ok(())
}

/// What all pods take of the runtime's memory, in KiB: their `monitors`, and by how much the daemon's anonymous memory has grown
/// since it was `alone`. Pages of its program that come and go are not of a pod.
pub(crate) fn pods_memory(target: &Target, monitors: &[u32], alone: f64) -> Result<f64> {
    Ok(sum(monitors, proc::pss)? + proc::anonymous(target.server()?)? - alone)
}

fn sum(processes: &[u32], of: fn(u32) -> Result<f64>) -> Result<f64> {
    processes.iter().map(|pid| of(*pid)).sum()
}

/// A second container in each of the pods; gone again when this returns. A runtime with a process per
/// container shows it here too.
async fn further_containers(
    target: &Target,
    measured: &mut Measured,
    before: &BTreeSet<u32>,
    sleepers: &[Sleeper],
) -> Result<()> {
    let total = || -> Result<f64> {
        let monitors = proc::monitors(before);
        pods_memory(target, &monitors, 0.0)
    };
    // What was freed last is given back within a second.
    target.rest().await;
    let one = total()?;
    let mut seconds = Vec::new();
    for Sleeper { pod, .. } in sleepers {
        seconds.push(target.cri.run(pod, target.container("second")).await?);
    }
    target.rest().await;
    let count = u32::try_from(sleepers.len())?;
    measured.add(Figure::ContainerMemory, (total()? - one) / f64::from(count));
    for id in seconds {
        target.cri.stop(&id, 0).await?;
        target.cri.remove(&id).await?;
    }
    Ok(())
}

/// Stats while some monitors do not answer. They go on afterwards.
async fn freeze(target: &Target, measured: &mut Measured, monitors: &[u32]) -> Result<()> {
    let frozen: Vec<_> = monitors
        .iter()
        .take(FROZEN)
        .map(|pid| *pid as i32)
        .collect();
    let signal = |signal| {
        for pid in &frozen {
            // One that has ended meanwhile is not frozen, and that is all.
            let _ = kill(Pid::from_raw(*pid), signal);
        }
    };
    signal(Signal::SIGSTOP);
    let start = Instant::now();
    let mut runtime = target.cri.client().runtime;
    let call = runtime.list_container_stats(ListContainerStatsRequest::default());
    let answer = tokio::time::timeout(PATIENCE, call).await;
    let elapsed = start.elapsed();
    signal(Signal::SIGCONT);
    if !matches!(&answer, Ok(Err(status)) if status.code() == Code::Unimplemented) {
        measured.add(Figure::Frozen, elapsed.as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Medians of the lists over all pods.
async fn lists(target: &Target, measured: &mut Measured) -> Result<()> {
    let runtime = target.cri.client().runtime;
    for figure in [
        Figure::ContainerStats,
        Figure::PodStats,
        Figure::PodMetrics,
        Figure::List,
    ] {
        let mut times = Vec::new();
        for _ in 0..11 {
            let mut runtime = runtime.clone();
            let start = Instant::now();
            let answer: Result<(), Status> = match figure {
                Figure::ContainerStats => {
                    let request = ListContainerStatsRequest::default();
                    runtime.list_container_stats(request).await.map(drop)
                }
                Figure::PodStats => {
                    let request = ListPodSandboxStatsRequest::default();
                    runtime.list_pod_sandbox_stats(request).await.map(drop)
                }
                Figure::PodMetrics => {
                    let request = ListPodSandboxMetricsRequest::default();
                    runtime.list_pod_sandbox_metrics(request).await.map(drop)
                }
                _ => runtime
                    .list_containers(ListContainersRequest::default())
                    .await
                    .map(drop),
            };
            match answer {
                Ok(()) => times.push(start.elapsed()),
                Err(status) if status.code() == Code::Unimplemented => break,
                Err(status) => return Err(status.into()),
            }
        }
        if !times.is_empty() {
            measured.add_median(figure, &mut times);
        }
    }
    Ok(())
}

/// From the start of a new daemon to the first answer.
async fn restart(target: &mut Target, measured: &mut Measured) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..5 {
        times.extend(target.restart().await?);
    }
    if !times.is_empty() {
        measured.add_median(Figure::Restart, &mut times);
    }
    Ok(())
}
