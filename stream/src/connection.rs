//! An upgraded connection, from the answer 101 to its end.

use std::error::Error;

use crate::backend::Backend;
use crate::config::StreamConfig;
use crate::http::{Accepted, Socket, Transport, Upgrade};
use crate::idle::IdleClock;
use crate::remote_command::Command;
use crate::session::{PortForwardSession, Session};
use crate::websocket::Tunnel;
use crate::{port_forward, remote_command, spdy, websocket};

/// Speaks the protocol that was agreed on until the session is over, or the client gone.
pub(crate) async fn run<B: Backend>(
    config: &StreamConfig,
    backend: &B,
    accepted: Accepted,
    transport: Transport,
    socket: Socket,
) {
    let Accepted {
        session,
        upgrade,
        place: _place,
    } = accepted;
    let verb = session.verb();
    let connection = Connection {
        config,
        backend,
        transport,
        socket,
        idle: IdleClock::new(config.idle_timeout),
    };
    let result = match session {
        Session::Exec(session) => connection.command(Command::Exec(session), upgrade).await,
        Session::Attach(session) => connection.command(Command::Attach(session), upgrade).await,
        Session::PortForward(session) => connection.port_forward(session, upgrade).await,
    };
    if let Err(error) = result {
        tracing::debug!(verb, error = &*error, "a streaming session ended early");
    }
}

type Ended = Result<(), Box<dyn Error + Send + Sync>>;

struct Connection<'a, B> {
    config: &'a StreamConfig,
    backend: &'a B,
    transport: Transport,
    socket: Socket,
    idle: IdleClock,
}

impl<B: Backend> Connection<'_, B> {
    async fn command(self, command: Command, upgrade: Upgrade) -> Ended {
        let timeout = self.config.stream_creation_timeout;
        match upgrade {
            Upgrade::RemoteCommandSpdy(version) => {
                let handler = |streams| {
                    remote_command::over_spdy(self.backend, command, version, timeout, streams)
                };
                let streams = self.config.max_streams;
                spdy::serve(self.transport, &self.socket, &self.idle, streams, handler).await?;
            }
            Upgrade::RemoteCommandWebSocket(protocol) => {
                let channels = remote_command::web_socket_channels(&command, protocol);
                let handler = |channels| {
                    let version = protocol.version;
                    remote_command::over_web_socket(self.backend, command, version, channels)
                };
                websocket::serve(self.transport, &self.socket, &self.idle, channels, handler)
                    .await?;
            }
            // The handshake chooses by the session's kind.
            Upgrade::PortForwardSpdy
            | Upgrade::PortForwardTunnel
            | Upgrade::PortForwardWebSocket(_) => {}
        }
        Ok(())
    }

    async fn port_forward(self, session: PortForwardSession, upgrade: Upgrade) -> Ended {
        let timeout = self.config.stream_creation_timeout;
        let streams = self.config.max_streams;
        let (socket, idle) = (&self.socket, &self.idle);
        match upgrade {
            Upgrade::PortForwardSpdy => {
                let handler =
                    |streams| port_forward::over_spdy(self.backend, session, timeout, streams);
                spdy::serve(self.transport, socket, idle, streams, handler).await?;
            }
            Upgrade::PortForwardTunnel => {
                let handler =
                    |streams| port_forward::over_spdy(self.backend, session, timeout, streams);
                let tunnel = Tunnel::new(self.transport).await;
                spdy::serve(tunnel, socket, idle, streams, handler).await?;
            }
            Upgrade::PortForwardWebSocket(protocol) => {
                let channels = port_forward::web_socket_channels(&session, protocol);
                let handler = async |channels| {
                    port_forward::over_web_socket(self.backend, session, channels).await;
                    None
                };
                websocket::serve(self.transport, socket, idle, channels, handler).await?;
            }
            // The handshake chooses by the session's kind.
            Upgrade::RemoteCommandSpdy(_) | Upgrade::RemoteCommandWebSocket(_) => {}
        }
        Ok(())
    }
}
