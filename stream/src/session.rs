//! What a URL stands for.

use crate::error::StreamError;

/// A command that is run in a container.
#[derive(Clone, Debug)]
pub struct ExecSession {
    /// The container's id.
    pub container: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The streams that the client wants.
    pub stdio: StdioChoice,
}

/// A container's main process, attached to.
#[derive(Clone, Debug)]
pub struct AttachSession {
    /// The container's id.
    pub container: String,
    /// The streams that the client wants.
    pub stdio: StdioChoice,
}

/// Connections that are forwarded into a pod.
#[derive(Clone, Debug)]
pub struct PortForwardSession {
    /// The pod sandbox's id.
    pub sandbox: String,
    /// The ports that may be forwarded to. When empty, the client names a port for each connection.
    pub ports: Vec<u16>,
}

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StdioChoice {
    /// From the client.
    pub stdin: Stdio,
    /// To the client.
    pub stdout: Stdio,
    /// To the client.
    pub stderr: Stdio,
    /// Whether the process has a terminal: then there is no stderr, and the client sends the terminal's size.
    pub terminal: Terminal,
}

impl StdioChoice {
    /// What CRI says of the request: at least one stream, and no stderr beside a terminal.
    pub(crate) fn check(self) -> Result<(), StreamError> {
        if self.terminal == Terminal::Attached && self.stderr == Stdio::Open {
            return Err(StreamError::StderrWithTerminal);
        }
        if [self.stdin, self.stdout, self.stderr] == [Stdio::Closed; 3] {
            return Err(StreamError::NoStream);
        }
        Ok(())
    }
}

/// Whether one of the standard streams is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// The client has it.
    Open,
    /// Nobody asked for it.
    Closed,
}

impl From<bool> for Stdio {
    /// CRI's flags.
    fn from(wanted: bool) -> Self {
        if wanted { Self::Open } else { Self::Closed }
    }
}

/// Whether the process has a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// It has; stdin and stdout are the terminal.
    Attached,
    /// It has not; the streams are pipes.
    Absent,
}

impl From<bool> for Terminal {
    /// CRI's `tty`.
    fn from(wanted: bool) -> Self {
        if wanted { Self::Attached } else { Self::Absent }
    }
}

/// A session that waits for its client.
#[derive(Debug)]
pub(crate) enum Session {
    Exec(ExecSession),
    Attach(AttachSession),
    PortForward(PortForwardSession),
}

impl Session {
    /// The first part of its URL's path, as the kubelet's streaming server has it.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_chosen_as_cri_says() {
        let choice = |stdin: bool, stdout: bool, stderr: bool, terminal: bool| StdioChoice {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
            terminal: terminal.into(),
        };
        assert!(choice(true, true, true, false).check().is_ok());
        assert!(choice(false, false, true, false).check().is_ok());
        assert!(choice(true, false, false, true).check().is_ok());
        assert!(matches!(
            choice(true, true, true, true).check(),
            Err(StreamError::StderrWithTerminal)
        ));
        assert!(matches!(
            choice(false, false, false, true).check(),
            Err(StreamError::NoStream)
        ));
    }
}
