//! A server for a test.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::backend::Commands;
use super::client::soon;
use crate::{
    AttachSession, ExecSession, PortForwardSession, Server, Stdio, StdioChoice, StreamConfig,
    Terminal,
};

pub(super) struct Serving {
    pub(super) server: Arc<Server<Commands>>,
    pub(super) commands: Arc<Commands>,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// No terminal, and these streams: `i`nput, `o`utput, `e`rrors; `t` for a terminal.
pub(super) fn choice(letters: &str) -> StdioChoice {
    let stdio = |letter| Stdio::from(letters.contains(letter));
    StdioChoice {
        stdin: stdio('i'),
        stdout: stdio('o'),
        stderr: stdio('e'),
        terminal: Terminal::from(letters.contains('t')),
    }
}

impl Serving {
    pub(super) async fn new() -> Self {
        Self::with(StreamConfig::default()).await
    }

    pub(super) async fn with(config: StreamConfig) -> Self {
        let commands = Arc::new(Commands::default());
        let server = Arc::new(Server::bind(config, commands.clone()).await.unwrap());
        let (shutdown, asked) = oneshot::channel();
        let task = tokio::spawn({
            let server = server.clone();
            async move {
                let asked = async move {
                    let _ = asked.await;
                };
                server.serve(asked).await;
            }
        });
        Self {
            server,
            commands,
            shutdown: Some(shutdown),
            task,
        }
    }

    pub(super) fn exec(&self, streams: &str, command: &[&str]) -> String {
        let session = ExecSession {
            container: "container".into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdio: choice(streams),
        };
        self.server.exec_url(session).unwrap()
    }

    pub(super) fn attach(&self, streams: &str, container: &str) -> String {
        let session = AttachSession {
            container: container.into(),
            stdio: choice(streams),
        };
        self.server.attach_url(session).unwrap()
    }

    pub(super) fn port_forward(&self, ports: &[u16]) -> String {
        let session = PortForwardSession {
            sandbox: "pod".into(),
            ports: ports.to_vec(),
        };
        self.server.port_forward_url(session).unwrap()
    }

    /// Ends the server.
    pub(super) async fn shut_down(mut self) {
        drop(self.shutdown.take());
        soon("the server's end", &mut self.task).await.unwrap();
        assert_eq!(self.commands.live(), 0);
    }
}
