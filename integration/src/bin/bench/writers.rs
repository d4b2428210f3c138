//! Many containers that write steadily, while their logs are rotated as a kubelet does it.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use nix::{sys::stat::Mode, unistd::mkfifo};
use podwright_integration::{pod::ContainerSpec, proc};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    Figure, Measured, Target,
    numbered::{self, Numbered},
    target::Sleeper,
};

const WRITERS: u32 = 100;
const SECONDS: u32 = 60;
/// 1 MiB, and 24 bytes.
const LINES_A_SECOND: u64 = 10_486;
const LINES: u64 = LINES_A_SECOND * SECONDS as u64;
/// The kubelet's containerLogMaxSize.
const ROTATE_ABOVE: u64 = 10 << 20;
/// How often the logs are looked at. A kubelet does so each ten seconds, and its files grow the larger.
const LOOK: Duration = Duration::from_millis(250);
/// Where a container sees [`Lines`].
const LINES_MOUNT: &str = "/lines";

/// Lines that do not arrive, and the runtime's CPU time.
pub(crate) async fn measure(target: &Target, measured: &mut Measured) -> Result<()> {
    let lines = tokio::task::spawn_blocking(Lines::prepare).await??;
    let before = proc::all();
    let writers = start(target, &lines).await?;
    target.rest().await;
    let mut runtime = proc::monitors(&before);
    runtime.push(target.server()?);

    let cpu = proc::cpu(&runtime);
    let gate = lines.open_gate()?;
    let time = Duration::from_secs(SECONDS.into());
    // Before the last writer could end, and its log be one that cannot be reopened.
    let end = Instant::now() + time - Duration::from_secs(1);
    let rotating = writers.iter().map(|writer| rotate(target, writer, end));
    let read = try_join_all(rotating).await?;
    // The last of them begins a second late, and a little of each second is its shell's.
    sleep_until(end + Duration::from_secs(4)).await;
    let cpu = proc::cpu(&runtime).saturating_sub(cpu);
    drop(gate);

    let mut lost = 0;
    for (writer, numbered) in writers.iter().zip(read) {
        lost += finish(target, writer, numbered).await?;
    }
    measured.add(Figure::LinesLost, lost as f64);
    let share = cpu.as_secs_f64() / time.as_secs_f64();
    measured.add(Figure::WritersCpu, share * 100.0);
    target.dismiss(writers).await
}

/// A file of numbered lines for each second, and a gate that all writers wait at. All containers have the same ones: tools that make
/// lines one by one would need more of the machine than what is measured.
struct Lines {
    directory: TempDir,
}

impl Lines {
    fn prepare() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        for second in 0..SECONDS {
            let path = directory.path().join(second.to_string());
            let file =
                File::create(&path).with_context(|| format!("creating {}", path.display()))?;
            let mut file = BufWriter::new(file);
            let first = u64::from(second) * LINES_A_SECOND;
            for number in first..first + LINES_A_SECOND {
                file.write_all(&numbered::line(number))?;
            }
            file.flush()?;
        }
        mkfifo(&directory.path().join("gate"), Mode::S_IRUSR)?;
        Ok(Self { directory })
    }

    /// Lets the writers begin, also those that come to the gate later, while the answer is held.
    fn open_gate(&self) -> Result<File> {
        let path = self.directory.path().join("gate");
        // For both, so that it opens without a reader too: fifo(7).
        let gate = OpenOptions::new().read(true).write(true).open(path);
        gate.context("opening the writers' gate")
    }

    /// Writes the lines of a second at its beginning; the writers' seconds do not begin at the same moment.
    fn writer(&self, spec: ContainerSpec, number: u32) -> ContainerSpec {
        let script = format!(
            ": < {LINES_MOUNT}/gate; sleep {}; second=0; while [ $second -lt {SECONDS} ]; do \
             sleep 1 & cat {LINES_MOUNT}/$second; second=$((second + 1)); wait; done",
            f64::from(number) / f64::from(WRITERS)
        );
        let path = self.directory.path().display().to_string();
        spec.shell(&script).mount(&path, LINES_MOUNT)
    }
}

async fn start(target: &Target, lines: &Lines) -> Result<Vec<Sleeper>> {
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let pod = target.cri.run_pod(target.pod()).await?;
        let spec = lines.writer(target.container("writer"), number);
        let container = target.cri.run(&pod, spec).await?;
        writers.push(Sleeper { pod, container });
    }
    Ok(writers)
}

/// Rotates a writer's log until `end`, and reads what is rotated.
async fn rotate(target: &Target, writer: &Sleeper, end: Instant) -> Result<Numbered> {
    let path = target.cri.log_path(&writer.container).await?;
    let rotated = path.with_extension("log.rotated");
    let mut numbered = Numbered::default();
    while Instant::now() < end {
        sleep(LOOK).await;
        let length = fs::metadata(&path).with_context(|| format!("{}", path.display()))?;
        if length.len() > ROTATE_ABOVE {
            fs::rename(&path, &rotated)?;
            target.cri.reopen_log(&writer.container).await?;
            numbered = read(numbered, rotated.clone()).await?;
        }
    }
    Ok(numbered)
}

/// Reads a log on, and deletes it: a minute's are more than a disk may have room for.
async fn read(mut numbered: Numbered, path: PathBuf) -> Result<Numbered> {
    let read = move || {
        numbered.read(&path)?;
        delete(&path)?;
        Ok(numbered)
    };
    tokio::task::spawn_blocking(read).await?
}

fn delete(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("deleting {}", path.display()))
}

/// What is missing of a writer's lines when all are read.
async fn finish(target: &Target, writer: &Sleeper, numbered: Numbered) -> Result<u64> {
    let ended = target.cri.wait_exit(&writer.container).await?;
    ensure!(
        ended.exit_code == 0,
        "a writer ended with {}",
        ended.exit_code
    );
    let numbered = read(numbered, ended.log_path.into()).await?;
    Ok(numbered.missing(LINES))
}
