//! CheckpointContainer, CheckpointPod and RestorePod: processes are written to disk and read back by CRIU (<https://criu.org>),
//! where it is installed and knows the kernel. What is missing for that is told; nothing is pretended.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use podwright_cri_api::v1::{CheckpointContainerRequest, CheckpointPodRequest, RestorePodRequest};
use tokio::process::Command;

use crate::error::{CallError, Kind};
use crate::index::shown;
use crate::node::Node;

const PROGRAM: &str = "criu";

/// How long its look at the kernel may take.
const CHECK: Duration = Duration::from_secs(10);

/// What of its words is told.
const TOLD: usize = 600;

/// Writes a running container to an archive.
pub(crate) async fn container(
    node: &Node,
    request: CheckpointContainerRequest,
) -> Result<(), CallError> {
    let container = node.containers.require(&request.container_id)?;
    check_new(&request.location)?;
    if !container.is_running() {
        return Err(CallError::state(format!(
            "cannot checkpoint the container {}: it does not run",
            container.id
        )));
    }
    Err(missing(&format!("checkpoint the container {}", container.id)).await)
}

/// Writes a pod with its containers to a directory.
pub(crate) async fn pod(node: &Node, request: CheckpointPodRequest) -> Result<(), CallError> {
    let sandbox = node.sandboxes.require(&request.pod_sandbox_id)?;
    check_new(&request.output_path)?;
    for id in &request.container_ids {
        let container = node.containers.require(id)?;
        if container.sandbox.id != sandbox.id {
            return Err(CallError::invalid(format!(
                "the container {} is of another pod than {}",
                container.id, sandbox.id
            )));
        }
    }
    sandbox.require_ready("checkpoint the pod sandbox")?;
    Err(missing(&format!("checkpoint the pod sandbox {}", sandbox.id)).await)
}

/// Makes a pod of what was written.
pub(crate) async fn restore(request: RestorePodRequest) -> Result<(), CallError> {
    let path = Path::new(&request.checkpoint_path);
    if !path.is_absolute() {
        return Err(CallError::invalid(format!(
            "the checkpoint's path '{}' is not absolute",
            shown(&request.checkpoint_path)
        )));
    }
    if let Err(error) = std::fs::symlink_metadata(path) {
        let what = format!(
            "cannot look at the checkpoint '{}'",
            shown(&request.checkpoint_path)
        );
        return Err(CallError::caused(Kind::NotFound, what, error));
    }
    Err(missing("restore the pod").await)
}

/// A place that is named, and free.
fn check_new(path: &str) -> Result<(), CallError> {
    if !Path::new(path).is_absolute() {
        return Err(CallError::invalid(format!(
            "the checkpoint's path '{}' is not absolute",
            shown(path)
        )));
    }
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(CallError::new(
            Kind::AlreadyExists,
            format!(
                "there is something at the checkpoint's path '{}'",
                shown(path)
            ),
        )),
        Err(_) => Ok(()),
    }
}

/// What keeps this node from doing it.
async fn missing(what: &str) -> CallError {
    let why = match check().await {
        Ok(()) => "CRIU works with this kernel, but this version of Podwright does not drive it"
            .to_owned(),
        Err(why) => why,
    };
    CallError::state(format!("cannot {what}: {why}"))
}

/// Whether CRIU is there and knows the kernel; its own words when it does not.
async fn check() -> Result<(), String> {
    let mut command = Command::new(PROGRAM);
    command
        .arg("check")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let ended = match tokio::time::timeout(CHECK, command.output()).await {
        Err(_) => {
            return Err(format!(
                "`criu check` did not end within {} s",
                CHECK.as_secs()
            ));
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err("there is no criu in the daemon's PATH: install CRIU".into());
        }
        Ok(Err(error)) => return Err(format!("criu cannot be run: {error}")),
        Ok(Ok(ended)) => ended,
    };
    if ended.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&ended.stderr);
    let lines: Vec<&str> = words
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let words: String = lines.join("; ").chars().take(TOLD).collect();
    Err(format!(
        "`criu check` says that this kernel is not to be worked with: {words}"
    ))
}
