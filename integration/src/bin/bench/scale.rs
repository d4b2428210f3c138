//! A node with a thousand pods: what a call costs there over what it costs among few.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use podwright_cri_api::v1::{ListContainersRequest, ListPodSandboxRequest};
use podwright_integration::{percentile::percentile, proc};

use crate::{Figure, Measured, Target, crowd::pods_memory, target::Sleeper};

const PODS: usize = 1_000;
/// As many are measured among few pods, and among many.
const SAMPLE: usize = 50;
const LISTS: usize = 200;

/// From none to a thousand and back.
pub(crate) async fn measure(target: &Target, measured: &mut Measured) -> Result<()> {
    target.make_room().await?;
    // The first one warms caches up and does not count.
    let (first, _) = up(target).await?;
    target.dismiss(first).await?;
    target.rest().await;
    let before = proc::all();
    let alone = proc::anonymous(target.server()?)?;

    let (mut sleepers, few) = up(target).await?;
    sleepers.extend(target.crowd(PODS - 2 * SAMPLE).await?);
    target.long_rest().await?;
    let (last, many) = up(target).await?;
    sleepers.extend(last);
    measured.add(Figure::ScaleUp, ratio(many.up, few.up));
    measured.add(Figure::ScaleExec, ratio(many.exec, few.exec));

    target.long_rest().await?;
    let monitors = proc::monitors(&before);
    let memory = pods_memory(target, &monitors, alone)?;
    measured.add(Figure::ScaleMemory, memory / PODS as f64);
    lists(target, measured).await?;

    let remaining = sleepers.split_off(SAMPLE);
    let many = down(target, sleepers).await?;
    let mut others = remaining;
    let last = others.split_off(others.len() - SAMPLE);
    target.dismiss(others).await?;
    target.long_rest().await?;
    let few = down(target, last).await?;
    measured.add(Figure::ScaleDown, ratio(many, few));
    Ok(())
}

/// How long each took.
#[derive(Default)]
struct Times {
    up: Vec<Duration>,
    exec: Vec<Duration>,
}

/// Some pods, one after the other.
async fn up(target: &Target) -> Result<(Vec<Sleeper>, Times)> {
    let (mut sleepers, mut times) = (Vec::new(), Times::default());
    for _ in 0..SAMPLE {
        let start = Instant::now();
        let sleeper = target.sleeper().await?;
        times.up.push(start.elapsed());
        let start = Instant::now();
        let done = target.cri.exec(&sleeper.container, &["true"], 10).await?;
        times.exec.push(start.elapsed());
        ensure!(done.exit_code == 0, "true failed");
        sleepers.push(sleeper);
    }
    Ok((sleepers, times))
}

async fn down(target: &Target, sleepers: Vec<Sleeper>) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for sleeper in sleepers {
        let start = Instant::now();
        target.remove(&sleeper.pod).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Of the medians.
fn ratio(mut many: Vec<Duration>, mut few: Vec<Duration>) -> f64 {
    percentile(&mut many, 50).as_secs_f64() / percentile(&mut few, 50).as_secs_f64()
}

async fn lists(target: &Target, measured: &mut Measured) -> Result<()> {
    let mut runtime = target.cri.client().runtime;
    let (mut containers, mut pods) = (Vec::new(), Vec::new());
    for _ in 0..LISTS {
        let start = Instant::now();
        let listed = runtime
            .list_containers(ListContainersRequest::default())
            .await?;
        containers.push(start.elapsed());
        ensure!(listed.into_inner().containers.len() >= PODS);
        let start = Instant::now();
        let listed = runtime
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await?;
        pods.push(start.elapsed());
        ensure!(listed.into_inner().items.len() >= PODS);
    }
    measured.add_percentile(Figure::ScaleContainers, &mut containers, 99);
    measured.add_percentile(Figure::ScalePods, &mut pods, 99);
    Ok(())
}
