//! A client at a container's main process.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::sys::socket::{setsockopt, sockopt};
use podwright_pause::protocol::Target;
use podwright_stream::{AttachSession, Outgoing, Streams};
use tokio_util::sync::CancellationToken;

use super::copy::{CAPACITY, Kind, Source, from_client, to_client};
use super::exec::follow_sizes;
use crate::container::Container;
use crate::error::{self, CallError, Context, chain};
use crate::node::Node;
use crate::pause::{Client, ClientStreams, Left};

/// Copies both ways until the container ends, or all that it says has ended.
pub(super) async fn run(
    node: &Arc<Node>,
    session: &AttachSession,
    streams: Streams,
) -> Result<(), CallError> {
    let container = node.containers.require(&session.container)?;
    container.require_running("attach to the main process")?;
    let pause = container.sandbox.require_pause("attach to a container")?;
    let failed = || format!("cannot attach to the container {}", container.id);
    let (out, stdout) = output(streams.stdout).internal(failed)?;
    // A terminal's stderr is its stdout.
    let stderr = streams.stderr.filter(|_| !container.config.tty);
    let (err, stderr) = output(stderr).internal(failed)?;
    let asked = ClientStreams {
        stdin: streams.stdin.is_some(),
        stdout,
        stderr,
    };
    let attached = Client::attach(&pause, &container.id, asked).await;
    let (client, stdin) = attached.map_err(|error| refused(&container, error))?;
    let target = Target::Container {
        id: container.id.wire(),
    };
    let sizes = follow_sizes(Arc::clone(&pause), target, streams.resize);
    let input = async {
        // None: it is closed, or another client's. What comes is dropped with its stream.
        let (Some(incoming), Some(stdin)) = (streams.stdin, stdin) else {
            return;
        };
        from_client(incoming, stdin).await;
        if let Err(error) = client.end_stdin().await {
            tracing::debug!(container = %container.id, error = %chain(&error), "the end of a client's input is not told");
        }
    };
    let has_output = out.is_some() || err.is_some();
    let outputs = async {
        tokio::join!(copy(out), copy(err));
        if !has_output {
            container.ended().await;
        }
    };
    let beside = async {
        tokio::join!(input, sizes);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = outputs => {}
        () = beside => {}
    }
    match client.leave().await {
        Ok(Left::Dropped) => Err(CallError::state(format!(
            "the client is detached from the container {}: it took nothing of the output for some seconds, and the container does not wait any longer; the log has all of it",
            container.id
        ))),
        Ok(Left::Ended) => Ok(()),
        Err(error) if container.is_running() => {
            let what = format!(
                "the client was detached from the container {}: attach again if it still runs",
                container.id
            );
            Err(CallError::caused(
                error::Kind::FailedPrecondition,
                what,
                error,
            ))
        }
        // With its pause the container has ended, too.
        Err(error) => {
            tracing::debug!(container = %container.id, error = %chain(&error), "a client is not detached");
            Ok(())
        }
    }
}

/// A stream's way from pause, and the socket that pause writes to.
type Output = (Option<(Source, Outgoing)>, Option<OwnedFd>);

fn output(client: Option<Outgoing>) -> std::io::Result<Output> {
    let Some(client) = client else {
        return Ok((None, None));
    };
    let (ours, theirs) = UnixStream::pair()?;
    // A smaller one works as well.
    let _ = setsockopt(&theirs, sockopt::SndBufForce, &(CAPACITY as usize));
    let source = Source::new(ours.into())?;
    Ok((Some((source, client)), Some(theirs.into())))
}

async fn copy(output: Option<(Source, Outgoing)>) {
    if let Some((source, client)) = output {
        to_client(source, Kind::Pipe, Some(client), &CancellationToken::new()).await;
    }
}

fn refused(container: &Container, error: crate::pause::PauseError) -> CallError {
    let (kind, why) = match error.errno() {
        Some(libc::ESRCH) => (error::Kind::FailedPrecondition, "it is not running"),
        Some(libc::EUSERS) => (
            error::Kind::ResourceExhausted,
            "as many clients as it may have are attached already",
        ),
        _ => (error::Kind::Internal, "its pause process refused"),
    };
    let what = format!("cannot attach to the container {}: {why}", container.id);
    CallError::caused(kind, what, error)
}
