//! ExecSync: a command in a running container, its output and its exit code, within a deadline.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use podwright_cri_api::v1::{ExecSyncRequest, ExecSyncResponse};
use podwright_pause::protocol::{Exit, Target};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::Container;
use crate::cgroup::ExecGroup;
use crate::error::{CallError, Context, Kind, chain};
use crate::node::Node;
use crate::pause::{Exec, Pause};
use crate::plan::exec_plan;

/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(5);

/// The most that is kept of each stream; CRI asks for a bound, and the peers have this one.
const LONGEST_OUTPUT: usize = 16 * 1024 * 1024;

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
    if !container.is_running() {
        return Err(CallError::state(format!(
            "cannot execute a command in the container {}: it is not running",
            container.id
        )));
    }
    let pause = container.sandbox.require_ready("execute a command")?;
    let failed = || format!("cannot execute a command in the container {}", container.id);
    // Begun to the end even when the client goes away meanwhile; what has begun is then killed by its guard.
    let begun = tokio::spawn(begin(
        Arc::clone(node),
        Arc::clone(&container),
        pause,
        request.cmd,
    ));
    let (mut running, mut stdout, mut stderr) = begun.await.internal(failed)??;
    let finished = collect(&mut running.end, &mut stdout, &mut stderr);
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
    // It has ended; what it left behind is its container's.
    drop(running.group.take());
    let exit_code = exit_code.internal(failed)?;
    Ok(ExecSyncResponse {
        stdout: stdout.kept,
        stderr: stderr.kept,
        exit_code,
    })
}

async fn begin(
    node: Arc<Node>,
    container: Arc<Container>,
    pause: Arc<Pause>,
    command: Vec<String>,
) -> Result<(Running, Output, Output), CallError> {
    let failed = || format!("cannot execute a command in the container {}", container.id);
    let group = container.cgroup.exec_group().internal(failed)?;
    let plan = exec_plan(
        &container.compile(&node)?.plan,
        &command,
        &group.procs_files(),
    );
    let null: OwnedFd = std::fs::File::open("/dev/null").internal(failed)?.into();
    let (stdout, stdout_end) = Output::pipe().internal(failed)?;
    let (stderr, stderr_end) = Output::pipe().internal(failed)?;
    let streams = [null.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
    let exec = pause.exec(&container.id, &plan, streams).await;
    let Exec { number, end } = exec.map_err(|error| {
        let kind = match error.errno() {
            Some(libc::ESRCH) => Kind::FailedPrecondition,
            errno => super::start::launch_failure(errno),
        };
        CallError::caused(kind, failed(), error)
    })?;
    let running = Running {
        container: Arc::clone(&container),
        pause,
        number,
        group: Some(group),
        end,
    };
    Ok((running, stdout, stderr))
}

/// A command that is killed when nobody waits for it any more: its client's deadline has passed, or the client is gone.
struct Running {
    container: Arc<Container>,
    pause: Arc<Pause>,
    number: u64,
    /// Taken when the command has ended or is being killed.
    group: Option<ExecGroup>,
    end: oneshot::Receiver<Exit>,
}

impl Running {
    /// Kills the command and all that it started.
    fn kill(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let group = self.group.take();
        let (container, pause, number) = (
            Arc::clone(&self.container),
            Arc::clone(&self.pause),
            self.number,
        );
        async move {
            let Some(group) = group else { return };
            let killed = tokio::task::spawn_blocking(move || group.kill(KILLED)).await;
            if let Ok(Err(error)) = killed {
                tracing::warn!(container = %container.id, error = %chain(&error), "a command that is over its time is not wholly killed");
            }
            if let Err(error) = pause
                .signal(Target::Exec { exec: number }, libc::SIGKILL)
                .await
            {
                tracing::debug!(container = %container.id, error = %chain(&error), "the command had ended");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.group.is_some() {
            tokio::spawn(self.kill());
        }
    }
}

/// One output stream of a command.
struct Output {
    pipe: pipe::Receiver,
    kept: Vec<u8>,
    open: bool,
}

impl Output {
    /// A stream, and the end that the command writes to.
    fn pipe() -> io::Result<(Self, OwnedFd)> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((
            Self {
                pipe: pipe::Receiver::from_owned_fd(read)?,
                kept: Vec::new(),
                open: true,
            },
            write,
        ))
    }

    /// Reads on until the stream ends. What is beyond the bound is read and dropped, so that the command does not hang.
    async fn read(&mut self) -> io::Result<()> {
        let mut chunk = Vec::with_capacity(16 * 1024);
        while self.open {
            chunk.clear();
            let count = self.pipe.read_buf(&mut chunk).await?;
            self.keep(&chunk[..count]);
        }
        Ok(())
    }

    /// Takes what is there now, without waiting: the command has ended, but a child of it may hold the stream open for ever.
    /// By read(2) itself: the event loop may not have heard yet of what the command wrote last.
    fn take_rest(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        while self.open {
            match nix::unistd::read(&self.pipe, &mut chunk) {
                Ok(count) => self.keep(&chunk[..count]),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.open = !bytes.is_empty();
        let room = LONGEST_OUTPUT - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Reads both streams until the command has ended; its exit code.
async fn collect(
    end: &mut oneshot::Receiver<Exit>,
    stdout: &mut Output,
    stderr: &mut Output,
) -> io::Result<i32> {
    let exit = {
        let reading = async { tokio::try_join!(stdout.read(), stderr.read()) };
        tokio::pin!(reading);
        tokio::select! {
            exit = &mut *end => exit,
            read = &mut reading => {
                read?;
                end.await
            }
        }
    };
    let exit = exit.map_err(|_| io::Error::other("the pod ended with the command"))?;
    stdout.take_rest()?;
    stderr.take_rest()?;
    Ok(exit.code)
}
