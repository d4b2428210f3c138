//! Single calls, one after the other: medians of 30.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{Figure, Measured, Target};

const ROUNDS: usize = 30;

/// The calls of a pod's life, in their order.
pub(crate) async fn measure(target: &Target, measured: &mut Measured) -> Result<()> {
    let order = [
        Figure::RunPod,
        Figure::Create,
        Figure::Start,
        Figure::PodUp,
        Figure::Exec,
        Figure::Stop,
        Figure::Remove,
        Figure::PodDown,
    ];
    // The first one warms caches up and does not count.
    life(target).await?;
    let mut times = order.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (times, time) in times.iter_mut().zip(life(target).await?) {
            times.push(time);
        }
    }
    for (figure, times) in order.into_iter().zip(&mut times) {
        measured.add_median(figure, times);
    }
    Ok(())
}

async fn life(target: &Target) -> Result<[Duration; 8]> {
    let cri = &target.cri;
    let mut last = Instant::now();
    let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed();
    let spec = target.pod();
    lap();
    let pod = cri.run_pod(spec).await?;
    let run = lap();
    let id = cri.create(&pod, target.container("c")).await?;
    let create = lap();
    cri.start_container(&id).await?;
    let start = lap();
    let done = cri.exec(&id, &["true"], 10).await?;
    let exec = lap();
    ensure!(done.exit_code == 0, "true failed");
    cri.stop(&id, 0).await?;
    let stop = lap();
    cri.remove(&id).await?;
    let remove = lap();
    cri.stop_pod(&pod.id).await?;
    cri.remove_pod(&pod.id).await?;
    Ok([
        run,
        create,
        start,
        run + create + start,
        exec,
        stop,
        remove,
        lap(),
    ])
}
