//! A container that writes as fast as it can.

use std::{fs::File, io::Read as _, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{Figure, Measured, Target, proc};

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
    target.remove(vec![pod]).await
}

/// How many whole lines of the workload a log holds.
fn count(path: &Path) -> Result<u64> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let (mut count, mut rest, mut buffer) = (0, Vec::new(), vec![0; 1 << 20]);
    let text = [b"0".repeat(99), b"\n".to_vec()].concat();
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            ensure!(rest.is_empty(), "the last record is torn");
            return Ok(count);
        }
        rest.extend(&buffer[..length]);
        let whole = rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        for record in rest[..whole].split_inclusive(|byte| *byte == b'\n') {
            ensure!(
                record.ends_with(&text),
                "a torn record: {}",
                String::from_utf8_lossy(record)
            );
            count += 1;
        }
        rest.drain(..whole);
    }
}
