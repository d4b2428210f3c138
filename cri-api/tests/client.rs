//! The client helper against a server of the generated kind, over a unix socket.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::pin::Pin;

use podwright_cri_api::{
    client,
    v1::{
        ImageFsInfoRequest, ImageFsInfoResponse, ImageStatusRequest, ImageStatusResponse,
        ListImagesRequest, ListImagesResponse, PullImageRequest, PullImageResponse,
        RemoveImageRequest, RemoveImageResponse, StreamImagesRequest, StreamImagesResponse,
        image_service_server::{ImageService, ImageServiceServer},
    },
};
use tokio::net::UnixListener;
use tokio_stream::{Stream, wrappers::UnixListenerStream};
use tonic::{Code, Request, Response, Status, transport::Server};

/// Echoes the reference of a pull and knows nothing else.
struct Echo;

#[tonic::async_trait]
impl ImageService for Echo {
    type StreamImagesStream =
        Pin<Box<dyn Stream<Item = Result<StreamImagesResponse, Status>> + Send>>;

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let image = request
            .into_inner()
            .image
            .ok_or(Status::invalid_argument("no image"))?;
        Ok(Response::new(PullImageResponse {
            image_ref: image.image,
        }))
    }

    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        Err(Status::unimplemented("ListImages"))
    }

    async fn stream_images(
        &self,
        _: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        Err(Status::unimplemented("StreamImages"))
    }

    async fn image_status(
        &self,
        _: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        Err(Status::unimplemented("ImageStatus"))
    }

    async fn remove_image(
        &self,
        _: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        Err(Status::unimplemented("RemoveImage"))
    }

    async fn image_fs_info(
        &self,
        _: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        Err(Status::unimplemented("ImageFsInfo"))
    }
}

#[tokio::test]
async fn calls_and_statuses_travel_over_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cri.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(
        Server::builder()
            .add_service(ImageServiceServer::new(Echo))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );

    let mut client = client::connect(&socket).await.unwrap();
    let image = podwright_cri_api::v1::ImageSpec {
        image: "a/b:c".into(),
        ..Default::default()
    };
    let pulled = client
        .image
        .pull_image(PullImageRequest {
            image: Some(image),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(pulled.into_inner().image_ref, "a/b:c");
    let refused = client
        .image
        .pull_image(PullImageRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "no image")
    );
    let unknown = client
        .runtime
        .version(podwright_cri_api::v1::VersionRequest::default())
        .await;
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
    server.abort();
}

#[tokio::test]
async fn connecting_to_nobody_fails_with_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let error = client::connect(dir.path().join("absent.sock"))
        .await
        .unwrap_err();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    assert!(cause.to_string().contains("No such file"), "{cause}");
}
