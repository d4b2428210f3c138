//! A registry on the loopback device, with a hook before every answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::digest::Digest;

/// What a client asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Close after so many bytes of the body.
    pub(super) cut: Option<usize>,
    /// Chunks without an end, and no length.
    pub(super) endless: bool,
    /// Say nothing more after the body's first bytes, and keep the connection.
    pub(super) stall: bool,
}

impl Reply {
    pub(super) fn status(status: u16) -> Reply {
        Reply {
            status,
            ..Reply::default()
        }
    }

    pub(super) fn ok(body: Vec<u8>) -> Reply {
        Reply {
            status: 200,
            body,
            ..Reply::default()
        }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Hook = Box<dyn Fn(&Asked) -> Option<Reply> + Send + Sync>;

#[derive(Default)]
struct Content {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    asked: Vec<Asked>,
}

/// A registry; it ends with the test's tokio runtime.
#[derive(Clone)]
pub(super) struct TestRegistry {
    pub(super) host: String,
    content: Arc<Mutex<Content>>,
}

impl TestRegistry {
    pub(super) async fn start() -> TestRegistry {
        Self::with(|_| None).await
    }

    /// The hook answers in the registry's place when it wants to.
    pub(super) async fn with(
        hook: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
    ) -> TestRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let content: Arc<Mutex<Content>> = Arc::default();
        let registry = TestRegistry {
            host,
            content: Arc::clone(&content),
        };
        let hook: Arc<Hook> = Arc::new(Box::new(hook));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&content), Arc::clone(&hook)));
            }
        });
        registry
    }

    pub(super) fn blob(&self, bytes: Vec<u8>) -> (Digest, usize) {
        let (digest, size) = (Digest::of(&bytes), bytes.len());
        self.content
            .lock()
            .unwrap()
            .blobs
            .insert(digest.to_string(), bytes);
        (digest, size)
    }

    pub(super) fn manifest(&self, repository: &str, tag: &str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        let mut content = self.content.lock().unwrap();
        content
            .manifests
            .insert(format!("{repository}/manifests/{digest}"), bytes.clone());
        content
            .manifests
            .insert(format!("{repository}/manifests/{tag}"), bytes);
        digest
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.content.lock().unwrap().asked.clone()
    }

    pub(super) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }
}

async fn serve(
    mut stream: TcpStream,
    content: Arc<Mutex<Content>>,
    hook: Arc<Hook>,
) -> std::io::Result<()> {
    let mut received = Vec::new();
    while !received.windows(4).any(|w| w == b"\r\n\r\n") {
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&received);
    let mut lines = text.lines();
    let path = lines
        .next()
        .unwrap_or_default()
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
    let asked = Asked {
        path,
        headers: headers.collect(),
    };
    content.lock().unwrap().asked.push(asked.clone());
    let reply = hook(&asked).unwrap_or_else(|| answer(&content.lock().unwrap(), &asked));
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    if reply.endless {
        head += "Transfer-Encoding: chunked\r\n";
    } else {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    if reply.endless {
        // Until the client has had enough.
        loop {
            stream
                .write_all(format!("10000\r\n{}\r\n", "x".repeat(0x10000)).as_bytes())
                .await?;
        }
    }
    stream
        .write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])
        .await?;
    if reply.stall {
        // The client goes away first.
        let _ = stream.read(&mut [0; 1]).await;
    }
    stream.shutdown().await
}

fn answer(content: &Content, asked: &Asked) -> Reply {
    let path = asked.path.split('?').next().unwrap_or_default();
    let path = path.strip_prefix("/v2/").unwrap_or(path);
    if let Some(manifest) = content.manifests.get(path) {
        return Reply::ok(manifest.clone())
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json");
    }
    let Some(blob) = path
        .rsplit_once("/blobs/")
        .and_then(|(_, digest)| content.blobs.get(digest))
    else {
        return Reply::status(404);
    };
    let range = asked.headers.get("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    match range {
        None => Reply::ok(blob.clone()),
        Some(first) => {
            let first: usize = first;
            let content_range = format!("bytes {first}-{}/{}", blob.len() - 1, blob.len());
            Reply {
                status: 206,
                ..Reply::ok(blob[first..].to_vec())
            }
            .header("Content-Range", &content_range)
        }
    }
}
