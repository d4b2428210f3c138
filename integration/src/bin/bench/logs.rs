//! A container that writes as fast as it can.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use podwright_integration::proc;

use crate::{Figure, Measured, Target};

/// Lines of 100 bytes with their newline. The writer repeats a file of them: a tool that makes them one by one would be what
/// is measured.
const BLOCK_LINES: u64 = 20_000;
const BLOCKS: u64 = 134;
const LINES: u64 = BLOCK_LINES * BLOCKS;

/// The log's speed, from the container's start to its exit, and the runtime's CPU time meanwhile.
pub(crate) async fn measure(target: &Target, measured: &mut Measured) -> Result<()> {
    let before = proc::all();
    let pod = target.cri.run_pod(target.pod()).await?;
    let script = format!(
        "yes \"$(printf %099d 0)\" | head -n {BLOCK_LINES} > /block; \
         while [ $# -lt {BLOCKS} ]; do set -- \"$@\" /block; done; cat \"$@\""
    );
    let id = target
        .cri
        .create(&pod, target.container("writer").shell(&script))
        .await?;
    let mut runtime = proc::monitors(&before);
    runtime.push(target.server()?);
    let cpu = proc::cpu(&runtime);
    let start = Instant::now();
    target.cri.start_container(&id).await?;
    // Looking for the end now and then would be a quarter of what is measured.
    proc::ended(target.cri.container_pid(&id).await?).await?;
    let ended = target.cri.wait_exit(&id).await?;
    let elapsed = start.elapsed();
    let cpu = proc::cpu(&runtime).saturating_sub(cpu);
    ensure!(
        ended.exit_code == 0,
        "the writer ended with {}",
        ended.exit_code
    );
    let path = target.cri.log_path(&id).await?;
    let lines = tokio::task::spawn_blocking(move || count(&path)).await??;
    ensure!(lines == LINES, "{} of {LINES} lines are in the log", lines);
    let mebibytes = (LINES * 100) as f64 / f64::from(1 << 20);
    measured.add(Figure::LogRate, mebibytes / elapsed.as_secs_f64());
    measured.add(Figure::LogCpu, cpu.as_secs_f64());
    target.remove(&pod).await
}

/// How many whole lines of the workload a log holds.
fn count(path: &Path) -> Result<u64> {
    let text = [b"0".repeat(99), b"\n".to_vec()].concat();
    let mut count = 0;
    records(path, |record| {
        ensure!(
            record.ends_with(&text),
            "a torn record: {}",
            String::from_utf8_lossy(record)
        );
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// Gives each record of a log with its newline to `take`, without holding the log in memory.
pub(crate) fn records(path: &Path, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut record = Vec::new();
    while reader.read_until(b'\n', &mut record)? > 0 {
        ensure!(
            record.ends_with(b"\n"),
            "{}: the last record is torn",
            path.display()
        );
        take(&record)?;
        record.clear();
    }
    Ok(())
}
