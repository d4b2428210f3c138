//! Over WebSocket: a channel for each of the process's streams, and one for how it ended.

use super::{Command, Pipes, Version, WebSocketProtocol};
use crate::backend::Backend;
use crate::session::Stdio;
use crate::websocket::{Channel, Channels, CloseSignal, Last};

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
/// stdin, stdout, stderr, error, resize.
const COUNT: u8 = 5;

/// How the client's channels are spoken.
pub(crate) fn channels(command: &Command, protocol: WebSocketProtocol) -> Channels {
    let stdio = command.stdio();
    let greets = match (stdio.stdout, stdio.stderr) {
        (Stdio::Open, _) => STDOUT,
        (Stdio::Closed, Stdio::Open) => STDERR,
        (Stdio::Closed, Stdio::Closed) => ERROR,
    };
    let close = if protocol.version >= Version::V5 {
        CloseSignal::Known
    } else {
        CloseSignal::Unknown
    };
    Channels {
        count: COUNT,
        encoding: protocol.encoding,
        close,
        greets: Some(greets),
    }
}

/// Lets the backend have the channels, and tells the client how it went.
pub(crate) async fn over_web_socket<B: Backend>(
    backend: &B,
    command: Command,
    version: Version,
    channels: Vec<Channel>,
) -> Option<Last> {
    let Ok([stdin, stdout, stderr, _, resize]) = <[Channel; COUNT as usize]>::try_from(channels)
    else {
        return None;
    };
    let pipes = Pipes {
        stdin: Some(stdin.incoming),
        stdout: Some(stdout.outgoing),
        stderr: Some(stderr.outgoing),
        resize: Some(resize.incoming),
    };
    let outcome = command.run(backend, pipes).await;
    let message = outcome.message(version);
    (!message.is_empty()).then(|| Last {
        channel: ERROR,
        data: message.into(),
    })
}
