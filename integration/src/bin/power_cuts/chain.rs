//! The outside: one disk, many boots.

use std::{
    env,
    io::{self, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use podwright_integration::{
    random::Random,
    vm::{
        Disk, FileSystem, Job, Machine, Share,
        power::{Loss, VolatileDisk},
    },
};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{sleep_until, timeout},
};

use crate::{
    ledger::Ledger,
    message::{Ending, Event, Figures, LeftPod, ORDER, Order},
};

/// A sparse file; the least that XFS takes is 300 MB.
const DISK_SIZE: u64 = 2 << 30;
const MEMORY_MIB: u32 = 1024;
/// A boot with its check; only failures take so long.
const BOOT: Duration = Duration::from_secs(600);
/// The longest that a node works after its check.
const WORK: Duration = Duration::from_secs(10);
/// The longest that a node has for its start and check, when the power is cut within them.
const START: Duration = Duration::from_secs(6);
/// Records that are damaged on purpose.
const MOST_DAMAGES: u64 = 4;

/// What kernels say of a file system that is not as they left it.
const COMPLAINTS: [&str; 3] = ["EXT4-fs error", "XFS_WANT_CORRUPTED", "Corruption of "];

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    EveryBoot,
    EveryLine,
}

/// A node's disk, and what must be on it.
#[derive(Debug)]
pub(crate) struct Chain {
    file_system: FileSystem,
    random: Random,
    verbosity: Verbosity,
    directory: TempDir,
    ledger: Ledger,
    left: Vec<LeftPod>,
    boots: u32,
}

/// When the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    AfterLaunch(Duration),
    AfterCheck(Duration),
    Never,
}

/// What a boot was.
#[derive(Debug)]
struct Boot {
    figures: Option<Figures>,
    /// Nothing when it was orderly.
    loss: Option<Loss>,
}

impl Chain {
    pub(crate) fn new(
        file_system: FileSystem,
        random: Random,
        verbosity: Verbosity,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("podwright-power-")
            .tempdir()?;
        Disk::create(&directory.path().join("disk"), file_system, DISK_SIZE)?;
        Ok(Self {
            file_system,
            random,
            verbosity,
            directory,
            ledger: Ledger::default(),
            left: Vec::new(),
            boots: 0,
        })
    }

    /// Cuts the power so often, or until `end`, and checks once more after the last cut. Returned is the number of cuts.
    ///
    /// # Errors
    /// When a check finds something wrong, or a machine cannot be started.
    pub(crate) async fn run(&mut self, count: u32, end: Instant) -> Result<u32> {
        let mut cuts = 0;
        while cuts < count && Instant::now() < end {
            // Few reboots are enough: they are not what may go wrong at any moment.
            let ending = match self.random.chance(1, 8) {
                true => Ending::Reboot,
                false => Ending::Cut,
            };
            cuts += u32::from(ending == Ending::Cut);
            self.boot(ending).await?;
        }
        self.boot(Ending::Last).await?;
        Ok(cuts)
    }

    /// The disk is evidence after a failure.
    pub(crate) fn keep_disk_of(&mut self, done: &Result<u32>) {
        if done.is_err() {
            self.directory.disable_cleanup(true);
            println!("the disk is kept: {}", self.disk().display());
        }
    }

    fn disk(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    async fn boot(&mut self, ending: Ending) -> Result<()> {
        self.boots += 1;
        let moment = match ending {
            Ending::Cut if self.random.chance(1, 5) => Moment::AfterLaunch(self.random_part(START)),
            Ending::Cut => Moment::AfterCheck(self.random_part(WORK)),
            Ending::Reboot | Ending::Last => Moment::Never,
        };
        // After an orderly reboot everything must be there, so nothing is damaged then.
        let damages = match self.left.is_empty() && self.random.chance(1, 3) {
            true => 1 + self.random.below(MOST_DAMAGES),
            false => 0,
        };
        let order = Order {
            seed: self.random.next_u64(),
            boot: self.boots,
            damages: usize::try_from(damages)?,
            present: self.ledger.present(),
            absent: self.ledger.absent(),
            left: std::mem::take(&mut self.left),
            ending,
        };
        let number = self.boots;
        let boot = self.live(&order, moment);
        let boot = boot.await.with_context(|| format!("boot {number}"))?;
        println!("{} boot {number}: {}", self.file_system, boot.text(ending));
        Ok(())
    }

    fn random_part(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.random.below(most))
    }

    /// One life of the machine.
    async fn live(&mut self, order: &Order, moment: Moment) -> Result<Boot> {
        let volatile = VolatileDisk::switch_on(&self.disk())?;
        let mut machine = Machine::start(&job(order, volatile.disk())?).await?;
        let (mut output, mut lines) = Lines::channel();
        let mut watch = Watch::new(moment);
        let watched = timeout(BOOT, async {
            let ended = machine.wait(&mut output);
            tokio::pin!(ended);
            loop {
                tokio::select! {
                    code = &mut ended => break code.map(Some),
                    () = watch.cut() => break Ok(None),
                    Some(line) = lines.recv() => {
                        self.note(&line, &mut watch);
                    }
                }
            }
        })
        .await;
        let console = machine.console();
        // Were the disk to lose what was flushed, the file system would say so first.
        ensure!(
            !COMPLAINTS.iter().any(|text| console.contains(text)),
            "the file system is damaged, by the disk or by the kernel: {console}"
        );
        let (code, cut) = match watched {
            Ok(Ok(Some(code))) => (code, None),
            outcome => {
                machine.cut_power(&mut output).await?;
                outcome
                    .context("the machine hangs")
                    .flatten()
                    .with_context(|| watch.evidence(&console))?;
                (0, Some(()))
            }
        };
        // What was told before the end counts, too.
        drop(output);
        while let Some(line) = lines.recv().await {
            self.note(&line, &mut watch);
        }
        ensure!(code == 0, "{}", watch.evidence(&console));
        if cut.is_some() {
            let loss = volatile.cut(&mut self.random.fork())?;
            return Ok(Boot {
                figures: watch.figures,
                loss: Some(loss),
            });
        }
        volatile.switch_off()?;
        ensure!(
            moment == Moment::Never && watch.figures.is_some(),
            "the node has ended early: {}",
            watch.evidence(&console)
        );
        Ok(Boot {
            figures: watch.figures,
            loss: None,
        })
    }

    fn note(&mut self, line: &str, watch: &mut Watch) {
        if self.verbosity == Verbosity::EveryLine {
            println!("{:7.2} {line}", watch.begun.elapsed().as_secs_f32());
        }
        match Event::parse(line) {
            Some(event) => {
                self.ledger.note(&event);
                watch.note(&event);
                if let Event::Left(pods) = event {
                    self.left = pods;
                }
            }
            None => watch.said.push(line.to_owned()),
        }
    }
}

impl Boot {
    fn text(&self, ending: Ending) -> String {
        let found = match &self.figures {
            Some(found) => format!(
                "ready in {} ms, {} images of {} files whole, {} records torn and {} damaged, {} pods and {} containers \
                 listed, a new pod in {} ms",
                found.start_ms,
                found.images,
                found.files,
                found.torn,
                found.damaged,
                found.pods,
                found.containers,
                found.pod_ms
            ),
            None => "cut before its check was done".to_owned(),
        };
        match self.loss {
            Some(loss) => format!(
                "{found}; cut: {} of {} unflushed sectors lost",
                loss.lost, loss.unflushed
            ),
            None if ending == Ending::Reboot => format!("{found}; rebooted in order"),
            None => found,
        }
    }
}

/// What a boot has told so far.
#[derive(Debug)]
struct Watch {
    begun: Instant,
    moment: Moment,
    cut_at: Option<tokio::time::Instant>,
    figures: Option<Figures>,
    /// Lines for people.
    said: Vec<String>,
}

impl Watch {
    fn new(moment: Moment) -> Self {
        Self {
            begun: Instant::now(),
            moment,
            cut_at: None,
            figures: None,
            said: Vec::new(),
        }
    }

    fn note(&mut self, event: &Event) {
        let delay = match (event, self.moment) {
            (Event::Launching, Moment::AfterLaunch(delay))
            | (Event::Checked(..), Moment::AfterCheck(delay)) => Some(delay),
            _ => None,
        };
        if let Some(delay) = delay {
            self.cut_at = Some(tokio::time::Instant::now() + delay);
        }
        if let Event::Checked(_, figures) = event {
            self.figures = Some(*figures);
        }
    }

    /// Returns when it is time for the cut.
    fn cut(&self) -> impl Future<Output = ()> + use<> {
        let at = self.cut_at;
        async move {
            match at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }

    fn evidence(&self, console: &str) -> String {
        let said = self.said.join("\n");
        format!("the node says:\n{said}\nits console:\n{console}")
    }
}

/// Takes output apart into lines.
struct Lines {
    begun: Vec<u8>,
    lines: mpsc::UnboundedSender<String>,
}

impl Lines {
    fn channel() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (lines, receiver) = mpsc::unbounded_channel();
        let begun = Vec::new();
        (Self { begun, lines }, receiver)
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&self.begun).into_owned();
                self.begun.clear();
                // Whoever listens goes away last.
                let _ = self.lines.send(line);
            } else {
                self.begun.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn job(order: &Order, disk: Disk) -> Result<Job> {
    let own = env::current_exe().context("finding this program")?;
    let built = own.parent().context("this program has no directory")?;
    let Some(program) = own.to_str() else {
        bail!("the path of {} is no text", own.display())
    };
    let mut job = Job::new(&[program, "--inside"]);
    job.environment = vec![(ORDER.to_owned(), serde_json::to_string(order)?)];
    job.disks = vec![disk];
    job.shares = vec![Share::same_path(built)];
    job.memory_mib = MEMORY_MIB;
    Ok(job)
}
