//! Calls by their names, with encoded messages: what a list of calls needs, and generated clients cannot.

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

/// A call that goes on until its client leaves; it has answered when it has accepted.
const ENDLESS: &str = "GetContainerEvents";

/// A connection.
pub(super) struct Calls {
    grpc: Grpc<Channel>,
}

impl Calls {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            grpc: Grpc::new(channel),
        }
    }

    /// Calls `service/method`; the answer is the first message, or nothing of an empty or endless stream.
    pub(super) async fn call(&mut self, call: &str, request: Bytes) -> Result<Bytes, Status> {
        let path = PathAndQuery::try_from(format!("/{call}"))
            .map_err(|error| Status::internal(error.to_string()))?;
        self.grpc
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        // A single answer is a stream of one message on the wire.
        let answer = self
            .grpc
            .server_streaming(Request::new(request), path, Plain);
        let mut answer = answer.await?.into_inner();
        if call.ends_with(ENDLESS) {
            return Ok(Bytes::new());
        }
        Ok(answer.message().await?.unwrap_or_default())
    }
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
