//! What critest runs against: a daemon of our own, or any other CRI server.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use podwright_cri_api::v1::{
    ImageSpec, ListContainersRequest, ListImagesRequest, ListPodSandboxRequest, RemoveImageRequest,
};
use podwright_integration::{
    node::{Daemon, Snapshot},
    registry::Registry,
};

/// A CRI server.
#[derive(Debug)]
pub(crate) struct Target {
    socket: PathBuf,
    own: Option<Own>,
}

/// A daemon that was started for this.
#[derive(Debug)]
struct Own {
    daemon: Daemon,
    before: Snapshot,
    _registry: Registry,
}

impl Target {
    /// The server at `socket`, or a new daemon with a registry of all images that critest pulls.
    pub(crate) async fn open(socket: Option<PathBuf>) -> Result<Self> {
        if let Some(socket) = socket {
            return Ok(Self { socket, own: None });
        }
        let registry = Registry::with_test_images().await?;
        let daemon = Daemon::start(&registry).await?;
        let before = Snapshot::of(daemon.slot())?;
        Ok(Self {
            socket: daemon.socket(),
            own: Some(Own {
                daemon,
                before,
                _registry: registry,
            }),
        })
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What a daemon of our own has logged.
    pub(crate) fn log(&self) -> Option<String> {
        self.own.as_ref().map(|own| own.daemon.log())
    }

    /// Checks that specs which cleaned up have left nothing, and ends a daemon of our own in order.
    pub(crate) async fn finish(self) -> Result<()> {
        match self.own {
            Some(own) => own.finish().await,
            None => Ok(()),
        }
    }
}

impl Own {
    async fn finish(mut self) -> Result<()> {
        let mut client = self.daemon.client();
        let pods = client
            .runtime
            .list_pod_sandbox(ListPodSandboxRequest::default());
        let pods = pods.await?.into_inner().items;
        ensure!(pods.is_empty(), "pods are left behind: {pods:?}");
        let containers = client
            .runtime
            .list_containers(ListContainersRequest::default());
        let containers = containers.await?.into_inner().containers;
        ensure!(containers.is_empty(), "containers are left: {containers:?}");
        let images = client.image.list_images(ListImagesRequest::default());
        for image in images.await?.into_inner().images {
            let image = Some(ImageSpec {
                image: image.id,
                ..ImageSpec::default()
            });
            client
                .image
                .remove_image(RemoveImageRequest { image })
                .await?;
        }
        self.before.wait_equal(self.daemon.slot()).await?;
        self.daemon.terminate().await
    }
}
