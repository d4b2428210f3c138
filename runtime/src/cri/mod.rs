//! The CRI services: decode, call, encode. What a call does is in `sandbox/`, `container/` and the image crate.

mod deadline;
mod image_service;
mod node_status;
mod runtime_service;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Response, Status};

pub(crate) use deadline::Deadline;

use crate::error::CallError;
use crate::node::Node;
use crate::stream::StreamServer;

/// Both CRI services.
#[derive(Clone)]
pub(crate) struct Service {
    node: Arc<Node>,
    streams: Arc<StreamServer>,
}

impl Service {
    pub(crate) fn new(node: Arc<Node>, streams: Arc<StreamServer>) -> Self {
        Self { node, streams }
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Entries per message of a streamed list.
const CHUNK: usize = 64;

/// Bytes per message of a streamed list, unless one entry is longer: far below what clients take.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Runs an operation to its end even when the client goes away: half an operation is no state.
async fn unbroken<T: Send + 'static>(
    operation: impl Future<Output = Result<T, CallError>> + Send + 'static,
) -> Answer<T> {
    match tokio::spawn(operation).await {
        Ok(result) => result.map(Response::new).map_err(Status::from),
        Err(error) => Err(Status::internal(format!(
            "the operation ended abnormally: {error}"
        ))),
    }
}

fn answer<T>(result: Result<T, CallError>) -> Answer<T> {
    result.map(Response::new).map_err(Status::from)
}

/// A list in messages of at most [`CHUNK`] entries and about [`CHUNK_BYTES`].
fn chunks<T: prost::Message + 'static, M: Send + 'static>(
    items: Vec<T>,
    message: impl Fn(Vec<T>) -> M,
) -> Response<Streamed<M>> {
    let mut messages = Vec::new();
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    for item in items {
        let more = item.encoded_len();
        if !chunk.is_empty() && (chunk.len() == CHUNK || bytes + more > CHUNK_BYTES) {
            messages.push(Ok(message(std::mem::take(&mut chunk))));
            bytes = 0;
        }
        bytes += more;
        chunk.push(item);
    }
    if !chunk.is_empty() {
        messages.push(Ok(message(chunk)));
    }
    Response::new(Box::pin(tokio_stream::iter(messages)))
}
