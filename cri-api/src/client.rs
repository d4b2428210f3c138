//! Connects to a CRI server on a unix socket.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};

use crate::v1::{
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};

/// The largest message a client accepts, in bytes; the kubelet's own limit, so that lists of many
/// pods arrive here as they do there. gRPC's default is 4 MiB.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Both services of one CRI server, over one shared connection. Clones share it too.
#[derive(Clone, Debug)]
pub struct Client {
    /// Pods and containers.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Images.
    pub image: ImageServiceClient<Channel>,
}

/// Connects to the CRI server that listens on the unix socket `socket`.
///
/// When the server goes away, calls fail with `UNAVAILABLE`, and the next call after its return
/// connects anew.
///
/// # Errors
/// When nothing accepts connections on `socket`; the cause is in the error's source.
pub async fn connect(socket: impl AsRef<Path>) -> Result<Client, Error> {
    let channel = channel(socket).await?;
    Ok(Client {
        runtime: RuntimeServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES),
        image: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
    })
}

/// The connection alone, for calls by other means than the generated clients.
///
/// # Errors
/// As for [`connect`].
pub async fn channel(socket: impl AsRef<Path>) -> Result<Channel, Error> {
    let socket = socket.as_ref().to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // gRPC needs an authority for its `:authority` header; the path of the socket cannot be one.
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
}
