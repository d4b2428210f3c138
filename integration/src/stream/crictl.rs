//! crictl with pipes for its standard streams: Kubernetes' own client code, over both transports.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::node::deadline;

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// SPDY/3.1.
    Spdy,
    /// WebSocket.
    WebSocket,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Spdy, Self::WebSocket];

    /// As crictl's flag `--transport` takes it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Spdy => "--transport=spdy",
            Self::WebSocket => "--transport=websocket",
        }
    }
}

/// A program with pipes; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl Running {
    /// Starts `command`; its standard error is the test's.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(command: Command) -> Result<Self> {
        let mut command = tokio::process::Command::from(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            stdout,
        })
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// When it does not read any more.
    pub async fn write(&mut self, data: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its stdin is closed")?;
        Ok(stdin.write_all(data).await?)
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has said `wanted`; all that it said up to there.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn until_stdout(&mut self, wanted: &str) -> Result<String> {
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains(wanted) {
            let read = self.stdout.read_buf(&mut said);
            match tokio::time::timeout(deadline(), read).await {
                Ok(Ok(1..)) => {}
                end => bail!(
                    "no {wanted:?} but {:?}: {end:?}",
                    String::from_utf8_lossy(&said)
                ),
            }
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Reads to the end and waits for the program's; what it said, and its exit code.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn finish(mut self) -> Result<(Vec<u8>, Option<i32>)> {
        let mut said = Vec::new();
        let finished = async {
            self.stdout.read_to_end(&mut said).await?;
            self.child.wait().await
        };
        let status = tokio::time::timeout(deadline(), finished)
            .await
            .context("it does not end")??;
        Ok((said, status.code()))
    }

    /// SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}
