//! Single calls, one after the other: medians of 30.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use podwright_integration::proc::Processors;

use crate::{Figure, Measured, Target};

const ROUNDS: usize = 30;
/// A virtual machine whose host serves others meanwhile is measured again, at most so often.
const SERIES: usize = 6;
/// So much of the processors' time may the host have taken.
const MOST_STOLEN: f64 = 0.01;

/// The calls of a pod's life, in their order.
const CALLS: [Figure; 8] = [
    Figure::RunPod,
    Figure::Create,
    Figure::Start,
    Figure::PodUp,
    Figure::Exec,
    Figure::Stop,
    Figure::Remove,
    Figure::PodDown,
];

/// What was measured without a break.
struct Series {
    times: [Vec<Duration>; CALLS.len()],
    /// What the host took of the processors meanwhile: 0 to 1.
    stolen: f64,
}

/// The series that the host has disturbed least, whatever its figures are.
pub(crate) async fn measure(target: &Target, measured: &mut Measured) -> Result<()> {
    // The first one warms caches up and does not count.
    life(target).await?;
    let mut best = Series::measure(target).await?;
    for _ in 1..SERIES {
        if best.stolen <= MOST_STOLEN {
            break;
        }
        let next = Series::measure(target).await?;
        if next.stolen < best.stolen {
            best = next;
        }
    }
    measured.add(Figure::Stolen, best.stolen * 100.0);
    for (figure, times) in CALLS.into_iter().zip(&mut best.times) {
        measured.add_median(figure, times);
    }
    Ok(())
}

impl Series {
    async fn measure(target: &Target) -> Result<Self> {
        let processors = Processors::now()?;
        let mut times = CALLS.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (times, time) in times.iter_mut().zip(life(target).await?) {
                times.push(time);
            }
        }
        let stolen = processors.stolen()?;
        Ok(Self { times, stolen })
    }
}

async fn life(target: &Target) -> Result<[Duration; CALLS.len()]> {
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
