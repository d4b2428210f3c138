//! The CRI services: decode, call, encode. What a call does is in `sandbox/`, `container/` and the image crate.

mod image_service;
mod node_status;
mod runtime_service;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Response, Status};

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

/// Entries per message of a streamed list: far below what clients take, however long the entries' labels are.
const CHUNK: usize = 64;

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

/// A list in messages of [`CHUNK`] entries.
fn chunks<T: Send + 'static, M: Send + 'static>(
    mut items: Vec<T>,
    message: impl Fn(Vec<T>) -> M,
) -> Response<Streamed<M>> {
    let mut messages = Vec::new();
    while !items.is_empty() {
        let rest = items.split_off(items.len().min(CHUNK));
        messages.push(Ok(message(std::mem::replace(&mut items, rest))));
    }
    Response::new(Box::pin(tokio_stream::iter(messages)))
}

fn unimplemented<T>(call: &str) -> Answer<T> {
    Err(Status::unimplemented(format!(
        "{call} is not built yet in this version of Podwright"
    )))
}
