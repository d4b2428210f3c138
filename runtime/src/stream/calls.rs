//! Exec, Attach and PortForward: what is asked is checked, and a URL given for it. What cannot succeed is refused here, where
//! the client sees a gRPC error, and not after the upgrade of a connection.

use podwright_cri_api::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use podwright_stream::{
    AttachSession, ExecSession, PortForwardSession, StdioChoice, StreamError, Terminal,
};

use super::StreamServer;
use crate::error::{CallError, Kind};
use crate::node::Node;

/// The longest command, in bytes: it is kept until the client comes. What kubectl sends passes an API server that takes less.
const LONGEST_COMMAND: usize = 256 * 1024;

/// The most ports of one session. Kubernetes' clients send none.
const MOST_PORTS: usize = 256;

/// A URL that runs a command in a container.
pub(crate) fn exec(
    node: &Node,
    server: &StreamServer,
    request: ExecRequest,
) -> Result<String, CallError> {
    let ExecRequest {
        container_id,
        cmd,
        tty,
        stdin,
        stdout,
        stderr,
    } = request;
    let container = node.containers.require(&container_id)?;
    if cmd.first().is_none_or(String::is_empty) {
        return Err(CallError::invalid(
            "the request names no command to execute",
        ));
    }
    let length: usize = cmd.iter().map(|argument| argument.len() + 1).sum();
    if length > LONGEST_COMMAND {
        return Err(CallError::invalid(format!(
            "the command takes {length} bytes, the limit is {LONGEST_COMMAND}"
        )));
    }
    if cmd.iter().any(|argument| argument.contains('\0')) {
        return Err(CallError::invalid("an argument holds a NUL byte"));
    }
    container.require_running("execute a command")?;
    container.sandbox.require_pause("execute a command")?;
    let session = ExecSession {
        container: container.id.to_string(),
        command: cmd,
        stdio: StdioChoice {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
            terminal: tty.into(),
        },
    };
    server.exec_url(session).map_err(refused)
}

/// A URL that attaches to a container's main process.
pub(crate) fn attach(
    node: &Node,
    server: &StreamServer,
    request: &AttachRequest,
) -> Result<String, CallError> {
    let container = node.containers.require(&request.container_id)?;
    container.require_running("attach to the main process")?;
    container.sandbox.require_pause("attach to a container")?;
    if request.stdin && !container.config.stdin {
        return Err(CallError::invalid(format!(
            "cannot attach to stdin of the container {}: it was created without stdin",
            container.id
        )));
    }
    let terminal = Terminal::from(request.tty);
    if request.tty && !container.config.tty {
        return Err(CallError::invalid(format!(
            "cannot attach a terminal to the container {}: it was created without one",
            container.id
        )));
    }
    let session = AttachSession {
        container: container.id.to_string(),
        stdio: StdioChoice {
            stdin: request.stdin.into(),
            stdout: request.stdout.into(),
            stderr: request.stderr.into(),
            terminal,
        },
    };
    server.attach_url(session).map_err(refused)
}

/// A URL that forwards connections into a pod.
pub(crate) fn port_forward(
    node: &Node,
    server: &StreamServer,
    request: &PortForwardRequest,
) -> Result<String, CallError> {
    let sandbox = node.sandboxes.require(&request.pod_sandbox_id)?;
    sandbox.require_pause("forward ports")?;
    if request.port.len() > MOST_PORTS {
        return Err(CallError::invalid(format!(
            "{} ports are to be forwarded, the limit is {MOST_PORTS}",
            request.port.len()
        )));
    }
    let port = |&port: &i32| match u16::try_from(port) {
        Ok(port @ 1..) => Ok(port),
        _ => Err(CallError::invalid(format!(
            "{port} is no port: 1 to 65535 are"
        ))),
    };
    let session = PortForwardSession {
        sandbox: sandbox.id.to_string(),
        ports: request.port.iter().map(port).collect::<Result<_, _>>()?,
    };
    server.port_forward_url(session).map_err(refused)
}

fn refused(error: StreamError) -> CallError {
    let kind = match error {
        StreamError::NoStream | StreamError::StderrWithTerminal => Kind::InvalidArgument,
        StreamError::TooManyUnused { .. } => Kind::ResourceExhausted,
        _ => Kind::Internal,
    };
    CallError::caused(kind, "cannot give a URL for the session", error)
}
