//! A crictl that goes on: its input is written and its output read while it runs.

use std::{
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podwright_integration::node::{deadline, until};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
    time::timeout,
};

/// What a program has printed so far.
#[derive(Clone, Default)]
pub(super) struct Printed {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Printed {
    /// Collects all that `from` gives, in the background.
    fn collect(mut from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let printed = Self::default();
        let to = printed.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                to.add(&buffer[..count]);
            }
        });
        printed
    }

    pub(super) fn add(&self, more: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend_from_slice(more);
    }

    pub(super) fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `part` was printed.
    pub(super) async fn wait(&self, part: &str) -> Result<()> {
        until(&format!("{part:?} to be printed"), || async {
            let text = self.text();
            match text.contains(part) {
                true => Ok(()),
                false => Err(format!("it printed {text:?}")),
            }
        })
        .await
    }
}

/// A running crictl.
pub(super) struct Background {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(super) stdout: Printed,
    pub(super) stderr: Printed,
}

impl Background {
    pub(super) fn start(mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("starting crictl")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            stdout: Printed::collect(stdout),
            stderr: Printed::collect(stderr),
        })
    }

    /// Writes to its standard input.
    pub(super) async fn write(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its input was closed")?;
        let written = stdin.write_all(text.as_bytes()).await;
        written.with_context(|| format!("crictl has ended: {}", self.stderr.text()))
    }

    /// Closes its standard input.
    pub(super) fn close(&mut self) {
        self.stdin = None;
    }

    /// Ctrl-C.
    pub(super) fn interrupt(&self) -> Result<()> {
        signal(&self.child, Signal::SIGINT)
    }

    /// Waits for its end.
    pub(super) async fn end(&mut self) -> Result<ExitStatus> {
        let status = timeout(deadline(), self.child.wait()).await;
        let printed = || {
            let (out, err) = (self.stdout.text(), self.stderr.text());
            format!("it does not end; it printed {out:?} and {err:?}")
        };
        Ok(status.with_context(printed)??)
    }
}

/// Sends a signal to a child that was not waited for.
pub(super) fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    kill(Pid::from_raw(pid.context("it has ended")?), signal).context("sending a signal")
}
