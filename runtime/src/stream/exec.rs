//! A command in a container, with the client's streams.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use podwright_pause::protocol::Target;
use podwright_stream::{ExecEnd, ExecSession, Incoming, Outgoing, Streams, Terminal, TerminalSize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::copy::{Kind, Source, from_client, pipe, to_client};
use crate::container::{Container, ExecStdio, Running, Unseen, start_exec};
use crate::error::{self, CallError, Context, chain};
use crate::node::Node;
use crate::pause::Pause;

/// Runs a command to its end.
pub(super) async fn run(
    node: &Arc<Node>,
    session: ExecSession,
    streams: Streams,
) -> Result<ExecEnd, CallError> {
    let container = node.containers.require(&session.container)?;
    let exit_code = match session.stdio.terminal {
        Terminal::Attached => with_terminal(node, &container, session.command, streams).await?,
        Terminal::Absent => with_pipes(node, &container, session.command, streams).await?,
    };
    Ok(ExecEnd { exit_code })
}

fn failed(container: &Container) -> String {
    format!(
        "cannot connect the streams of a command in the container {}",
        container.id
    )
}

async fn with_terminal(
    node: &Arc<Node>,
    container: &Arc<Container>,
    command: Vec<String>,
    streams: Streams,
) -> Result<i32, CallError> {
    let (running, terminal) = start_exec(node, container, command, ExecStdio::Terminal).await?;
    let failed = || failed(container);
    let terminal = terminal.ok_or_else(|| {
        let what = format!("{}: pause gave no terminal", failed());
        CallError::new(error::Kind::Internal, what)
    })?;
    let input = terminal.try_clone().internal(failed)?;
    let output = Output {
        source: Source::new(terminal).internal(failed)?,
        kind: Kind::Terminal,
        client: streams.stdout,
    };
    let (pause, target) = running.target();
    let sizes = follow_sizes(Arc::clone(pause), target, streams.resize);
    let input = async {
        tokio::join!(feed(streams.stdin, input), sizes);
    };
    finish(container, running, [Some(output), None], input).await
}

async fn with_pipes(
    node: &Arc<Node>,
    container: &Arc<Container>,
    command: Vec<String>,
    streams: Streams,
) -> Result<i32, CallError> {
    let failed = || failed(container);
    let null = || {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
    };
    let (stdin, input) = match &streams.stdin {
        Some(_) => pipe().map(|(read, write)| (read, Some(write))),
        None => null().map(|null| (null.into(), None)),
    }
    .internal(failed)?;
    let output = |client: Option<Outgoing>| -> std::io::Result<(OwnedFd, Option<Output>)> {
        let Some(client) = client else {
            return null().map(|null| (null.into(), None));
        };
        let (read, write) = pipe()?;
        let output = Output {
            source: Source::new(read)?,
            kind: Kind::Pipe,
            client: Some(client),
        };
        Ok((write, Some(output)))
    };
    let (stdout, out) = output(streams.stdout).internal(failed)?;
    let (stderr, err) = output(streams.stderr).internal(failed)?;
    let stdio = ExecStdio::Given([stdin, stdout, stderr]);
    let (running, _) = start_exec(node, container, command, stdio).await?;
    let input = async {
        if let Some(input) = input {
            feed(streams.stdin, input).await;
        }
    };
    finish(container, running, [out, err], input).await
}

/// One of the command's output streams.
struct Output {
    source: Source,
    kind: Kind,
    client: Option<Outgoing>,
}

/// Copies both ways until the command has ended and its output is told; its exit code.
async fn finish(
    container: &Container,
    mut running: Running,
    outputs: [Option<Output>; 2],
    input: impl Future<Output = ()>,
) -> Result<i32, CallError> {
    let ended = CancellationToken::new();
    let [out, err] = outputs.map(|output| {
        let ended = &ended;
        async move {
            if let Some(Output {
                source,
                kind,
                client,
            }) = output
            {
                to_client(source, kind, client, ended).await;
            }
        }
    });
    let end = async {
        let exit = running.ended().await;
        ended.cancel();
        exit
    };
    let told = async { tokio::join!(end, out, err).0 };
    // A command that does not read its input to the end does not wait for it.
    let beside = async {
        input.await;
        std::future::pending::<()>().await;
    };
    let exit = tokio::select! {
        exit = told => exit,
        () = beside => Err(Unseen),
    };
    exit.map(|exit| exit.code).map_err(|error| {
        CallError::state(format!(
            "cannot wait for the command in the container {}: {error}",
            container.id
        ))
    })
}

/// Copies a client's input, which may be none.
async fn feed(client: Option<Incoming>, process: OwnedFd) {
    if let Some(client) = client {
        from_client(client, process).await;
    }
}

/// Gives a terminal the sizes that its client tells.
pub(super) async fn follow_sizes(
    pause: Arc<Pause>,
    target: Target,
    sizes: Option<mpsc::Receiver<TerminalSize>>,
) {
    let Some(mut sizes) = sizes else { return };
    while let Some(TerminalSize { rows, columns }) = sizes.recv().await {
        if let Err(error) = pause.resize(target.clone(), rows, columns).await {
            tracing::debug!(error = %chain(&error), rows, columns, "a terminal's size is not set");
        }
    }
}
