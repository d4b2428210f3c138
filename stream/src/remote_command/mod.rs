//! Kubernetes' remotecommand: one process's streams over a connection.

mod protocol;
mod resize;
mod spdy;
mod status;
mod websocket;

pub(crate) use protocol::{SPDY_PROTOCOLS, Version, WEB_SOCKET_PROTOCOLS, WebSocketProtocol};
pub(crate) use spdy::over_spdy;
pub(crate) use websocket::{channels as web_socket_channels, over_web_socket};

use crate::backend::{Backend, Streams};
use crate::pipe::{Incoming, Outgoing};
use crate::session::{AttachSession, ExecSession, Stdio, StdioChoice, Terminal};
use status::Outcome;

/// What is done with the streams.
#[derive(Debug)]
pub(crate) enum Command {
    Exec(ExecSession),
    Attach(AttachSession),
}

impl Command {
    fn stdio(&self) -> StdioChoice {
        match self {
            Self::Exec(session) => session.stdio,
            Self::Attach(session) => session.stdio,
        }
    }

    /// Lets the backend do it, with those streams that were asked for.
    async fn run<B: Backend>(self, backend: &B, pipes: Pipes) -> Outcome {
        let stdio = self.stdio();
        let (resize, sizes) = match stdio.terminal {
            Terminal::Attached => {
                let (sender, receiver) = resize::channel();
                (Some(receiver), pipes.resize.map(|from| (from, sender)))
            }
            Terminal::Absent => (None, None),
        };
        let streams = Streams {
            stdin: asked_for(stdio.stdin, pipes.stdin),
            stdout: asked_for(stdio.stdout, pipes.stdout),
            stderr: asked_for(stdio.stderr, pipes.stderr),
            resize,
        };
        let running = async {
            match self {
                Self::Exec(session) => match backend.exec(session, streams).await {
                    Ok(end) => Outcome::Exited(end.exit_code),
                    Err(error) => {
                        Outcome::failed(format!("error executing command in container: {error}"))
                    }
                },
                Self::Attach(session) => match backend.attach(session, streams).await {
                    Ok(()) => Outcome::Exited(0),
                    Err(error) => Outcome::failed(format!("error attaching to container: {error}")),
                },
            }
        };
        tokio::select! {
            outcome = running => outcome,
            never = resize::forward(sizes) => match never {},
        }
    }
}

/// The client's streams, asked for or not.
#[derive(Debug, Default)]
struct Pipes {
    stdin: Option<Incoming>,
    stdout: Option<Outgoing>,
    stderr: Option<Outgoing>,
    resize: Option<Incoming>,
}

fn asked_for<T>(choice: Stdio, stream: Option<T>) -> Option<T> {
    stream.filter(|_| choice == Stdio::Open)
}
