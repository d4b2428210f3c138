//! CRI calls as tests make them: a wrong answer of the happy path ends the test with the reason.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use podwright_cri_api::client::Client;
use podwright_cri_api::v1::{
    ContainerState, ContainerStatus, ContainerStatusRequest, CreateContainerRequest,
    ExecSyncRequest, ExecSyncResponse, ImageSpec, ListPodSandboxRequest, NetworkConfig,
    PodSandboxStatus, PodSandboxStatusRequest, PullImageRequest, RemoveContainerRequest,
    RemovePodSandboxRequest, ReopenContainerLogRequest, RunPodSandboxRequest, RuntimeConfig,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest, UpdateRuntimeConfigRequest,
};
use serde_json::Value;
use tonic::{Code, Status};

use crate::{
    log::{self, Line},
    node::until,
    patience::patience,
    pod::{ContainerSpec, PodSpec},
};

/// A pod that was made.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its id.
    pub id: String,
    /// What it was made from; containers need it.
    pub spec: PodSpec,
}

/// Calls to one CRI server.
#[derive(Clone, Debug)]
pub struct Cri {
    client: Client,
    /// Where pods' log directories are made.
    logs: PathBuf,
}

impl Cri {
    /// Calls over `client`; the logs of pods that name no directory go below `logs`.
    pub fn new(client: Client, logs: &Path) -> Self {
        Self {
            client,
            logs: logs.to_owned(),
        }
    }

    /// The connection, for calls that have no method here.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Pulls `image`; the answer is its reference.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn pull(&self, image: &str) -> Result<String, Status> {
        let image = Some(ImageSpec {
            image: image.to_owned(),
            ..ImageSpec::default()
        });
        let request = PullImageRequest {
            image,
            ..PullImageRequest::default()
        };
        Ok(self
            .client()
            .image
            .pull_image(request)
            .await?
            .into_inner()
            .image_ref)
    }

    /// Makes a pod. Its log directory is below the slot's, unless the spec names another.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn run_pod(&self, spec: PodSpec) -> Result<Pod, Status> {
        self.run_pod_with(spec, "").await
    }

    /// Makes a pod with a runtime handler.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn run_pod_with(&self, mut spec: PodSpec, handler: &str) -> Result<Pod, Status> {
        if spec.config.log_directory.is_empty() {
            let directory = self.logs.join(spec.uid());
            spec.config.log_directory = directory.display().to_string();
        }
        let config = Some(spec.config.clone());
        let request = RunPodSandboxRequest {
            config,
            runtime_handler: handler.to_owned(),
        };
        let answer = self
            .client()
            .runtime
            .run_pod_sandbox(request)
            .await?
            .into_inner();
        Ok(Pod {
            id: answer.pod_sandbox_id,
            spec,
        })
    }

    /// Makes a container; the answer is its id.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn create(&self, pod: &Pod, spec: ContainerSpec) -> Result<String, Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(spec.config),
            sandbox_config: Some(pod.spec.config.clone()),
        };
        Ok(self
            .client()
            .runtime
            .create_container(request)
            .await?
            .into_inner()
            .container_id)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn start_container(&self, id: &str) -> Result<(), Status> {
        let request = StartContainerRequest {
            container_id: id.to_owned(),
        };
        self.client()
            .runtime
            .start_container(request)
            .await
            .map(drop)
    }

    /// Makes and starts a container; the answer is its id.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn run(&self, pod: &Pod, spec: ContainerSpec) -> Result<String, Status> {
        let id = self.create(pod, spec).await?;
        self.start_container(&id).await?;
        Ok(id)
    }

    /// Stops a container, with a grace period in seconds.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn stop(&self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout,
        };
        self.client()
            .runtime
            .stop_container(request)
            .await
            .map(drop)
    }

    /// Removes a container.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn remove(&self, id: &str) -> Result<(), Status> {
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        self.client()
            .runtime
            .remove_container(request)
            .await
            .map(drop)
    }

    /// Stops a pod.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn stop_pod(&self, id: &str) -> Result<(), Status> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.client()
            .runtime
            .stop_pod_sandbox(request)
            .await
            .map(drop)
    }

    /// Removes a pod.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn remove_pod(&self, id: &str) -> Result<(), Status> {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.client()
            .runtime
            .remove_pod_sandbox(request)
            .await
            .map(drop)
    }

    /// Stops and removes every pod there is.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn remove_all_pods(&self) -> Result<()> {
        let list = self
            .client()
            .runtime
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await;
        for pod in list?.into_inner().items {
            self.stop_pod(&pod.id)
                .await
                .with_context(|| format!("stopping pod {}", pod.id))?;
            self.remove_pod(&pod.id)
                .await
                .with_context(|| format!("removing pod {}", pod.id))?;
        }
        Ok(())
    }

    /// Runs a command in a container that is to end by itself within `seconds`, which a slower machine has more of; 0 for no limit.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn exec(
        &self,
        id: &str,
        command: &[&str],
        seconds: u32,
    ) -> Result<ExecSyncResponse, Status> {
        let limit = patience(Duration::from_secs(seconds.into()));
        let timeout = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        self.exec_for(id, command, timeout).await
    }

    /// Runs a command in a container for `timeout` seconds, as they are sent.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn exec_for(
        &self,
        id: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<ExecSyncResponse, Status> {
        let cmd = command.iter().map(ToString::to_string).collect();
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd,
            timeout,
        };
        Ok(self.client().runtime.exec_sync(request).await?.into_inner())
    }

    /// What a shell script prints in a container. It has to succeed.
    ///
    /// # Errors
    /// When the call fails or the exit code is not 0, with what was printed.
    pub async fn shell(&self, id: &str, script: &str) -> Result<String> {
        let done = self.exec(id, &["sh", "-c", script], 20).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            done.exit_code == 0,
            "{script:?} ended with {}: {}{}",
            done.exit_code,
            text(&done.stdout),
            text(&done.stderr)
        );
        Ok(text(&done.stdout))
    }

    /// Has a container's log go on in a new file of the old name.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn reopen_log(&self, id: &str) -> Result<(), Status> {
        let request = ReopenContainerLogRequest {
            container_id: id.to_owned(),
        };
        self.client()
            .runtime
            .reopen_container_log(request)
            .await
            .map(drop)
    }

    /// Says which addresses new pods get: ranges of one or both IP versions, with a comma between.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn give_pod_cidr(&self, pod_cidr: &str) -> Result<(), Status> {
        let network_config = Some(NetworkConfig {
            pod_cidr: pod_cidr.to_owned(),
        });
        let request = UpdateRuntimeConfigRequest {
            runtime_config: Some(RuntimeConfig { network_config }),
        };
        self.client()
            .runtime
            .update_runtime_config(request)
            .await
            .map(drop)
    }

    /// A container's status.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn status(&self, id: &str) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let answer = self
            .client()
            .runtime
            .container_status(request)
            .await?
            .into_inner();
        answer
            .status
            .ok_or_else(|| Status::new(Code::Internal, "an answer without a status"))
    }

    /// A pod's status.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn pod_status(&self, id: &str) -> Result<PodSandboxStatus, Status> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        let answer = self
            .client()
            .runtime
            .pod_sandbox_status(request)
            .await?
            .into_inner();
        answer
            .status
            .ok_or_else(|| Status::new(Code::Internal, "an answer without a status"))
    }

    /// The process id of a container's first process on the host, from the verbose status.
    ///
    /// # Errors
    /// When the call fails or the information lacks it.
    pub async fn container_pid(&self, id: &str) -> Result<u32> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        };
        let answer = self
            .client()
            .runtime
            .container_status(request)
            .await?
            .into_inner();
        pid_in(&answer.info)
    }

    /// The process id of a pod's pause, from the verbose status.
    ///
    /// # Errors
    /// When the call fails or the information lacks it.
    pub async fn pause_pid(&self, pod: &str) -> Result<u32> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: pod.to_owned(),
            verbose: true,
        };
        let answer = self
            .client()
            .runtime
            .pod_sandbox_status(request)
            .await?
            .into_inner();
        pid_in(&answer.info)
    }

    /// Waits until a container has ended; the answer is its last status.
    ///
    /// # Errors
    /// At the deadline.
    pub async fn wait_exit(&self, id: &str) -> Result<ContainerStatus> {
        until(&format!("container {id} to end"), || async {
            let status = self.status(id).await.map_err(|status| status.to_string())?;
            if status.state() == ContainerState::ContainerExited {
                return Ok(status);
            }
            Err(format!("it is {:?}", status.state()))
        })
        .await
    }

    /// Where a container's log is.
    ///
    /// # Errors
    /// The daemon's answer.
    pub async fn log_path(&self, id: &str) -> Result<PathBuf, Status> {
        Ok(self.status(id).await?.log_path.into())
    }

    /// A container's log so far.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is not as CRI says.
    pub async fn logs(&self, id: &str) -> Result<Vec<Line>> {
        log::read(&self.log_path(id).await?)
    }

    /// Waits until a container's log has this line.
    ///
    /// # Errors
    /// At the deadline.
    pub async fn wait_line(&self, id: &str, wanted: &str) -> Result<()> {
        until(&format!("container {id} to say {wanted:?}"), || async {
            let lines = self.logs(id).await.map_err(|error| error.to_string())?;
            match lines.iter().any(|line| line.text == wanted) {
                true => Ok(()),
                false => Err(format!("it said {lines:?}")),
            }
        })
        .await
    }
}

/// The process in a verbose status.
fn pid_in(info: &BTreeMap<String, String>) -> Result<u32> {
    let info = info.get("info").context("the verbose status has no info")?;
    let info: Value = serde_json::from_str(info).context("info is not JSON")?;
    let pid = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.with_context(|| format!("no pid in {info}"))
}
