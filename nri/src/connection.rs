//! One plugin's socket: calls to it, and the calls that it makes.
//!
//! Two tasks serve it, a reader and a writer, until the connection is closed by either side. Neither ever waits for the work
//! that a message asks for, so that an answer is never stuck behind a request.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{PLUGIN_SERVICE, RUNTIME_SERVICE};
use crate::mux::{self, Channel, FrameHeader, GiantFrame};
use crate::ttrpc::{self, Assembler, Code, GiantMessage, Kind, Message, Request, Response, Status};

/// Bytes that wait to be written; a plugin that lets more pile up does not read. Room for the requests that may be
/// unanswered at a time, were all of the largest size.
const MAX_QUEUED: usize = 5 * mux::MAX_PAYLOAD;

/// What a waiting message costs besides its bytes.
const MESSAGE_COST: usize = 256;

/// Requests of a plugin that wait for the one at work.
const MAX_WAITING: usize = 4;

/// Answers to calls that are answered already.
const MAX_STRAYS: usize = 64;

/// How long a connection that has ended may take to write its last messages.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What is read from the socket at once.
const READ_BUFFER: usize = 16 * 1024;

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    /// The plugin has closed it.
    #[error("it has closed its connection")]
    Ended,
    /// The socket failed.
    #[error("its connection failed")]
    Io(#[source] io::Error),
    /// No message is so large.
    #[error(transparent)]
    Frame(#[from] GiantFrame),
    /// The same, found in a message's header.
    #[error("it sent what cannot be: {0}")]
    Message(#[from] GiantMessage),
    /// It does not keep to the protocol.
    #[error("it broke the protocol: {what}")]
    Protocol {
        /// How.
        what: String,
    },
    /// Its answers are not messages.
    #[error("its answer to {method} is no message")]
    Rubbish {
        /// The call.
        method: &'static str,
        /// How it shows.
        #[source]
        source: prost::DecodeError,
    },
    /// It lets messages pile up.
    #[error("it does not read what it is sent")]
    Unread,
    /// It was told to go, with the reason.
    #[error("{0}")]
    Dismissed(String),
}

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallFailure {
    /// The request is larger than a message can be.
    #[error("the request does not fit into a message: {0}")]
    TooLarge(GiantMessage),
    /// It did not answer in time; it may do so yet, to nobody.
    #[error("it did not answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// It has answered with an error.
    #[error("it answered with an error: {}", .0.message)]
    Refused(Status),
    /// The connection has ended before.
    #[error("{0}")]
    Closed(Arc<Closed>),
}

/// Ends a connection with whoever serves it.
pub(crate) struct ClosesOnDrop(pub(crate) Connection);

impl Drop for ClosesOnDrop {
    fn drop(&mut self) {
        self.0
            .close(Closed::Dismissed("the runtime is ending".into()));
    }
}

/// A call that the plugin makes.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: u32,
    pub(crate) method: String,
    pub(crate) payload: Vec<u8>,
}

/// A plugin's connection. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    /// What is in `outgoing`: its bound.
    queued: AtomicUsize,
    /// Guards the table alone.
    calls: Mutex<Calls>,
    closed: watch::Sender<Option<Arc<Closed>>>,
}

#[derive(Debug)]
struct Calls {
    next: u32,
    waiting: HashMap<u32, oneshot::Sender<Response>>,
    /// Calls that were given up and are not answered yet. Few: see `plugin`.
    abandoned: HashSet<u32>,
    strays: usize,
}

impl Connection {
    /// Serves `stream` from now on. The plugin's calls come from the receiver, which ends with the connection.
    pub(crate) fn open(stream: UnixStream) -> (Self, mpsc::Receiver<Incoming>) {
        let (outgoing, messages) = mpsc::unbounded_channel();
        let (incoming, requests) = mpsc::channel(MAX_WAITING);
        let connection = Self {
            shared: Arc::new(Shared {
                outgoing,
                queued: AtomicUsize::new(0),
                calls: Mutex::new(Calls {
                    next: 1,
                    waiting: HashMap::new(),
                    abandoned: HashSet::new(),
                    strays: 0,
                }),
                closed: watch::Sender::new(None),
            }),
        };
        let (read, write) = stream.into_split();
        let reader = connection.clone();
        tokio::spawn(async move {
            let why = tokio::select! {
                why = reader.read(read, incoming) => why,
                _ = reader.closed() => return,
            };
            reader.close(why);
        });
        let writer = connection.clone();
        tokio::spawn(async move {
            let why = writer.write(write, messages).await;
            writer.close(why);
        });
        (connection, requests)
    }

    /// Calls the plugin, and waits for its answer for at most `limit`.
    pub(crate) async fn call<T: prost::Message + Default>(
        &self,
        method: &'static str,
        payload: Vec<u8>,
        limit: Duration,
    ) -> Result<T, CallFailure> {
        let request = Request {
            service: PLUGIN_SERVICE.into(),
            method: method.into(),
            payload,
            timeout_nano: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
        };
        let (stream, answer) = self.register();
        let message = Message::new(stream, Kind::Request, &request).map_err(|giant| {
            self.forget(stream);
            CallFailure::TooLarge(giant)
        })?;
        self.send(Channel::Plugin, &message);
        let response = tokio::select! {
            biased;
            answer = tokio::time::timeout(limit, answer) => match answer {
                Ok(Ok(response)) => response,
                // The table is dropped with the connection only.
                Ok(Err(_)) => return Err(CallFailure::Closed(self.closed().await)),
                Err(_) => {
                    self.abandon(stream);
                    return Err(CallFailure::Late(limit));
                }
            },
            why = self.closed() => return Err(CallFailure::Closed(why)),
        };
        let payload = response.outcome().map_err(CallFailure::Refused)?;
        ttrpc::decode(&payload).map_err(|source| {
            let why = self.close(Closed::Rubbish { method, source });
            CallFailure::Closed(why)
        })
    }

    /// Answers one of the plugin's calls.
    pub(crate) fn answer(&self, to: &Incoming, answer: Result<Vec<u8>, Status>) {
        self.respond(to.stream, answer);
    }

    /// Ends the connection. The first reason stays, and is returned.
    pub(crate) fn close(&self, why: Closed) -> Arc<Closed> {
        let why = Arc::new(why);
        self.shared.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(Arc::clone(&why));
            }
            first
        });
        self.end().unwrap_or(why)
    }

    /// Why it has ended, if it has.
    pub(crate) fn end(&self) -> Option<Arc<Closed>> {
        self.shared.closed.borrow().clone()
    }

    /// Waits for its end.
    pub(crate) async fn closed(&self) -> Arc<Closed> {
        let mut closed = self.shared.closed.subscribe();
        let why = closed.wait_for(Option::is_some).await.ok();
        // The sender is this connection's own, so there is a reason.
        why.and_then(|why| why.clone())
            .unwrap_or_else(|| Arc::new(Closed::Ended))
    }

    fn register(&self) -> (u32, oneshot::Receiver<Response>) {
        let (sender, receiver) = oneshot::channel();
        let mut calls = self.calls();
        let stream = calls.next;
        calls.next = calls.next.wrapping_add(2);
        calls.waiting.insert(stream, sender);
        (stream, receiver)
    }

    fn forget(&self, stream: u32) {
        self.calls().waiting.remove(&stream);
    }

    fn abandon(&self, stream: u32) {
        let mut calls = self.calls();
        // Its answer may have come in this instant.
        if calls.waiting.remove(&stream).is_some() {
            calls.abandoned.insert(stream);
        }
    }

    /// How many calls were given up and are not answered yet.
    pub(crate) fn unanswered(&self) -> usize {
        self.calls().abandoned.len()
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.shared
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, channel: Channel, message: &Message) {
        let bytes = mux::frames(channel, &message.encode());
        let cost = bytes.len() + MESSAGE_COST;
        if self.shared.queued.fetch_add(cost, Ordering::Relaxed) + cost > MAX_QUEUED {
            self.close(Closed::Unread);
            return;
        }
        // An error says that the writer is gone, and the connection with it.
        let _ = self.shared.outgoing.send(bytes);
    }

    fn respond(&self, stream: u32, answer: Result<Vec<u8>, Status>) {
        let too_large = |giant: GiantMessage| {
            let status = Status::new(Code::ResourceExhausted, giant.to_string());
            Message::new(stream, Kind::Response, &Response::of(Err(status)))
        };
        if let Ok(message) =
            Message::new(stream, Kind::Response, &Response::of(answer)).or_else(too_large)
        {
            self.send(Channel::Runtime, &message);
        }
    }

    /// Writes what is sent, also what was sent before the end: the plugin may read there why it came.
    async fn write(
        &self,
        mut socket: OwnedWriteHalf,
        mut messages: mpsc::UnboundedReceiver<Vec<u8>>,
    ) -> Closed {
        loop {
            let bytes = tokio::select! {
                biased;
                bytes = messages.recv() => bytes,
                _ = self.closed() => return Closed::Ended,
            };
            let Some(bytes) = bytes else {
                return Closed::Ended;
            };
            let too_late = async {
                self.closed().await;
                tokio::time::sleep(LAST_WORDS).await;
            };
            let written = tokio::select! {
                written = socket.write_all(&bytes) => written,
                () = too_late => return Closed::Ended,
            };
            if let Err(error) = written {
                return Closed::Io(error);
            }
            let cost = bytes.len() + MESSAGE_COST;
            self.shared.queued.fetch_sub(cost, Ordering::Relaxed);
        }
    }

    async fn read(&self, socket: OwnedReadHalf, incoming: mpsc::Sender<Incoming>) -> Closed {
        match self.read_frames(socket, &incoming).await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn read_frames(
        &self,
        socket: OwnedReadHalf,
        incoming: &mpsc::Sender<Incoming>,
    ) -> Result<std::convert::Infallible, Closed> {
        let ended = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Closed::Ended,
            _ => Closed::Io(error),
        };
        let mut socket = BufReader::with_capacity(READ_BUFFER, socket);
        let (mut answers, mut requests) = (Assembler::default(), Assembler::default());
        let mut last_request = 0;
        loop {
            let mut header = [0; mux::HEADER];
            socket.read_exact(&mut header).await.map_err(ended)?;
            let FrameHeader { channel, length } = FrameHeader::decode(header)?;
            let mut left = length;
            while left > 0 {
                let bytes = socket.fill_buf().await.map_err(ended)?;
                if bytes.is_empty() {
                    return Err(Closed::Ended);
                }
                let now = bytes.len().min(left);
                let piece = &bytes[..now];
                match channel {
                    Some(Channel::Plugin) => {
                        answers.push(piece, |message| self.answered(message))?;
                    }
                    Some(Channel::Runtime) => requests.push(piece, |message| {
                        self.requested(message, &mut last_request, incoming)
                    })?,
                    None => {}
                }
                socket.consume(now);
                left -= now;
            }
        }
    }

    /// A message on the connection that the runtime calls on.
    fn answered(&self, message: Message) -> Result<(), Closed> {
        let mut calls = self.calls();
        let asked = !message.stream.is_multiple_of(2) && message.stream < calls.next;
        match (message.kind, calls.waiting.remove(&message.stream)) {
            (Kind::Response, Some(waiting)) => {
                drop(calls);
                let response = ttrpc::decode(&message.body).map_err(|error| Closed::Protocol {
                    what: format!("an answer is no message ({error})"),
                })?;
                // Nobody waits any more: the call has just run out of time.
                let _ = waiting.send(response);
                Ok(())
            }
            (Kind::Response, None) if calls.abandoned.remove(&message.stream) => {
                tracing::debug!(stream = message.stream, "an answer that comes too late");
                Ok(())
            }
            (Kind::Response, None) if asked => {
                calls.strays += 1;
                if calls.strays > MAX_STRAYS {
                    let what = format!("it answered {MAX_STRAYS} calls twice");
                    return Err(Closed::Protocol { what });
                }
                Ok(())
            }
            (Kind::Response, None) => Err(Closed::Protocol {
                what: format!("it answers the call {}, which was not made", message.stream),
            }),
            (kind, _) => Err(Closed::Protocol {
                what: format!("it sent a {kind:?} where answers are expected"),
            }),
        }
    }

    /// A message on the connection that the plugin calls on.
    fn requested(
        &self,
        message: Message,
        last: &mut u32,
        incoming: &mpsc::Sender<Incoming>,
    ) -> Result<(), Closed> {
        let stream = message.stream;
        if message.kind != Kind::Request {
            return Err(Closed::Protocol {
                what: format!("it sent a {:?} where calls are expected", message.kind),
            });
        }
        if stream.is_multiple_of(2) || stream <= *last {
            return Err(Closed::Protocol {
                what: format!("the stream id {stream} after {last} is not odd and larger"),
            });
        }
        *last = stream;
        let request: Request = ttrpc::decode(&message.body).map_err(|error| Closed::Protocol {
            what: format!("a call is no message ({error})"),
        })?;
        if request.service != RUNTIME_SERVICE {
            let service: String = request.service.chars().take(80).collect();
            let what = format!("there is no service '{service}' here");
            self.respond(stream, Err(Status::new(Code::Unimplemented, what)));
            return Ok(());
        }
        let request = Incoming {
            stream,
            method: request.method,
            payload: request.payload,
        };
        if incoming.try_send(request).is_err() {
            let what = format!("{MAX_WAITING} calls wait already; make one at a time");
            self.respond(stream, Err(Status::new(Code::ResourceExhausted, what)));
        }
        Ok(())
    }
}
