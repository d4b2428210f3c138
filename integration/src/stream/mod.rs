//! A client of streamed sessions, written for the tests: WebSocket with the framing of a public crate, and the channels of
//! `v5.channel.k8s.io` on top. It shares nothing with the server. SPDY is what crictl brings.

mod crictl;
mod netns;
mod terminal;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use podwright_cri_api::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue};

pub use crictl::{Running, Transport};
pub use netns::{listen_in_pod, listen_in_pod_at};
pub use terminal::Terminal;

use crate::{cri::Cri, patience::patience};

/// What remote commands speak.
pub const REMOTE_COMMAND: &str = "v5.channel.k8s.io";
/// The same, or with a runtime that does not speak it (containerd 2.3) the version before, which cannot half-close stdin.
pub const REMOTE_COMMAND_OF_ANY: &str = "v5.channel.k8s.io, v4.channel.k8s.io";
/// What forwarded ports speak, in the older form with a pair of channels for each port.
pub const PORT_FORWARD: &str = "v4.channel.k8s.io";

/// A remote command's channels.
pub const STDIN: u8 = 0;
/// Output.
pub const STDOUT: u8 = 1;
/// Output.
pub const STDERR: u8 = 2;
/// A `metav1.Status` at the end.
pub const STATUS: u8 = 3;
/// `{"Width":…,"Height":…}` of a terminal.
pub const RESIZE: u8 = 4;
/// Names a channel that is half-closed.
const CLOSE: u8 = 255;

/// No part of a session takes longer on a sound machine, however busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// A part of a session that a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From the client.
    Stdin,
    /// To the client.
    Stdout,
    /// To the client.
    Stderr,
    /// A terminal.
    Tty,
}

/// What a session has.
pub type Parts = &'static [Part];

/// stdin and stdout.
pub const IN_OUT: Parts = &[Part::Stdin, Part::Stdout];
/// stdout alone.
pub const OUT: Parts = &[Part::Stdout];
/// All three streams.
pub const ALL: Parts = &[Part::Stdin, Part::Stdout, Part::Stderr];
/// A terminal with input.
pub const TTY: Parts = &[Part::Stdin, Part::Stdout, Part::Tty];

impl Cri {
    /// The URL of an exec.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn exec_url(
        &self,
        container: &str,
        command: &[&str],
        parts: Parts,
    ) -> Result<String, tonic::Status> {
        let request = ExecRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(ToString::to_string).collect(),
            tty: parts.contains(&Part::Tty),
            stdin: parts.contains(&Part::Stdin),
            stdout: parts.contains(&Part::Stdout),
            stderr: parts.contains(&Part::Stderr),
        };
        let answer = self.client().runtime.exec(request).await?;
        Ok(answer.into_inner().url)
    }

    /// The URL of an attach.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn attach_url(&self, container: &str, parts: Parts) -> Result<String, tonic::Status> {
        let request = AttachRequest {
            container_id: container.to_owned(),
            stdin: parts.contains(&Part::Stdin),
            tty: parts.contains(&Part::Tty),
            stdout: parts.contains(&Part::Stdout),
            stderr: parts.contains(&Part::Stderr),
        };
        let answer = self.client().runtime.attach(request).await?;
        Ok(answer.into_inner().url)
    }

    /// The URL of a port-forward.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn port_forward_url(
        &self,
        pod: &str,
        ports: &[i32],
    ) -> Result<String, tonic::Status> {
        let request = PortForwardRequest {
            pod_sandbox_id: pod.to_owned(),
            port: ports.to_vec(),
        };
        let answer = self.client().runtime.port_forward(request).await?;
        Ok(answer.into_inner().url)
    }

    /// Starts a command with streams.
    ///
    /// # Errors
    /// When the call or the connection fails.
    pub async fn exec_streamed(
        &self,
        container: &str,
        command: &[&str],
        parts: Parts,
    ) -> Result<Session> {
        let url = self.exec_url(container, command, parts).await?;
        Session::open(&url, REMOTE_COMMAND).await
    }

    /// Attaches to a container.
    ///
    /// # Errors
    /// When the call or the connection fails.
    pub async fn attach(&self, container: &str, parts: Parts) -> Result<Session> {
        let url = self.attach_url(container, parts).await?;
        Session::open(&url, REMOTE_COMMAND).await
    }

    /// Forwards one connection to a port in a pod.
    ///
    /// # Errors
    /// When the call or the connection fails.
    pub async fn forward(&self, pod: &str, port: u16) -> Result<Session> {
        let url = self.port_forward_url(pod, &[port.into()]).await?;
        let url = format!("{url}?port={port}");
        Session::open(&url, PORT_FORWARD).await
    }
}

type Socket = WebSocketStream<TcpStream>;

/// A session of one client. Dropping it closes the socket without a word.
#[derive(Debug)]
pub struct Session {
    sending: Sending,
    receiving: Receiving,
}

/// To the server.
#[derive(Debug)]
pub struct Sending(SplitSink<Socket, Message>);

/// From the server.
#[derive(Debug)]
pub struct Receiving(SplitStream<Socket>);

/// What a session said until its end.
#[derive(Debug, Default)]
pub struct Outcome {
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
    /// The status at the end.
    pub status: Value,
}

impl Outcome {
    /// The exit code that the status tells.
    ///
    /// # Errors
    /// When it tells none.
    pub fn exit_code(&self) -> Result<i64> {
        if self.status["status"] == "Success" {
            return Ok(0);
        }
        let causes = self.status["details"]["causes"].as_array();
        let code = causes
            .into_iter()
            .flatten()
            .find(|cause| cause["reason"] == "ExitCode")
            .and_then(|cause| cause["message"].as_str()?.parse().ok());
        code.with_context(|| format!("no exit code in {}", self.status))
    }

    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Session {
    /// Opens `url`, which is good for one session.
    ///
    /// # Errors
    /// When the server refuses, with its answer.
    pub async fn open(url: &str, protocol: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://").context("no http URL")?;
        let (authority, _) = rest.split_once('/').context("a URL without a path")?;
        let address: SocketAddr = authority.parse().context("the URL's address")?;
        let mut request = format!("ws://{rest}").into_client_request()?;
        let protocol = HeaderValue::from_str(protocol)?;
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", protocol);
        // containerd refuses clients without one.
        headers.insert("Origin", HeaderValue::from_static("http://localhost"));
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let opened = tokio_tungstenite::client_async(request, socket);
        let (socket, _) = tokio::time::timeout(patience(DEADLINE), opened)
            .await
            .context("no answer to the upgrade")??;
        let (sending, receiving) = socket.split();
        Ok(Self {
            sending: Sending(sending),
            receiving: Receiving(receiving),
        })
    }

    /// Both directions apart.
    pub fn split(self) -> (Sending, Receiving) {
        (self.sending, self.receiving)
    }

    /// Sends on a channel.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send(&mut self, channel: u8, data: &[u8]) -> Result<()> {
        self.sending.send(channel, data).await
    }

    /// Half-closes stdin.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn close_stdin(&mut self) -> Result<()> {
        self.sending.close_stdin().await
    }

    /// The next data with its channel; none at the end.
    ///
    /// # Errors
    /// When nothing comes in time, or what comes is no message of the protocol.
    pub async fn receive(&mut self) -> Result<Option<(u8, Bytes)>> {
        self.receiving.receive().await
    }

    /// Waits until stdout has said `wanted`; what it said up to there.
    ///
    /// # Errors
    /// When the session ends before.
    pub async fn until_stdout(&mut self, wanted: &str) -> Result<String> {
        let mut said = String::new();
        while !said.contains(wanted) {
            match self.receive().await? {
                Some((STDOUT, data)) => said.push_str(&String::from_utf8_lossy(&data)),
                Some((channel, data)) => bail!(
                    "channel {channel} said {:?} after {said:?}",
                    String::from_utf8_lossy(&data)
                ),
                None => bail!("the session ended after {said:?}"),
            }
        }
        Ok(said)
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// As [`Self::receive`], and without a status at the end.
    pub async fn finish(self) -> Result<Outcome> {
        self.receiving.finish().await
    }
}

impl Sending {
    /// As [`Session::send`].
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send(&mut self, channel: u8, data: &[u8]) -> Result<()> {
        let mut message = Vec::with_capacity(data.len() + 1);
        message.push(channel);
        message.extend_from_slice(data);
        let sent = self.0.send(Message::Binary(message.into()));
        tokio::time::timeout(patience(DEADLINE), sent)
            .await
            .context("the server takes nothing")??;
        Ok(())
    }

    /// As [`Session::close_stdin`].
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn close_stdin(&mut self) -> Result<()> {
        self.send(CLOSE, &[STDIN]).await
    }
}

impl Receiving {
    /// As [`Session::receive`].
    ///
    /// # Errors
    /// When nothing comes in time, or what comes is no message of the protocol.
    pub async fn receive(&mut self) -> Result<Option<(u8, Bytes)>> {
        // The server's pings are no answer.
        let end = tokio::time::Instant::now() + patience(DEADLINE);
        loop {
            let next = tokio::time::timeout_at(end, self.0.next());
            let Some(message) = next.await.context("nothing came in time")? else {
                return Ok(None);
            };
            match message? {
                Message::Binary(mut data) => {
                    ensure!(!data.is_empty(), "a message without a channel");
                    let channel = data.split_to(1)[0];
                    // Empty ones say that the channel exists.
                    if !data.is_empty() {
                        return Ok(Some((channel, data)));
                    }
                }
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(_) => return Ok(None),
                other => bail!("the server sent {other:?}"),
            }
        }
    }

    /// As [`Session::finish`].
    ///
    /// # Errors
    /// As [`Self::receive`], and without a status at the end.
    pub async fn finish(mut self) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        while let Some((channel, data)) = self.receive().await? {
            match channel {
                STDOUT => outcome.stdout.extend_from_slice(&data),
                STDERR => outcome.stderr.extend_from_slice(&data),
                STATUS => outcome.status = serde_json::from_slice(&data)?,
                CLOSE => {}
                other => bail!("data on channel {other}"),
            }
        }
        ensure!(!outcome.status.is_null(), "no status at the end");
        Ok(outcome)
    }
}
