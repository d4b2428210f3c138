//! Checkpoints: what is missing for them is said, and nothing is left.

use std::process::Command;

use anyhow::Result;
use podwright_cri_api::v1::{CheckpointContainerRequest, CheckpointPodRequest, RestorePodRequest};
use podwright_integration::{
    node::Node,
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

/// What the refusal must say on this machine.
fn expected() -> &'static str {
    match Command::new("criu").arg("check").output() {
        Err(_) => "no criu",
        Ok(output) if output.status.success() => "does not drive it",
        Ok(_) => "criu check",
    }
}

#[tokio::test]
async fn what_is_missing_for_a_checkpoint_is_named() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let location = node.daemon.slot().path("checkpoint.tar");
    let path = location.display().to_string();
    let mut runtime = node.cri.client().runtime;
    let of_container = |container_id: &str, location: &str| CheckpointContainerRequest {
        container_id: container_id.to_owned(),
        location: location.to_owned(),
        timeout: 5,
    };
    let refused = runtime
        .checkpoint_container(of_container(&id, &path))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains(expected()), "{refused}");
    assert!(!location.exists());
    // It goes on as if nothing had been asked.
    assert_eq!(node.cri.shell(&id, "echo alive").await?, "alive\n");

    for (request, code) in [
        (of_container("absent", &path), Code::NotFound),
        (of_container(&id, "relative.tar"), Code::InvalidArgument),
        (of_container(&id, "/etc/passwd"), Code::AlreadyExists),
    ] {
        let refused = runtime.checkpoint_container(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    let request = CheckpointPodRequest {
        pod_sandbox_id: pod.id.clone(),
        output_path: path.clone(),
        ..CheckpointPodRequest::default()
    };
    let refused = runtime.checkpoint_pod(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains(expected()), "{refused}");
    for (checkpoint_path, code) in [
        (path.as_str(), Code::NotFound),
        ("/etc/passwd", Code::FailedPrecondition),
    ] {
        let request = RestorePodRequest {
            checkpoint_path: checkpoint_path.to_owned(),
            ..RestorePodRequest::default()
        };
        let refused = runtime.restore_pod(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    node.cri.stop(&id, 0).await?;
    let refused = runtime
        .checkpoint_container(of_container(&id, &path))
        .await
        .unwrap_err();
    assert!(refused.message().contains("does not run"), "{refused}");
    node.finish().await
}
