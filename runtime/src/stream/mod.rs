//! Streamed sessions: exec, attach and port-forward, from the CRI calls that give out URLs to the processes.
//!
//! The protocols are podwright-stream's; here is what a session does. A session is one future: when its client is gone it is
//! dropped, and what it started ends with the values that it holds.

mod attach;
mod calls;
mod copy;
mod exec;
mod port_forward;

pub(crate) use calls::{attach, exec, port_forward};

use std::sync::Arc;

use podwright_stream::{
    AttachSession, Backend, Duplex, ExecEnd, ExecSession, Server, SessionError, StreamConfig,
    StreamError, Streams, TlsFiles,
};

use crate::config::Streaming;
use crate::error::{CallError, chain};
use crate::node::Node;

/// The server that sessions come to.
pub(crate) type StreamServer = Server<Sessions>;

/// What sessions do on this node.
pub(crate) struct Sessions {
    node: Arc<Node>,
}

/// Listens as configured.
pub(crate) async fn bind(node: &Arc<Node>) -> Result<StreamServer, StreamError> {
    let Streaming {
        listen,
        advertise,
        tls,
        idle_timeout,
    } = node.config.streaming.clone();
    let config = StreamConfig {
        listen,
        advertise,
        tls: tls.map(|tls| TlsFiles {
            certificate: tls.certificate,
            key: tls.key,
        }),
        idle_timeout,
        ..StreamConfig::default()
    };
    let sessions = Sessions {
        node: Arc::clone(node),
    };
    Server::bind(config, Arc::new(sessions)).await
}

impl Backend for Sessions {
    async fn exec(&self, session: ExecSession, streams: Streams) -> Result<ExecEnd, SessionError> {
        told(exec::run(&self.node, session, streams).await)
    }

    async fn attach(&self, session: AttachSession, streams: Streams) -> Result<(), SessionError> {
        told(attach::run(&self.node, &session, streams).await)
    }

    async fn port_forward(
        &self,
        sandbox: String,
        port: u16,
        data: Duplex,
    ) -> Result<(), SessionError> {
        told(port_forward::run(&self.node, &sandbox, port, data).await)
    }
}

/// As the client is told of it.
fn told<T>(result: Result<T, CallError>) -> Result<T, SessionError> {
    result.map_err(|error| SessionError::new(chain(&error)))
}
