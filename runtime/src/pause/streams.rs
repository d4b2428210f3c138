//! What streamed sessions ask of a pod's pause: clients attached to containers, sizes of terminals, sockets in its network.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use podwright_pause::protocol::{Answer, Request, StreamChoice, Target};
use tokio::sync::oneshot;

use super::connection::{PROMPT, Pause, next_number};
use super::error::PauseError;
use crate::ids::ContainerId;

/// What a client is attached to. Of an output, the socket that pause writes to.
#[derive(Default)]
pub(crate) struct ClientStreams {
    pub(crate) stdin: bool,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// A client that is attached to a container, until it is dropped.
pub(crate) struct Client {
    pause: Arc<Pause>,
    number: u64,
    /// Comes when pause drops the client.
    dropped: oneshot::Receiver<()>,
    is_attached: bool,
}

/// How a client's time ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Its streams have ended, or it goes by itself.
    Ended,
    /// It took nothing for too long: pause had dropped it.
    Dropped,
}

impl Client {
    /// Attaches to a container; gives what to write its stdin to, if that is asked for and open.
    pub(crate) async fn attach(
        pause: &Arc<Pause>,
        container: &ContainerId,
        streams: ClientStreams,
    ) -> Result<(Self, Option<OwnedFd>), PauseError> {
        let number = next_number();
        let (told, dropped) = oneshot::channel();
        pause.waiting().clients.insert(number, told);
        // Made before it is asked for: an Attach whose caller has gone is taken back.
        let client = Self {
            pause: Arc::clone(pause),
            number,
            dropped,
            is_attached: true,
        };
        let choice = |asked: bool| match asked {
            true => StreamChoice::Asked,
            false => StreamChoice::Absent,
        };
        let request = Request::Attach {
            container: container.wire(),
            client: number,
            stdin: choice(streams.stdin),
            stdout: choice(streams.stdout.is_some()),
            stderr: choice(streams.stderr.is_some()),
        };
        let outputs = [&streams.stdout, &streams.stderr];
        let sockets: Vec<BorrowedFd<'_>> = outputs.into_iter().flatten().map(AsFd::as_fd).collect();
        match pause.request("Attach", PROMPT, request, &sockets).await? {
            (Answer::Done, descriptors) => Ok((client, descriptors.into_iter().next())),
            _ => Err(PauseError::Protocol { request: "Attach" }),
        }
    }

    /// Says that it writes no more to the container's stdin: one that is open once ends now.
    pub(crate) async fn end_stdin(&self) -> Result<(), PauseError> {
        let request = Request::EndStdin {
            client: self.number,
        };
        self.pause.done("EndStdin", request, &[]).await
    }

    /// Goes; tells whether it was dropped before. What pause says of that, it says before it answers.
    pub(crate) async fn leave(mut self) -> Result<Left, PauseError> {
        self.pause.detach(self.number).await?;
        self.is_attached = false;
        Ok(match self.dropped.try_recv() {
            Ok(()) => Left::Dropped,
            Err(_) => Left::Ended,
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.pause.waiting().clients.remove(&self.number);
        if !self.is_attached {
            return;
        }
        let (pause, number) = (Arc::clone(&self.pause), self.number);
        tokio::spawn(async move {
            if let Err(error) = pause.detach(number).await {
                tracing::debug!(error = %crate::error::chain(&error), "a client could not be detached");
            }
        });
    }
}

impl Pause {
    async fn detach(&self, client: u64) -> Result<(), PauseError> {
        self.done("Detach", Request::Detach { client }, &[]).await
    }

    /// Sets a terminal's size, in characters.
    pub(crate) async fn resize(
        &self,
        target: Target,
        rows: u16,
        columns: u16,
    ) -> Result<(), PauseError> {
        let request = Request::Resize {
            target,
            rows,
            columns,
        };
        self.done("Resize", request, &[]).await
    }

    /// A nonblocking TCP socket in the pod's network, of the family `AF_INET` or `AF_INET6`.
    pub(crate) async fn tcp_socket(&self, family: i32) -> Result<OwnedFd, PauseError> {
        let request = Request::Socket {
            domain: family,
            kind: libc::SOCK_STREAM | libc::SOCK_NONBLOCK,
            protocol: libc::IPPROTO_TCP,
        };
        match self.request("Socket", PROMPT, request, &[]).await? {
            (Answer::Done, descriptors) => descriptors
                .into_iter()
                .next()
                .ok_or(PauseError::Protocol { request: "Socket" }),
            _ => Err(PauseError::Protocol { request: "Socket" }),
        }
    }
}
