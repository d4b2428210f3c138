//! ImageService: images on this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use podwright_cri_api::v1::image_service_server::ImageService;
use podwright_cri_api::v1::*;
use podwright_image::{Credentials, Image as StoredImage, PullErrorKind};
use tonic::{Request, Response};

use super::{Answer, Service, Streamed, answer, chunks, unbroken};
use crate::clock;
use crate::error::{CallError, Context, Kind};
use crate::index::shown;
use crate::node::Node;

#[tonic::async_trait]
impl ImageService for Service {
    type StreamImagesStream = Streamed<StreamImagesResponse>;

    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let images = list(&self.node, request.get_ref().filter.as_ref());
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Answer<Self::StreamImagesStream> {
        let images = list(&self.node, request.get_ref().filter.as_ref());
        Ok(chunks(images, |images| StreamImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Answer<ImageStatusResponse> {
        answer(image_status(&self.node, request.get_ref()))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move { pull(&node, request.into_inner()).await }).await
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Answer<RemoveImageResponse> {
        let node = Arc::clone(&self.node);
        unbroken(async move {
            let name = name(request.into_inner().image.as_ref())?;
            node.images
                .remove(&name)
                .await
                .internal(|| format!("cannot remove the image '{}'", shown(&name)))?;
            Ok(RemoveImageResponse {})
        })
        .await
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        Ok(Response::new(fs_info(&self.node)))
    }
}

fn name(image: Option<&ImageSpec>) -> Result<String, CallError> {
    let name = image.map_or("", |image| image.image.as_str());
    if name.is_empty() {
        return Err(CallError::invalid("the request names no image"));
    }
    Ok(name.to_owned())
}

fn list(node: &Node, filter: Option<&ImageFilter>) -> Vec<Image> {
    let wanted = filter
        .and_then(|filter| filter.image.as_ref())
        .map_or("", |image| image.image.as_str());
    match wanted {
        "" => node
            .images
            .list()
            .iter()
            .map(|image| cri_image(image))
            .collect(),
        name => node
            .images
            .resolve(name)
            .iter()
            .map(|image| cri_image(image))
            .collect(),
    }
}

fn cri_image(image: &StoredImage) -> Image {
    let user = image
        .config
        .config()
        .as_ref()
        .and_then(|config| config.user().clone())
        .unwrap_or_default();
    let user = user.split(':').next().unwrap_or_default();
    let uid = user.parse::<u32>().ok();
    let annotations = BTreeMap::new();
    Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid: uid.map(|uid| Int64Value { value: uid.into() }),
        username: if uid.is_some() {
            String::new()
        } else {
            user.to_owned()
        },
        spec: Some(ImageSpec {
            image: image.id.to_string(),
            annotations,
            ..Default::default()
        }),
        pinned: image.pinned,
    }
}

/// An image that is not there is no error: the answer has none.
fn image_status(
    node: &Node,
    request: &ImageStatusRequest,
) -> Result<ImageStatusResponse, CallError> {
    let name = name(request.image.as_ref())?;
    let Some(image) = node.images.resolve(&name) else {
        return Ok(ImageStatusResponse::default());
    };
    let mut info = BTreeMap::new();
    if request.verbose {
        let layers: Vec<_> = image.layers.iter().map(|layer| serde_json::json!({"chainID": layer.chain_id.to_string(), "directory": layer.dir})).collect();
        let config = serde_json::to_value(&*image.config)
            .internal(|| "cannot show the image's configuration".into())?;
        let value = serde_json::json!({"manifest": image.manifest_digest.to_string(), "imageSpec": config, "layers": layers});
        info.insert("info".to_owned(), value.to_string());
    }
    Ok(ImageStatusResponse {
        image: Some(cri_image(&image)),
        info,
    })
}

async fn pull(node: &Node, request: PullImageRequest) -> Result<PullImageResponse, CallError> {
    let name = name(request.image.as_ref())?;
    let auth = request.auth.unwrap_or_default();
    let credentials = Credentials::from_cri(
        &auth.username,
        &auth.password,
        &auth.auth,
        &auth.server_address,
        &auth.identity_token,
        &auth.registry_token,
    );
    let credentials = credentials.invalid(|| {
        format!(
            "cannot pull the image '{}' with these credentials",
            shown(&name)
        )
    })?;
    let pulled = node.images.pull(&name, credentials).await;
    let id = pulled.map_err(|error| {
        let kind = match error.kind() {
            PullErrorKind::InvalidReference => Kind::InvalidArgument,
            PullErrorKind::NotFound => Kind::NotFound,
            PullErrorKind::Unauthorized => Kind::PermissionDenied,
            PullErrorKind::Unavailable => Kind::Unavailable,
            PullErrorKind::BadImage => Kind::FailedPrecondition,
            PullErrorKind::NoSpace => Kind::ResourceExhausted,
            PullErrorKind::Internal => Kind::Internal,
        };
        CallError::caused(
            kind,
            format!("cannot pull the image '{}'", shown(&name)),
            error,
        )
    })?;
    Ok(PullImageResponse {
        image_ref: id.to_string(),
    })
}

fn fs_info(node: &Node) -> ImageFsInfoResponse {
    let usage = node.images.fs_usage();
    let images = FilesystemUsage {
        timestamp: clock::now(),
        fs_id: Some(FilesystemIdentifier {
            mountpoint: usage.mountpoint.to_string_lossy().into_owned(),
        }),
        used_bytes: Some(UInt64Value {
            value: usage.used_bytes,
        }),
        inodes_used: Some(UInt64Value {
            value: usage.used_inodes,
        }),
    };
    // Writable layers are on the same file system as images; a kubelet then counts it once.
    ImageFsInfoResponse {
        image_filesystems: vec![images.clone()],
        container_filesystems: vec![images],
    }
}
