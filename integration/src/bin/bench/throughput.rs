//! Pods up and down, eight at once.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;
use podwright_integration::proc::Processors;

use crate::{Figure, Measured, Target};

const WORKERS: usize = 8;
const TIME: Duration = Duration::from_secs(10);

/// As many as there are in [`TIME`].
pub(crate) async fn measure(target: &Target, measured: &mut Measured) -> Result<()> {
    let processors = Processors::now()?;
    let start = Instant::now();
    let workers = (0..WORKERS).map(|_| async {
        let mut count = 0_u32;
        while start.elapsed() < TIME {
            let pod = target.cri.run_pod(target.pod()).await?;
            target.cri.run(&pod, target.container("c")).await?;
            target.remove(&pod).await?;
            count += 1;
        }
        anyhow::Ok(count)
    });
    let count: u32 = try_join_all(workers).await?.into_iter().sum();
    let elapsed = start.elapsed();
    // What was put off belongs to it.
    target.rest().await;
    let cpu = processors.used()?;
    measured.add(Figure::Rate, f64::from(count) / elapsed.as_secs_f64());
    measured.add(Figure::RateCpu, cpu.as_secs_f64() * 1e3 / f64::from(count));
    Ok(())
}
