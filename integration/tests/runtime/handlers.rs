//! Runtime handlers, as a RuntimeClass names them.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use podwright_cri_api::v1::{
    ListPodSandboxRequest, NamespaceMode, PodSandboxState, RuntimeHandler, StatusRequest,
    UserNamespace,
};
use podwright_integration::{
    node::Node,
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

/// Lines of /proc/1/status in a container that say what binds its first process.
async fn seccomp_mode(node: &Node, container: &str) -> Result<String> {
    let text = node
        .cri
        .shell(container, "grep ^Seccomp: /proc/1/status")
        .await?;
    Ok(text.trim_start_matches("Seccomp:").trim().to_owned())
}

async fn handlers(node: &Node) -> Result<Vec<RuntimeHandler>> {
    let status = node
        .cri
        .client()
        .runtime
        .status(StatusRequest::default())
        .await?;
    Ok(status.into_inner().runtime_handlers)
}

#[tokio::test]
async fn a_pod_gets_what_its_handler_says_and_keeps_it() -> Result<()> {
    let sections = "[handlers.strict.pods]\nseccomp = \"RuntimeDefault\"\npids_limit = 7\n";
    let mut node = Node::start_configured(sections).await?;
    let names: Vec<_> = handlers(&node)
        .await?
        .into_iter()
        .map(|handler| handler.name)
        .collect();
    assert_eq!(names, ["", "strict"]);

    let plain = node.cri.run_pod(PodSpec::new("plain")).await?;
    let strict = node
        .cri
        .run_pod_with(PodSpec::new("strict"), "strict")
        .await?;
    let free = node.cri.run(&plain, ContainerSpec::new("c")).await?;
    let bound = node.cri.run(&strict, ContainerSpec::new("c")).await?;
    assert_eq!(seccomp_mode(&node, &free).await?, "0");
    assert_eq!(seccomp_mode(&node, &bound).await?, "2");
    let forks = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done";
    let refused = node.cri.exec(&bound, &["sh", "-c", forks], 20).await?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.exit_code != 0 && words.contains("fork"),
        "{refused:?}"
    );

    // The handler's name outlives a restart, and also its configuration.
    for sections in [sections, ""] {
        node.daemon.terminate().await?;
        node.daemon.configure(sections)?;
        node.daemon.restart().await?;
        assert_eq!(
            node.cri.pod_status(&strict.id).await?.runtime_handler,
            "strict"
        );
    }
    let list = ListPodSandboxRequest::default();
    let list = node
        .cri
        .client()
        .runtime
        .list_pod_sandbox(list)
        .await?
        .into_inner()
        .items;
    let listed = list
        .iter()
        .find(|pod| pod.id == strict.id)
        .context("not listed")?;
    assert_eq!(listed.runtime_handler, "strict");
    assert!(
        node.daemon
            .log()
            .contains("no longer has the pod's runtime handler")
    );
    let more = node.cri.run(&strict, ContainerSpec::new("more")).await?;
    assert_eq!(seccomp_mode(&node, &more).await?, "0");
    node.finish().await
}

#[tokio::test]
async fn an_unknown_handler_is_refused_by_name() -> Result<()> {
    let node = Node::start_configured("[handlers.isolated.pods]\n").await?;
    let refused = node
        .cri
        .run_pod_with(PodSpec::new("pod"), "runc")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    for part in ["no runtime for \"runc\" is configured", "isolated"] {
        assert!(refused.message().contains(part), "{refused}");
    }
    // The name is free: nothing was made.
    node.cri.run_pod(PodSpec::new("pod")).await?;
    node.finish().await
}

#[tokio::test]
async fn a_pod_is_another_with_another_handler() -> Result<()> {
    let node = Node::start_configured("[handlers.other.pods]\n").await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let same = node.cri.run_pod(pod.spec.clone()).await?;
    assert_eq!(same.id, pod.id);
    let refused = node
        .cri
        .run_pod_with(pod.spec.clone(), "other")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.message().contains("handler"), "{refused}");
    node.finish().await
}

#[tokio::test]
async fn user_namespaces_can_be_refused_and_required() -> Result<()> {
    let sections = "[pods]\nuser_namespaces = \"refused\"\n\
                    [handlers.mapped.pods]\nuser_namespaces = \"required\"\n";
    let node = Node::start_configured(sections).await?;
    let mut mapped = PodSpec::new("mapped");
    mapped.namespaces().userns_options = Some(UserNamespace {
        mode: NamespaceMode::Pod.into(),
        ..UserNamespace::default()
    });
    for (spec, handler, word) in [
        (mapped, "", "refused"),
        (PodSpec::new("plain"), "mapped", "required"),
    ] {
        let refused = node.cri.run_pod_with(spec, handler).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(word), "{refused}");
    }
    let told = handlers(&node).await?;
    let features = told[0].features.context("no features")?;
    assert!(!features.user_namespaces && features.recursive_read_only_mounts);
    node.finish().await
}

#[tokio::test]
async fn pods_are_made_in_their_handlers_cgroup() -> Result<()> {
    let mut node = Node::start().await?;
    let root = format!("{}/of-handler", node.daemon.slot().cgroup());
    node.daemon.terminate().await?;
    node.daemon
        .configure(&format!("[handlers.other.cgroup]\nroot = {root:?}\n"))?;
    node.daemon.restart().await?;
    // The handler's own cgroup stays when its pods go, as the general one does.
    node.cri
        .run_pod_with(PodSpec::new("first"), "other")
        .await?;
    node.cri.remove_all_pods().await?;
    node.settle()?;
    let pod = node.cri.run_pod_with(PodSpec::new("pod"), "other").await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let pid = node.cri.container_pid(&id).await?;
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    assert!(table.contains(&root), "{table}");
    // A pod that dies while no daemon runs is found below it, too.
    node.daemon.kill9().await?;
    kill(crate::crash::parent(pid)?, Signal::SIGKILL)?;
    node.daemon.restart().await?;
    let state = node.cri.pod_status(&pod.id).await?.state();
    assert_eq!(state, PodSandboxState::SandboxNotready);
    node.finish().await
}
