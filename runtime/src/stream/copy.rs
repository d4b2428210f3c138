//! Bytes between clients and processes.

use std::io;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use podwright_stream::{Incoming, Outgoing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

/// What is read at once.
pub(super) const CHUNK: usize = 128 * 1024;

/// Wanted capacity of a session's pipes and socket buffers, in bytes: a burst goes without a switch to this process. What
/// the machine does not grant (/proc/sys/fs/pipe-max-size) is done without.
pub(super) const CAPACITY: i32 = 1024 * 1024;

/// The most that is read from a terminal after its process has ended. It holds a few KiB by itself.
const LAST_OF_TERMINAL: usize = 256 * 1024;

/// A pipe with room for much, its reading end first.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let _ = fcntl(&read, FcntlArg::F_SETPIPE_SZ(CAPACITY));
    Ok((read, write))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// What a process says: a pipe's reading end, a terminal's master or a socket.
pub(super) struct Source(pipe::Receiver);

impl Source {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        // Terminals and sockets are read and waited for as pipes are.
        pipe::Receiver::from_owned_fd_unchecked(fd).map(Self)
    }

    /// 0 at the end.
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        buffer.reserve(CHUNK);
        end_of_terminal(self.0.read_buf(buffer).await)
    }

    /// Reads what is there, by read(2) itself: the event loop may not have heard yet of what was written last. None for
    /// nothing at the moment.
    fn read_now(&self, buffer: &mut BytesMut, most: usize) -> io::Result<Option<usize>> {
        let old = buffer.len();
        buffer.resize(old + most.min(CHUNK), 0);
        let count = loop {
            match nix::unistd::read(&self.0, &mut buffer[old..]) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break Ok(None),
                count => break end_of_terminal(count.map_err(io::Error::from)).map(Some),
            }
        };
        let filled = count.as_ref().ok().copied().flatten().unwrap_or(0);
        buffer.truncate(old + filled);
        count
    }

    /// The most that a process which has ended may have left in it: what others that hold a pipe go on writing has no end.
    fn rest(&self, kind: Kind) -> usize {
        match kind {
            Kind::Pipe => fcntl(&self.0, FcntlArg::F_GETPIPE_SZ)
                .ok()
                .and_then(|capacity| usize::try_from(capacity).ok())
                .unwrap_or(CHUNK),
            Kind::Terminal => LAST_OF_TERMINAL,
        }
    }
}

/// EIO: nobody has the terminal open any more.
fn end_of_terminal(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
        read => read,
    }
}

/// What a process says it through: that decides what happens when the client does not take it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Closed with the client's stream: a process that writes on learns of it.
    Pipe,
    /// Read on, for its input may still be wanted. The kernel hangs it up at its process's end.
    Terminal,
}

/// Copies to a client until the process has closed the stream; after `ended`, only what is there then: a child of the
/// process may hold the stream open for ever.
pub(super) async fn to_client(
    mut source: Source,
    kind: Kind,
    mut client: Option<Outgoing>,
    ended: &CancellationToken,
) {
    let mut buffer = BytesMut::new();
    let mut rest = None;
    loop {
        let read = match &mut rest {
            None => tokio::select! {
                biased;
                () = ended.cancelled() => {
                    rest = Some(source.rest(kind));
                    continue;
                }
                read = source.read(&mut buffer) => read.map(Some),
            },
            Some(0) => break,
            Some(left) => {
                let read = source.read_now(&mut buffer, *left);
                *left -= read.as_ref().ok().copied().flatten().unwrap_or(0);
                read
            }
        };
        match read {
            Ok(Some(1..)) => {}
            Ok(Some(0) | None) => break,
            Err(error) => {
                tracing::debug!(%error, "reading a process's output failed");
                break;
            }
        }
        client = send(client, &mut buffer).await;
        if client.is_none() && kind == Kind::Pipe {
            return;
        }
    }
    if let Some(mut client) = client {
        // An error means that the client is gone.
        let _ = client.shutdown().await;
    }
}

/// Hands on what is read, to a client that still takes it.
async fn send(client: Option<Outgoing>, buffer: &mut BytesMut) -> Option<Outgoing> {
    let data = buffer.split().freeze();
    let mut client = client?;
    client.send(data).await.ok().map(|()| client)
}

/// Copies from a client to a process until the client's stream ends, or nobody reads any more.
pub(super) async fn from_client(mut client: Incoming, process: OwnedFd) {
    let sender = set_nonblocking(&process)
        // A terminal or socket is written to and waited for as a pipe is.
        .and_then(|()| pipe::Sender::from_owned_fd_unchecked(process));
    let mut sender = match sender {
        Ok(sender) => sender,
        Err(error) => {
            tracing::warn!(%error, "a session's input cannot be written");
            return;
        }
    };
    // An error of the client's is its end as well.
    while let Ok(Some(chunk)) = client.chunk().await {
        if sender.write_all(&chunk).await.is_err() {
            // EPIPE, or EIO of a terminal: nobody reads. What the client still sends is dropped with its stream.
            return;
        }
    }
}
