//! The first pod.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use podwright_cri_api::client::Client;
use podwright_cri_api::v1::{
    ContainerStatusRequest, CreateContainerRequest, ImageSpec, PodSandboxStatusRequest,
    PullImageRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest,
};
use podwright_integration::images::{BUSYBOX, HTTPD};
use podwright_integration::log;
use podwright_integration::node::{Daemon, until};
use podwright_integration::pod::{ContainerSpec, PodSpec};

use crate::progress::step;

/// Fetches until the server answers, then once a minute, so that its log shows a life.
const CLIENT: &str = "until wget -qO- http://localhost:80/; do sleep 0.1; done; while sleep 60; do wget -qO- http://localhost:80/; done";

/// How much of an id is shown; crictl takes that too.
const SHORT: usize = 13;

/// The pod with its two containers.
#[derive(Debug)]
pub(crate) struct DemoPod {
    id: String,
    ip: String,
    client: String,
    client_log: PathBuf,
    server_log: PathBuf,
}

impl DemoPod {
    /// Pulls the images, runs the pod, and starts the server and the client.
    ///
    /// # Errors
    /// The daemon's answer, with what was asked.
    pub(crate) async fn make(daemon: &Daemon) -> Result<Self> {
        let mut cri = daemon.client();
        for image in [HTTPD, BUSYBOX] {
            step(&format!("pulling {image}"), pull(&mut cri, image))
                .await
                .with_context(|| format!("pulling {image}"))?;
        }
        let mut spec = PodSpec::new("hello");
        spec.config.log_directory = daemon.slot().path("logs").display().to_string();
        let id = step("making the pod", run_pod(&mut cri, &spec))
            .await
            .context("making the pod")?;
        let server = ContainerSpec::new("server").image(HTTPD);
        let server = step("starting the server", start(&mut cri, &id, &spec, server))
            .await
            .context("starting the server")?;
        let client = ContainerSpec::new("client").shell(CLIENT);
        let client = step("starting the client", start(&mut cri, &id, &spec, client))
            .await
            .context("starting the client")?;
        let ip = pod_ip(&mut cri, &id)
            .await
            .context("asking for the pod's address")?;
        let server_log = log_path(&mut cri, &server).await?;
        let client_log = log_path(&mut cri, &client).await?;
        Ok(Self {
            id,
            ip,
            client,
            client_log,
            server_log,
        })
    }

    /// What the client has printed, as soon as there is something.
    ///
    /// # Errors
    /// When there is nothing for too long.
    pub(crate) async fn fetched(&self) -> Result<String> {
        until("the client to fetch a page", || async {
            let lines = log::read(&self.client_log).map_err(|error| format!("{error:#}"))?;
            let page = lines.iter().any(|line| line.stream == log::Stream::Stdout);
            if page {
                Ok(text(&lines))
            } else {
                Err(format!("its log: {:?}", text(&lines)))
            }
        })
        .await
    }

    /// What the server has printed so far.
    pub(crate) fn server_log(&self) -> String {
        log::read(&self.server_log)
            .map_or_else(|error| format!("  ({error:#})"), |lines| text(&lines))
    }

    /// The start of its id.
    pub(crate) fn short_id(&self) -> &str {
        short(&self.id)
    }

    /// The start of the client's id.
    pub(crate) fn client_id(&self) -> &str {
        short(&self.client)
    }

    /// Its first address.
    pub(crate) fn ip(&self) -> &str {
        &self.ip
    }

    /// The address as the host of a URL.
    pub(crate) fn host(&self) -> String {
        if self.ip.contains(':') {
            format!("[{}]", self.ip)
        } else {
            self.ip.clone()
        }
    }

    /// Stops and removes it.
    ///
    /// # Errors
    /// The daemon's answer.
    pub(crate) async fn remove(&self, daemon: &Daemon) -> Result<()> {
        let mut cri = daemon.client().runtime;
        let pod_sandbox_id = self.id.clone();
        step(
            "stopping the pod",
            cri.stop_pod_sandbox(StopPodSandboxRequest {
                pod_sandbox_id: pod_sandbox_id.clone(),
            }),
        )
        .await?;
        step(
            "removing the pod",
            cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }),
        )
        .await?;
        Ok(())
    }
}

fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

fn text(lines: &[log::Line]) -> String {
    lines
        .iter()
        .map(|line| format!("  {}\n", line.text))
        .collect()
}

async fn pull(cri: &mut Client, image: &str) -> Result<()> {
    let image = Some(ImageSpec {
        image: image.to_owned(),
        ..ImageSpec::default()
    });
    cri.image
        .pull_image(PullImageRequest {
            image,
            ..PullImageRequest::default()
        })
        .await?;
    Ok(())
}

async fn run_pod(cri: &mut Client, spec: &PodSpec) -> Result<String> {
    let request = RunPodSandboxRequest {
        config: Some(spec.config.clone()),
        ..RunPodSandboxRequest::default()
    };
    Ok(cri
        .runtime
        .run_pod_sandbox(request)
        .await?
        .into_inner()
        .pod_sandbox_id)
}

async fn start(
    cri: &mut Client,
    pod: &str,
    spec: &PodSpec,
    container: ContainerSpec,
) -> Result<String> {
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(container.config),
        sandbox_config: Some(spec.config.clone()),
    };
    let container_id = cri
        .runtime
        .create_container(request)
        .await?
        .into_inner()
        .container_id;
    cri.runtime
        .start_container(StartContainerRequest {
            container_id: container_id.clone(),
        })
        .await?;
    Ok(container_id)
}

async fn pod_ip(cri: &mut Client, pod: &str) -> Result<String> {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: pod.to_owned(),
        verbose: false,
    };
    let status = cri
        .runtime
        .pod_sandbox_status(request)
        .await?
        .into_inner()
        .status;
    let network = status
        .and_then(|status| status.network)
        .context("the pod's status has no network")?;
    Ok(network.ip)
}

async fn log_path(cri: &mut Client, container: &str) -> Result<PathBuf> {
    let request = ContainerStatusRequest {
        container_id: container.to_owned(),
        verbose: false,
    };
    let status = cri
        .runtime
        .container_status(request)
        .await?
        .into_inner()
        .status;
    Ok(status
        .context("the container has no status")?
        .log_path
        .into())
}
