//! ExecSync: a command in a running container, its output and its exit code, within a deadline.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use podwright_cri_api::v1::{ExecSyncRequest, ExecSyncResponse};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::exec::{ExecStdio, Running, failed, start_exec};
use crate::error::{CallError, Context, Kind};
use crate::node::Node;

/// The most that is kept of each stream; CRI asks for a bound, and the peers have this one.
const LONGEST_OUTPUT: usize = 16 * 1024 * 1024;

/// How long what a command writes is left in its pipes. Most probes have ended by then, and the event loop, which would wake at
/// each write and each end of a stream, need not hear of them at all.
const SHORT: Duration = Duration::from_millis(10);

/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// Runs a command. A timeout of 0 seconds is none.
pub(crate) async fn exec_sync(
    node: &Arc<Node>,
    request: ExecSyncRequest,
) -> Result<ExecSyncResponse, CallError> {
    let container = node.containers.require(&request.container_id)?;
    if request.cmd.first().is_none_or(String::is_empty) {
        return Err(CallError::invalid(
            "the request names no command to execute",
        ));
    }
    let timeout = u64::try_from(request.timeout).map_err(|_| {
        CallError::invalid(format!(
            "the timeout of {} s is negative; 0 means none",
            request.timeout
        ))
    })?;
    container.require_running("execute a command")?;
    let failed = || failed(&container);
    let null = null().internal(failed)?;
    let (mut stdout, stdout_end) = Output::pipe().internal(failed)?;
    let (mut stderr, stderr_end) = Output::pipe().internal(failed)?;
    let stdio = ExecStdio::Given([null, stdout_end, stderr_end]);
    let (mut running, _) = start_exec(node, &container, request.cmd, stdio).await?;
    let finished = collect(&mut running, &mut stdout, &mut stderr);
    let exit_code = match timeout {
        0 => finished.await,
        seconds => match tokio::time::timeout(Duration::from_secs(seconds), finished).await {
            Ok(finished) => finished,
            Err(_) => {
                running.kill().await;
                let what = format!(
                    "the command did not end within {seconds} s in the container {}: it is killed",
                    container.id
                );
                return Err(CallError::new(Kind::DeadlineExceeded, what));
            }
        },
    };
    let exit_code = exit_code.internal(failed)?;
    Ok(ExecSyncResponse {
        stdout: stdout.kept.bytes,
        stderr: stderr.kept.bytes,
        exit_code,
    })
}

/// What a command reads: /dev/null, which is opened once.
fn null() -> io::Result<OwnedFd> {
    static NULL: OnceLock<OwnedFd> = OnceLock::new();
    let opened = match NULL.get() {
        Some(opened) => opened,
        None => {
            let opened = File::open("/dev/null")?;
            NULL.get_or_init(|| opened.into())
        }
    };
    opened.try_clone()
}

/// One output stream of a command.
struct Output {
    /// The end that is read from, which does not block.
    pipe: OwnedFd,
    kept: Kept,
}

/// What has been read of a stream.
struct Kept {
    bytes: Vec<u8>,
    /// Whether there may be more.
    open: bool,
}

impl Output {
    /// A stream, and the end that the command writes to.
    fn pipe() -> io::Result<(Self, OwnedFd)> {
        let (pipe, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let kept = Kept {
            bytes: Vec::new(),
            open: true,
        };
        Ok((Self { pipe, kept }, write))
    }

    /// Reads on until the stream ends. What is beyond the bound is read and dropped, so that the command does not hang.
    async fn read(&mut self) -> io::Result<()> {
        let mut pipe = pipe::Receiver::from_owned_fd(self.pipe.try_clone()?)?;
        let mut chunk = Vec::with_capacity(CHUNK);
        while self.kept.open {
            chunk.clear();
            let count = pipe.read_buf(&mut chunk).await?;
            self.kept.take(&chunk[..count]);
        }
        Ok(())
    }

    /// Takes what is there now, without waiting: the command has ended, but a child of it may hold the stream open for ever.
    /// By read(2) itself: the event loop may not have heard yet of what the command wrote last.
    fn take_rest(&mut self) -> io::Result<()> {
        // More than the pipe holds is not the command's: a child of it goes on writing.
        let mut left = usize::try_from(fcntl(&self.pipe, FcntlArg::F_GETPIPE_SZ)?).unwrap_or(0);
        let mut chunk = [0; CHUNK];
        while self.kept.open && left > 0 {
            let most = left.min(chunk.len());
            match nix::unistd::read(&self.pipe, &mut chunk[..most]) {
                Ok(count) => {
                    self.kept.take(&chunk[..count]);
                    left -= count;
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

impl Kept {
    /// Takes in what was read; nothing is the stream's end.
    fn take(&mut self, bytes: &[u8]) {
        self.open = !bytes.is_empty();
        let room = LONGEST_OUTPUT - self.bytes.len();
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Reads both streams until the command has ended; its exit code.
async fn collect(
    running: &mut Running,
    stdout: &mut Output,
    stderr: &mut Output,
) -> io::Result<i32> {
    let exit = match tokio::time::timeout(SHORT, running.ended()).await {
        Ok(exit) => exit,
        Err(_) => {
            let reading = async { tokio::try_join!(stdout.read(), stderr.read()) };
            tokio::pin!(reading);
            tokio::select! {
                exit = running.ended() => exit,
                read = &mut reading => {
                    read?;
                    running.ended().await
                }
            }
        }
    };
    let exit = exit.map_err(io::Error::other)?;
    stdout.take_rest()?;
    stderr.take_rest()?;
    Ok(exit.code)
}
