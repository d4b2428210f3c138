//! A running machine.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    net::{UnixListener, UnixStream},
    process::{Child, Command},
    time::timeout,
};

use super::{
    Accelerator, Init, Job,
    kernel::Kernel,
    programs::Programs,
    qemu::{self, Files},
    root,
};
use crate::patience;

/// QEMU opens its sockets before it starts the machine.
const CONNECTS: Duration = Duration::from_secs(30);
/// As many of the console's last lines are part of an error: what a kernel says of its end, with the stacks of its processors.
const CONSOLE_LINES: usize = 250;
const OUTPUT_BUFFER: usize = 64 << 10;

/// What the machine tells over its status port, a line each; `boot.sh` writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The root is mounted, and the job is about to start.
    Up,
    /// The command has ended with this code; 128 and its number after a signal, as sh(1) has it.
    Exit(u8),
}

impl Event {
    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None if line == "up" => Some(Self::Up),
            Some(("exit", code)) => code.parse().ok().map(Self::Exit),
            _ => None,
        }
    }
}

/// A virtual machine that runs a [`Job`]. It is killed when this is dropped, and when this process ends.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    output: UnixStream,
    status: Lines<BufReader<UnixStream>>,
    /// Holds the sockets, the job's files and the console's log.
    directory: TempDir,
}

impl Machine {
    /// Starts a machine with the best accelerator. The first time, everything is fetched and made.
    ///
    /// # Errors
    /// When something cannot be fetched or made, or QEMU does not start.
    pub async fn start(job: &Job) -> Result<Self> {
        let accelerator = Accelerator::choose(&job.kernel).await?;
        Self::start_with(job, accelerator).await
    }

    /// Starts a machine with the given accelerator.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn start_with(job: &Job, accelerator: Accelerator) -> Result<Self> {
        let (package, init, own) = (job.kernel.clone(), job.init, job.clone());
        let opened = tokio::task::spawn_blocking(move || {
            anyhow::Ok((parts(&package, init)?, own.all_shares()?))
        });
        let ((programs, kernel, root), shares) = opened.await??;
        let directory = tempfile::Builder::new().prefix("podwright-vm-").tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let files = Files {
            kernel: kernel.image(),
            initramfs: kernel.initramfs(),
            root,
            modules: kernel.modules(),
            job: path("job"),
            shares,
            console: path("console"),
            output: path("output"),
            status: path("status"),
        };
        let mut job = job.clone();
        // First, so that a job may say otherwise.
        let patience = accelerator.patience().to_string();
        job.environment
            .insert(0, (patience::VARIABLE.to_owned(), patience));
        job.write(&files.job)?;
        let (output, status) = (listen(&files.output)?, listen(&files.status)?);
        let mut qemu = spawn(
            programs.qemu()?,
            qemu::arguments(&job, accelerator, &files),
            &path("qemu.log"),
        )?;
        let connected = timeout(CONNECTS, async {
            tokio::select! {
                connected = async { Ok::<_, std::io::Error>((output.accept().await?, status.accept().await?)) } => {
                    Ok(connected?)
                }
                ended = qemu.wait() => bail!("it ended with {}", ended?),
            }
        });
        let ((output, _), (status, _)) = connected
            .await
            .context("it hangs")
            .flatten()
            .with_context(|| {
                format!(
                    "QEMU does not start the machine: {}",
                    text(&path("qemu.log"))
                )
            })?;
        let status = BufReader::new(status).lines();
        Ok(Self {
            qemu,
            output,
            status,
            directory,
        })
    }

    /// Waits until the machine is about to start its command.
    ///
    /// # Errors
    /// When it ends before.
    pub async fn up(&mut self) -> Result<()> {
        match self.event().await? {
            Event::Up => Ok(()),
            other => bail!("the machine says {other:?} before it is up"),
        }
    }

    /// Copies what the command writes, standard output and error as one, to `output` until the machine
    /// has switched itself off; the command's exit code. It may be cancelled and called again.
    ///
    /// # Errors
    /// When the machine ends before the command has, with the end of its console.
    pub async fn wait(&mut self, output: &mut impl Write) -> Result<u8> {
        let mut buffer = vec![0; OUTPUT_BUFFER];
        loop {
            let read = self.output.read(&mut buffer).await;
            let read = read.context("reading the machine's output")?;
            if read == 0 {
                break;
            }
            let written = output
                .write_all(&buffer[..read])
                .and_then(|()| output.flush());
            written.context("passing on the machine's output")?;
        }
        let code = loop {
            if let Event::Exit(code) = self.event().await? {
                break code;
            }
        };
        let ended = self.qemu.wait().await?;
        ensure!(ended.success(), "QEMU ended with {ended}: {}", self.log());
        Ok(code)
    }

    /// Ends it as a power cut does: what was not written to a disk is lost.
    ///
    /// # Errors
    /// When QEMU cannot be killed.
    pub async fn kill(mut self) -> Result<()> {
        self.qemu.kill().await.context("killing QEMU")
    }

    /// Ends it as a power cut does, and copies what its command had still written to `output`.
    ///
    /// # Errors
    /// When QEMU cannot be killed.
    pub async fn cut_power(mut self, output: &mut impl Write) -> Result<()> {
        self.qemu.kill().await.context("killing QEMU")?;
        let mut rest = Vec::new();
        let read = self.output.read_to_end(&mut rest).await;
        read.context("reading the machine's last output")?;
        output
            .write_all(&rest)
            .context("passing on the machine's last output")
    }

    /// What the kernel and `boot.sh` have written to the console.
    pub fn console(&self) -> String {
        text(&self.directory.path().join("console"))
    }

    /// Whether its kernel has ended because it kept a processor to itself: that is the kernel's or the emulator's own failure, whatever ran.
    pub fn has_locked_up(&self) -> bool {
        self.console().contains("softlockup: hung tasks")
    }

    async fn event(&mut self) -> Result<Event> {
        let line = self
            .status
            .next_line()
            .await
            .context("reading the machine's status")?;
        let Some(line) = line else {
            bail!(
                "the machine ended by itself{}; its console's end:\n{}",
                self.log(),
                tail(&self.console())
            );
        };
        Event::parse(&line).with_context(|| format!("the machine says {line:?}"))
    }

    /// What QEMU says about itself, which is mostly nothing.
    fn log(&self) -> String {
        let said = text(&self.directory.path().join("qemu.log"));
        match said.trim() {
            "" => String::new(),
            said => format!(" ({said})"),
        }
    }
}

fn parts(package: &str, init: Init) -> Result<(Programs, Kernel, PathBuf)> {
    let programs = Programs::open().context("QEMU for the virtual machine")?;
    let kernel = Kernel::open(package, &programs)?;
    let root = root::open(init, &programs)?;
    Ok((programs, kernel, root))
}

fn listen(path: &Path) -> Result<UnixListener> {
    UnixListener::bind(path).with_context(|| format!("binding {}", path.display()))
}

/// Starts QEMU so that it ends with this process, even when that is killed.
fn spawn(
    qemu: std::process::Command,
    arguments: Vec<std::ffi::OsString>,
    log: &Path,
) -> Result<Child> {
    let log = fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(qemu.get_program())
        .args(qemu.get_args());
    for (name, value) in qemu.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("starting QEMU by setpriv (package util-linux)")
}

fn text(path: &Path) -> String {
    // A console is bytes.
    fs::read(path).map_or_else(
        |error| format!("no log: {error}"),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read() {
        for (line, expected) in [
            ("up", Some(Event::Up)),
            ("exit 0", Some(Event::Exit(0))),
            ("exit 137", Some(Event::Exit(137))),
            ("exit 256", None),
            ("exit", None),
            ("up 1", None),
            ("", None),
        ] {
            assert_eq!(Event::parse(line), expected, "{line:?}");
        }
    }

    #[test]
    fn an_error_has_the_consoles_end() {
        let lines: Vec<_> = (0..1000).map(|number| number.to_string()).collect();
        let end = tail(&lines.join("\r\n"));
        assert_eq!(end.lines().count(), CONSOLE_LINES);
        assert!(end.ends_with("\n999"), "{end}");
        assert_eq!(tail("one"), "one");
    }
}
