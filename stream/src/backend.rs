//! What a session does, behind a trait.

use std::fmt;

use tokio::sync::mpsc;

use crate::pipe::{Incoming, Outgoing};
use crate::session::{AttachSession, ExecSession};

/// What sessions do.
///
/// A future is dropped at once when its client is gone, at any of its await points: it ends then, in its
/// destructors, what it started. It shares a task with its connection, so it must not block the thread.
pub trait Backend: Send + Sync + 'static {
    /// Runs the command to its end: the exit code of a command that ran, or why it could not be run.
    ///
    /// All output must have been written to the streams when the future completes; what is written then still
    /// reaches the client.
    fn exec(
        &self,
        session: ExecSession,
        streams: Streams,
    ) -> impl Future<Output = Result<ExecEnd, SessionError>> + Send;

    /// Connects the streams with the container's main process until it ends, or all streams have.
    fn attach(
        &self,
        session: AttachSession,
        streams: Streams,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// One forwarded connection: copies both ways until both sides have ended. Half-close passes through.
    fn port_forward(
        &self,
        sandbox: String,
        port: u16,
        data: Duplex,
    ) -> impl Future<Output = Result<(), SessionError>> + Send;
}

/// The client's streams. What was not asked for is `None`.
#[derive(Debug)]
pub struct Streams {
    /// From the client; its end of file is the client's half-close. Dropping it discards what still comes.
    pub stdin: Option<Incoming>,
    /// To the client; `shutdown` and dropping half-close it.
    pub stdout: Option<Outgoing>,
    /// To the client.
    pub stderr: Option<Outgoing>,
    /// The terminal's sizes, the newest first when the reader is slow; only with a terminal.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
}

/// The two directions of a forwarded connection.
#[derive(Debug)]
pub struct Duplex {
    /// From the client.
    pub incoming: Incoming,
    /// To the client.
    pub outgoing: Outgoing,
}

/// A terminal's size, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecEnd {
    /// Its exit code; 128 and the signal's number for one that a signal ended.
    pub exit_code: i32,
}

/// Why a session could not do what it was for. The client is shown the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionError {
    /// In words, for the client's user.
    pub message: String,
}

impl SessionError {
    /// With this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SessionError {}
