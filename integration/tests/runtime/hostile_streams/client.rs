//! A streaming client that says what it likes.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail, ensure};
use podwright_cri_api::v1::{ExecRequest, PortForwardRequest};
use podwright_integration::node::{Node, deadline};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Heads of answers are short; ours is a bound of its own.
const MAX_HEAD: usize = 16 * 1024;

/// What a session is to be upgraded to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Upgrade {
    /// SPDY/3.1, for an exec.
    Spdy,
    /// WebSocket, for an exec.
    WebSocket,
}

impl Upgrade {
    fn headers(self) -> &'static str {
        match self {
            Self::Spdy => {
                "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                 X-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
            }
            Self::WebSocket => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                 Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
            }
        }
    }
}

/// A streaming URL's parts.
#[derive(Clone, Debug)]
pub(super) struct Url {
    /// Host and port.
    pub(super) authority: String,
    /// Begins with a slash.
    pub(super) path: String,
}

impl Url {
    fn parse(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://");
        let parts = rest.and_then(|rest| rest.split_once('/'));
        let (authority, path) = parts.with_context(|| format!("{url:?} is no HTTP URL"))?;
        Ok(Self {
            authority: authority.to_owned(),
            path: format!("/{path}"),
        })
    }

    /// The same server's URL with another path.
    pub(super) fn with_path(&self, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            ..self.clone()
        }
    }
}

/// A URL that runs `script` in a container, with standard input and output.
pub(super) async fn exec_url(node: &Node, id: &str, script: &str) -> Result<Url> {
    let request = ExecRequest {
        container_id: id.to_owned(),
        cmd: ["sh", "-c", script].map(str::to_owned).into(),
        stdin: true,
        stdout: true,
        ..ExecRequest::default()
    };
    let answer = node.cri.client().runtime.exec(request).await?;
    Url::parse(&answer.into_inner().url)
}

/// A URL that forwards to a pod.
pub(super) async fn port_forward_url(node: &Node, pod: &str) -> Result<Url> {
    let request = PortForwardRequest {
        pod_sandbox_id: pod.to_owned(),
        port: Vec::new(),
    };
    let answer = node.cri.client().runtime.port_forward(request).await?;
    Url::parse(&answer.into_inner().url)
}

/// A connection to the streaming server.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
}

impl Connection {
    pub(super) async fn open(url: &Url) -> Result<Self> {
        let stream = TcpStream::connect(&url.authority).await;
        Ok(Self {
            stream: stream.with_context(|| format!("connecting to {}", url.authority))?,
        })
    }

    /// Connects and asks for an upgrade; the server has to agree.
    pub(super) async fn upgraded(url: &Url, to: Upgrade) -> Result<Self> {
        let (status, connection) = Self::asked(url, to).await?;
        ensure!(status == 101, "{to:?} was answered {status}");
        Ok(connection)
    }

    /// Connects and asks for an upgrade; with the answer's status.
    pub(super) async fn asked(url: &Url, to: Upgrade) -> Result<(u16, Self)> {
        let mut connection = Self::open(url).await?;
        connection.request("POST", url, to.headers()).await?;
        Ok((connection.status().await?, connection))
    }

    /// Sends a request; `headers` end with a line break each.
    pub(super) async fn request(&mut self, method: &str, url: &Url, headers: &str) -> Result<()> {
        let mut head = format!("{method} {} HTTP/1.1\r\n", url.path);
        write!(head, "Host: {}\r\n{headers}\r\n", url.authority)?;
        self.send(head.as_bytes()).await
    }

    /// Sends bytes as they are.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(deadline(), self.stream.write_all(bytes))
            .await
            .context("the server does not read")?
            .context("sending")
    }

    /// Reads an answer's head.
    pub(super) async fn status(&mut self) -> Result<u16> {
        let mut head = Vec::new();
        let read = async {
            while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
                head.push(self.stream.read_u8().await?);
            }
            anyhow::Ok(())
        };
        let read = timeout(deadline(), read).await.context("no answer")?;
        let text = String::from_utf8_lossy(&head);
        read.with_context(|| format!("only {text:?} was answered"))?;
        let status = text
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok());
        status.with_context(|| format!("no status in {text:?}"))
    }

    /// Reads whatever comes until the server closes the connection.
    pub(super) async fn closed(&mut self) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        let read = async {
            // A reset is an end, too.
            while let Ok(1..) = self.stream.read(&mut buffer).await {}
        };
        let ended = timeout(deadline(), read).await;
        ended.context("the server keeps the connection open")
    }

    /// Waits until the server has sent something.
    pub(super) async fn readable(&self) -> Result<()> {
        match timeout(deadline(), self.stream.readable()).await {
            Ok(readable) => Ok(readable?),
            Err(_) => bail!("the server sends nothing"),
        }
    }
}
