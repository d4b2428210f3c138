//! ttrpc (<https://github.com/containerd/ttrpc>), PROTOCOL.md: calls and answers on one connection. Only unary calls are used.

/// Body length and stream id of 32 bits, big-endian, type and flags of one byte each.
pub(crate) const HEADER: usize = 10;

/// The largest body.
pub(crate) const MAX_BODY: usize = 4 << 20;

/// A buffer that has held more than this is given back when it is empty: large messages are rare.
const KEPT_BUFFER: usize = 64 * 1024;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    /// Part of a stream, which the interface has none of; or of a later version.
    Other(u8),
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Other(byte) => byte,
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Chosen by the caller: odd, and larger with each call.
    pub(crate) stream: u32,
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
}

/// A message that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {length} bytes is too large; {MAX_BODY} is the most")]
pub(crate) struct GiantMessage {
    pub(crate) length: usize,
}

impl Message {
    /// A request or an answer.
    pub(crate) fn new(
        stream: u32,
        kind: Kind,
        content: &impl prost::Message,
    ) -> Result<Self, GiantMessage> {
        let length = content.encoded_len();
        if length > MAX_BODY {
            return Err(GiantMessage { length });
        }
        Ok(Self {
            stream,
            kind,
            body: content.encode_to_vec(),
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.body.len());
        // A body is at most MAX_BODY bytes, which fit.
        let length = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&[self.kind.byte(), 0]);
        out.extend_from_slice(&self.body);
        out
    }
}

/// Puts messages together from pieces. Holds one message at most, and no more of it than has arrived.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    buffer: Vec<u8>,
}

impl Assembler {
    /// Takes the next bytes; `each` gets every message that they complete.
    pub(crate) fn push<E: From<GiantMessage>>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Message) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            self.take(&mut bytes, HEADER);
            let Some(header) = self.buffer.first_chunk::<HEADER>() else {
                return Ok(());
            };
            let [a, b, c, d, e, f, g, h, kind, _flags] = *header;
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if length > MAX_BODY {
                return Err(GiantMessage { length }.into());
            }
            self.take(&mut bytes, HEADER + length);
            if self.buffer.len() < HEADER + length {
                return Ok(());
            }
            let message = Message {
                stream: u32::from_be_bytes([e, f, g, h]),
                kind: match kind {
                    1 => Kind::Request,
                    2 => Kind::Response,
                    other => Kind::Other(other),
                },
                body: self.buffer[HEADER..].to_vec(),
            };
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_BUFFER);
            each(message)?;
        }
    }

    /// Moves bytes over until the buffer holds `target`.
    fn take(&mut self, bytes: &mut &[u8], target: usize) {
        let missing = target.saturating_sub(self.buffer.len()).min(bytes.len());
        let (now, later) = bytes.split_at(missing);
        self.buffer.extend_from_slice(now);
        *bytes = later;
    }
}

/// A call.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) payload: Vec<u8>,
    /// How long the caller waits; 0 for ever.
    #[prost(int64, tag = "4")]
    pub(crate) timeout_nano: i64,
}

/// An answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    /// Absent for success.
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

/// `google.rpc.Status`, without details.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// The gRPC codes that are told apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code: code as i32,
            message: message.into(),
        }
    }

    pub(crate) fn is(&self, code: Code) -> bool {
        self.code == code as i32
    }
}

impl Response {
    pub(crate) fn of(answer: Result<Vec<u8>, Status>) -> Self {
        match answer {
            Ok(payload) => Self {
                status: None,
                payload,
            },
            Err(status) => Self {
                status: Some(status),
                payload: Vec::new(),
            },
        }
    }

    pub(crate) fn outcome(self) -> Result<Vec<u8>, Status> {
        match self.status {
            Some(status) if !status.is(Code::Ok) => Err(status),
            _ => Ok(self.payload),
        }
    }
}

/// A body as a message.
pub(crate) fn decode<T: prost::Message + Default>(body: &[u8]) -> Result<T, prost::DecodeError> {
    T::decode(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    fn assemble(pieces: &[&[u8]]) -> Result<Vec<Message>, GiantMessage> {
        let mut assembler = Assembler::default();
        let mut messages = Vec::new();
        for piece in pieces {
            assembler.push(piece, |message| {
                messages.push(message);
                Ok::<_, GiantMessage>(())
            })?;
        }
        Ok(messages)
    }

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            cuts in prop::collection::vec(1usize..50, 1..40),
        ) {
            let sent: Vec<Message> = bodies.into_iter().enumerate().map(|(index, body)| Message {
                stream: 2 * index as u32 + 1,
                kind: if index % 2 == 0 { Kind::Request } else { Kind::Response },
                body,
            }).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(Message::encode).collect();
            let (mut rest, mut pieces, mut cuts) = (&bytes[..], Vec::new(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                pieces.push(piece);
                rest = later;
            }
            prop_assert_eq!(assemble(&pieces).unwrap(), sent);
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let _ = assemble(&[&bytes]);
            let _ = decode::<Request>(&bytes);
            let _ = decode::<crate::api::CreateContainerResponse>(&bytes);
        }
    }

    #[test]
    fn a_length_is_refused_before_its_bytes_arrive() {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&(MAX_BODY as u32 + 1).to_be_bytes());
        assert_eq!(
            assemble(&[&header]),
            Err(GiantMessage {
                length: MAX_BODY + 1
            })
        );
    }

    #[test]
    fn a_promised_body_takes_no_memory_before_it_comes() {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&(MAX_BODY as u32).to_be_bytes());
        let mut assembler = Assembler::default();
        assembler
            .push(&header, |_| Ok::<_, GiantMessage>(()))
            .unwrap();
        assert!(assembler.buffer.capacity() < 1024);
    }

    #[test]
    fn outcomes_are_told_apart() {
        let status = Status::new(Code::Unimplemented, "no such method");
        let response = Response::of(Err(status.clone()));
        let bytes = response.encode_to_vec();
        assert_eq!(decode::<Response>(&bytes).unwrap().outcome(), Err(status));
        let explicit = Response {
            status: Some(Status::new(Code::Ok, "")),
            payload: vec![1],
        };
        assert_eq!(explicit.outcome(), Ok(vec![1]));
    }
}
