//! Pods and containers from their making to their removal.

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, ListContainersRequest,
    ListPodSandboxRequest, PodSandboxFilter, PodSandboxState, PodSandboxStateValue, Signal,
    StatusRequest, VersionRequest,
};
use podwright_integration::{
    node::{Node, until},
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

#[tokio::test]
async fn a_container_goes_through_its_states() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    assert_eq!(
        node.cri.pod_status(&pod.id).await?.state(),
        PodSandboxState::SandboxReady
    );

    let id = node
        .cri
        .create(&pod, ContainerSpec::new("c").shell("exit 7"))
        .await?;
    let created = node.cri.status(&id).await?;
    assert_eq!(created.state(), ContainerState::ContainerCreated);
    assert_eq!((created.started_at, created.finished_at), (0, 0));

    node.cri.start_container(&id).await?;
    let ended = node.cri.wait_exit(&id).await?;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (7, "Error"));
    assert!(0 < created.created_at && created.created_at <= ended.started_at);
    assert!(ended.started_at <= ended.finished_at);

    node.cri.remove(&id).await?;
    assert_eq!(
        node.cri.status(&id).await.unwrap_err().code(),
        Code::NotFound
    );
    node.cri.stop_pod(&pod.id).await?;
    assert_eq!(
        node.cri.pod_status(&pod.id).await?.state(),
        PodSandboxState::SandboxNotready
    );
    node.cri.remove_pod(&pod.id).await?;
    assert_eq!(
        node.cri.pod_status(&pod.id).await.unwrap_err().code(),
        Code::NotFound
    );
    node.finish().await
}

#[tokio::test]
async fn exit_codes_tell_how_it_ended() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for (name, script, code, reason) in [
        ("zero", "exit 0", 0, "Completed"),
        ("most", "exit 255", 255, "Error"),
        // The shell is the first process of a PID namespace, so it has to be killed from outside.
        ("signal", "sh -c 'kill -9 $$'; exit $?", 137, "Error"),
    ] {
        let id = node
            .cri
            .run(&pod, ContainerSpec::new(name).shell(script))
            .await?;
        let ended = node.cri.wait_exit(&id).await?;
        assert_eq!(
            (ended.exit_code, ended.reason.as_str()),
            (code, reason),
            "{name}"
        );
    }
    node.finish().await
}

#[tokio::test]
async fn stop_gives_a_grace_period_and_then_kills() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let polite = ContainerSpec::new("polite")
        .shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done");
    let polite = node.cri.run(&pod, polite).await?;
    wait_for_output(&node, &polite, "ready").await?;
    node.cri.stop(&polite, 20).await?;
    let status = node.cri.status(&polite).await?;
    assert_eq!(
        (status.state(), status.exit_code),
        (ContainerState::ContainerExited, 3)
    );

    let deaf =
        ContainerSpec::new("deaf").shell("trap '' TERM; echo ready; while :; do sleep 0.1; done");
    let deaf = node.cri.run(&pod, deaf).await?;
    wait_for_output(&node, &deaf, "ready").await?;
    node.cri.stop(&deaf, 1).await?;
    assert_eq!(node.cri.status(&deaf).await?.exit_code, 137);
    node.finish().await
}

async fn wait_for_output(node: &Node, id: &str, text: &str) -> Result<()> {
    podwright_integration::node::until("output", || async {
        let lines = node
            .cri
            .logs(id)
            .await
            .map_err(|error| format!("{error:#}"))?;
        if lines.iter().any(|line| line.text == text) {
            Ok(())
        } else {
            Err(format!("{lines:?}"))
        }
    })
    .await
}

#[tokio::test]
async fn stop_and_remove_may_be_repeated() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    for _ in 0..2 {
        node.cri.stop(&id, 0).await?;
    }
    for _ in 0..2 {
        node.cri.remove(&id).await?;
    }
    node.cri.stop(&id, 0).await?;
    for _ in 0..2 {
        node.cri.stop_pod(&pod.id).await?;
    }
    for _ in 0..2 {
        node.cri.remove_pod(&pod.id).await?;
    }
    node.cri.stop_pod(&pod.id).await?;
    let absent = "0".repeat(64);
    node.cri.stop(&absent, 0).await?;
    node.cri.remove(&absent).await?;
    node.cri.stop_pod(&absent).await?;
    node.cri.remove_pod(&absent).await?;
    node.finish().await
}

#[tokio::test]
async fn a_retried_call_finds_the_first_ones_result() -> Result<()> {
    let node = Node::start().await?;
    let spec = PodSpec::new("pod");
    let (first, second) = tokio::join!(
        node.cri.run_pod(spec.clone()),
        node.cri.run_pod(spec.clone())
    );
    let (first, second) = (first?, second?);
    assert_eq!(first.id, second.id);
    assert_eq!(node.cri.run_pod(spec).await?.id, first.id);

    let container = ContainerSpec::new("c");
    let one = node.cri.create(&first, container.clone()).await?;
    assert_eq!(node.cri.create(&first, container.clone()).await?, one);
    let other = node.cri.create(&first, container.attempt(1)).await?;
    assert_ne!(other, one);
    node.finish().await
}

#[tokio::test]
async fn removing_a_pod_takes_its_running_containers() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node
        .cri
        .run(
            &pod,
            ContainerSpec::new("c").shell("sleep 1000 & sleep 1000"),
        )
        .await?;
    node.cri.remove_pod(&pod.id).await?;
    assert_eq!(
        node.cri.status(&id).await.unwrap_err().code(),
        Code::NotFound
    );
    node.finish().await
}

#[tokio::test]
async fn a_stopped_pod_takes_no_container() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let created = node.cri.create(&pod, ContainerSpec::new("early")).await?;
    node.cri.stop_pod(&pod.id).await?;
    assert_eq!(
        node.cri
            .create(&pod, ContainerSpec::new("late"))
            .await
            .unwrap_err()
            .code(),
        Code::FailedPrecondition
    );
    assert!(node.cri.start_container(&created).await.is_err());
    node.finish().await
}

#[tokio::test]
async fn a_container_starts_once() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    // A retried call finds what the first one did.
    node.cri.start_container(&id).await?;
    node.cri.stop(&id, 0).await?;
    assert_eq!(
        node.cri.start_container(&id).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    node.finish().await
}

#[tokio::test]
async fn pods_are_listed_by_every_filter() -> Result<()> {
    let node = Node::start().await?;
    let a = node
        .cri
        .run_pod(PodSpec::new("a").label("app", "x").label("tier", "1"))
        .await?;
    let b = node
        .cri
        .run_pod(PodSpec::new("b").label("app", "x"))
        .await?;
    node.cri.stop_pod(&b.id).await?;
    let state = |state: PodSandboxState| {
        Some(PodSandboxStateValue {
            state: state.into(),
        })
    };
    let labels = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    };
    let all = PodSandboxFilter::default();
    for (filter, expected) in [
        (all.clone(), vec![&a.id, &b.id]),
        (
            PodSandboxFilter {
                id: a.id[..13].to_owned(),
                ..all.clone()
            },
            vec![&a.id],
        ),
        (
            PodSandboxFilter {
                state: state(PodSandboxState::SandboxReady),
                ..all.clone()
            },
            vec![&a.id],
        ),
        (
            PodSandboxFilter {
                state: state(PodSandboxState::SandboxNotready),
                ..all.clone()
            },
            vec![&b.id],
        ),
        (
            PodSandboxFilter {
                label_selector: labels(&[("app", "x")]),
                ..all.clone()
            },
            vec![&a.id, &b.id],
        ),
        (
            PodSandboxFilter {
                label_selector: labels(&[("app", "x"), ("tier", "1")]),
                ..all.clone()
            },
            vec![&a.id],
        ),
        (
            PodSandboxFilter {
                label_selector: labels(&[("app", "y")]),
                ..all.clone()
            },
            vec![],
        ),
        (
            PodSandboxFilter {
                id: "f".repeat(64),
                ..all
            },
            vec![],
        ),
    ] {
        let request = ListPodSandboxRequest {
            filter: Some(filter.clone()),
        };
        let items = node
            .cri
            .client()
            .runtime
            .list_pod_sandbox(request)
            .await?
            .into_inner()
            .items;
        let mut found: Vec<_> = items.iter().map(|pod| &pod.id).collect();
        let mut expected = expected;
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{filter:?}");
    }
    node.finish().await
}

#[tokio::test]
async fn containers_are_listed_by_every_filter() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("a")).await?;
    let other = node.cri.run_pod(PodSpec::new("b")).await?;
    let running = node
        .cri
        .run(&pod, ContainerSpec::new("r").label("app", "x"))
        .await?;
    let created = node.cri.create(&pod, ContainerSpec::new("c")).await?;
    let elsewhere = node
        .cri
        .create(&other, ContainerSpec::new("c").label("app", "x"))
        .await?;
    let state = |state: ContainerState| {
        Some(ContainerStateValue {
            state: state.into(),
        })
    };
    let all = ContainerFilter::default();
    let label_selector = [("app".to_owned(), "x".to_owned())].into();
    for (filter, expected) in [
        (all.clone(), vec![&running, &created, &elsewhere]),
        (
            ContainerFilter {
                id: running.clone(),
                ..all.clone()
            },
            vec![&running],
        ),
        (
            ContainerFilter {
                pod_sandbox_id: pod.id.clone(),
                ..all.clone()
            },
            vec![&running, &created],
        ),
        (
            ContainerFilter {
                state: state(ContainerState::ContainerRunning),
                ..all.clone()
            },
            vec![&running],
        ),
        (
            ContainerFilter {
                label_selector,
                ..all.clone()
            },
            vec![&running, &elsewhere],
        ),
        (
            ContainerFilter {
                pod_sandbox_id: pod.id.clone(),
                state: state(ContainerState::ContainerCreated),
                ..all
            },
            vec![&created],
        ),
    ] {
        let request = ListContainersRequest {
            filter: Some(filter.clone()),
        };
        let items = node
            .cri
            .client()
            .runtime
            .list_containers(request)
            .await?
            .into_inner()
            .containers;
        let mut found: Vec<_> = items.iter().map(|container| &container.id).collect();
        let mut expected = expected;
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{filter:?}");
    }
    node.finish().await
}

#[tokio::test]
async fn the_runtime_tells_who_and_how_it_is() -> Result<()> {
    let node = Node::start().await?;
    let mut runtime = node.cri.client().runtime;
    let version = runtime
        .version(VersionRequest::default())
        .await?
        .into_inner();
    assert_eq!(
        (
            version.runtime_name.as_str(),
            version.runtime_api_version.as_str()
        ),
        ("podwright", "v1")
    );
    let status = runtime
        .status(StatusRequest { verbose: true })
        .await?
        .into_inner();
    let conditions = status.status.unwrap().conditions;
    for name in ["RuntimeReady", "NetworkReady"] {
        assert!(
            conditions.iter().any(|c| c.r#type == name && c.status),
            "{name}: {conditions:?}"
        );
    }
    assert!(!status.info.is_empty());
    node.finish().await
}

#[tokio::test]
async fn the_environment_is_the_images_and_the_requests() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let spec = ContainerSpec::new("c")
        .env("A", "1")
        .env("A", "2")
        .env("B", "x y");
    let id = node.cri.run(&pod, spec).await?;
    let printed = node
        .cri
        .shell(&id, "echo $A; echo $B; echo $PATH; hostname; pwd")
        .await?;
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[..2], ["2", "x y"]);
    assert!(lines[2].contains("/usr/bin"), "{printed}");
    assert_eq!(lines[3..], ["pod", "/"]);
    node.finish().await
}

#[tokio::test]
async fn the_stop_signal_is_the_requests_and_told() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let plain = node.cri.create(&pod, ContainerSpec::new("plain")).await?;
    assert_eq!(
        node.cri.status(&plain).await?.stop_signal(),
        Signal::Sigterm
    );
    let mut spec =
        ContainerSpec::new("c").shell("trap 'exit 37' 37; echo ready; while :; do sleep 0.1; done");
    spec.config.stop_signal = Signal::Sigrtminplus3.into();
    let id = node.cri.run(&pod, spec).await?;
    until("the trap to be set", || async {
        let lines = node
            .cri
            .logs(&id)
            .await
            .map_err(|error| error.to_string())?;
        if lines.is_empty() {
            Err("no line yet".to_owned())
        } else {
            Ok(())
        }
    })
    .await?;
    assert_eq!(
        node.cri.status(&id).await?.stop_signal(),
        Signal::Sigrtminplus3
    );
    node.cri.stop(&id, 20).await?;
    let ended = node.cri.wait_exit(&id).await?;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (37, "Error"));
    node.finish().await
}

/// Shells and units leave a soft limit of 1,024 as a rule, which some hundred pods use up.
#[tokio::test]
async fn the_daemon_takes_its_hard_limit_of_open_files_and_containers_do_not() -> Result<()> {
    let mut node = Node::start().await?;
    node.daemon.terminate().await?;
    node.daemon
        .restart_under(&["prlimit", "--nofile=64:4096"])
        .await?;
    let pid = node.daemon.pid().context("the daemon has ended")?;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .context("no limit of open files")?;
    let values: Vec<_> = files.split_whitespace().collect();
    assert_eq!(values, ["4096", "4096", "files"]);

    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let inside = node.cri.shell(&id, "ulimit -Sn; ulimit -Hn").await?;
    assert_eq!(inside, "1024\n4096\n");
    node.finish().await
}
