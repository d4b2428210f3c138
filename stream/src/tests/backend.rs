//! A backend of small commands, which counts its futures.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_buf};

use crate::{
    AttachSession, Backend, Duplex, ExecEnd, ExecSession, Incoming, Outgoing, SessionError, Streams,
};

/// Ports that the backend knows; all others cannot be reached.
pub(crate) const ECHO: u16 = 7;
/// Answers with the hash of all it got, after the client's half-close.
pub(crate) const HASH: u16 = 8;
/// Reads nothing and says nothing.
pub(crate) const SILENT: u16 = 9;
/// Says 100 MiB.
pub(crate) const TALK: u16 = 10;
/// Closes at once.
pub(crate) const CLOSE: u16 = 11;

/// What the commands are run by.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    live: Arc<AtomicUsize>,
    /// Bytes that were taken from the talkers.
    pub(crate) talked: AtomicUsize,
}

/// Counts as long as it lives.
struct Live(Arc<AtomicUsize>);

impl Live {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(counter.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Commands {
    /// The futures that live.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    async fn talk(&self, mut to: Outgoing, mut bytes: usize) {
        let piece = bytes::Bytes::from(pattern(64 * 1024));
        while bytes > 0 {
            let piece = piece.slice(..bytes.min(piece.len()));
            bytes -= piece.len();
            if to.send(piece.clone()).await.is_err() {
                return;
            }
            self.talked.fetch_add(piece.len(), Ordering::SeqCst);
        }
    }
}

impl Backend for Commands {
    async fn exec(
        &self,
        session: ExecSession,
        mut streams: Streams,
    ) -> Result<ExecEnd, SessionError> {
        let _live = Live::new(&self.live);
        let words: Vec<_> = session.command.iter().map(String::as_str).collect();
        let exit_code = match words[..] {
            ["cat"] => {
                cat(&mut streams).await;
                0
            }
            ["hash"] => {
                let hash = hash(streams.stdin.take().unwrap()).await;
                write(&mut streams.stdout, hash.as_bytes()).await;
                0
            }
            ["count"] => {
                let mut stdin = streams.stdin.take().unwrap();
                let mut bytes = 0;
                while let Ok(Some(chunk)) = stdin.chunk().await {
                    bytes += chunk.len();
                }
                write(&mut streams.stdout, bytes.to_string().as_bytes()).await;
                0
            }
            ["talk", bytes] => {
                self.talk(streams.stdout.take().unwrap(), bytes.parse().unwrap())
                    .await;
                0
            }
            ["print", stdout, stderr] => {
                write(&mut streams.stdout, stdout.as_bytes()).await;
                write(&mut streams.stderr, stderr.as_bytes()).await;
                0
            }
            ["streams"] => {
                let there = [
                    streams.stdin.is_some(),
                    streams.stdout.is_some(),
                    streams.stderr.is_some(),
                    streams.resize.is_some(),
                ];
                write(&mut streams.stdout, format!("{there:?}").as_bytes()).await;
                0
            }
            ["sizes"] => {
                let mut sizes = streams.resize.take().unwrap();
                while let Some(size) = sizes.recv().await {
                    let text = format!("{}x{}\n", size.columns, size.rows);
                    write(&mut streams.stdout, text.as_bytes()).await;
                }
                0
            }
            ["exit", code] => code.parse().unwrap(),
            ["hang"] => pending().await,
            _ => return Err(SessionError::new(format!("{words:?}: no such command"))),
        };
        Ok(ExecEnd { exit_code })
    }

    async fn attach(
        &self,
        session: AttachSession,
        mut streams: Streams,
    ) -> Result<(), SessionError> {
        let _live = Live::new(&self.live);
        if session.container == "gone" {
            return Err(SessionError::new("the container is not running"));
        }
        cat(&mut streams).await;
        Ok(())
    }

    async fn port_forward(&self, _: String, port: u16, data: Duplex) -> Result<(), SessionError> {
        let _live = Live::new(&self.live);
        let Duplex {
            mut incoming,
            mut outgoing,
        } = data;
        match port {
            ECHO => drop(copy_buf(&mut incoming, &mut outgoing).await),
            HASH => {
                let hash = hash(incoming).await;
                write(&mut Some(outgoing), hash.as_bytes()).await;
            }
            SILENT => pending().await,
            TALK => self.talk(outgoing, 100 << 20).await,
            CLOSE => {}
            _ => return Err(SessionError::new("connection refused")),
        }
        Ok(())
    }
}

async fn cat(streams: &mut Streams) {
    let (Some(stdin), Some(stdout)) = (&mut streams.stdin, &mut streams.stdout) else {
        return pending().await;
    };
    let _ = copy_buf(stdin, stdout).await;
}

async fn write(to: &mut Option<Outgoing>, data: &[u8]) {
    if let Some(to) = to {
        let _ = to.write_all(data).await;
    }
}

/// The hash of all that comes, in hexadecimal digits.
async fn hash(mut from: Incoming) -> String {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return hex(&hash.finalize()),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) => return error.to_string(),
        }
    }
}

/// Bytes that can be told from each other.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
