//! Commands in running containers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podwright_cri_api::v1::ContainerState;
use podwright_integration::{
    cri::Pod,
    node::{Node, until},
    patience::{amount, patience},
    pod::{ContainerSpec, PodSpec},
};
use tokio::time::timeout;
use tonic::Code;

use crate::crash::parent;

async fn sleeping() -> Result<(Node, Pod, String)> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    Ok((node, pod, id))
}

#[tokio::test]
async fn output_and_exit_code_come_back() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let done = node
        .cri
        .exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 42"], 10)
        .await?;
    assert_eq!(
        (&done.stdout[..], &done.stderr[..], done.exit_code),
        (&b"out\n"[..], &b"err\n"[..], 42)
    );
    let killed = node.cri.exec(&id, &["sh", "-c", "kill -9 $$"], 10).await?;
    assert_eq!(killed.exit_code, 137);
    node.finish().await
}

#[tokio::test]
async fn standard_input_is_empty() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let done = node.cri.exec(&id, &["cat"], 10).await?;
    assert_eq!((done.exit_code, done.stdout.len()), (0, 0));
    node.finish().await
}

/// Waits until no process of the container has `mark` in its command line.
async fn wait_gone(node: &Node, id: &str, mark: &str) -> Result<()> {
    // pgrep's own command line has the brackets in it.
    let (first, rest) = mark.split_at(1);
    let script = format!("pgrep -f '[{first}]{rest}' || true");
    until("the command's processes to be gone", || async {
        let found = node.cri.shell(id, &script).await;
        let found = found.map_err(|error| error.to_string())?;
        if found.is_empty() {
            Ok(())
        } else {
            Err(format!("still there: {found}"))
        }
    })
    .await
}

/// Children that ignore signals, and such that leave the session or lose their parent, go as well.
#[tokio::test]
async fn a_timeout_kills_all_that_was_started() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    for script in [
        "sleep 4242 & sh -c 'trap \"\" TERM; sleep 4242' & trap '' TERM; sleep 4242",
        "setsid sleep 4242 & sleep 4242",
        "setsid sh -c 'setsid sleep 4242 & sleep 4242' & sleep 4242",
        "(setsid sleep 4242 &); sleep 4242",
        "while :; do setsid sleep 4242 & sleep 0.01; done",
    ] {
        let started = Instant::now();
        let refused = node.cri.exec_for(&id, &["sh", "-c", script], 1).await;
        let took = started.elapsed();
        let refused = refused.unwrap_err();
        assert_eq!(
            refused.code(),
            Code::DeadlineExceeded,
            "{script}: {refused}"
        );
        let deadline = Duration::from_secs(1);
        assert!(
            took >= deadline && took < deadline + patience(Duration::from_secs(1)),
            "{script}: after {took:?}"
        );
        let gone = wait_gone(&node, &id, "sleep 4242").await;
        gone.with_context(|| format!("{script:?} in the container"))?;
    }
    let status = node.cri.status(&id).await?;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    node.finish().await
}

#[tokio::test]
async fn a_command_whose_client_is_gone_is_killed() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let (cri, container) = (node.cri.clone(), id.clone());
    let call = tokio::spawn(async move {
        let script = "setsid sleep 4343 & sleep 4343";
        cri.exec(&container, &["sh", "-c", script], 0).await
    });
    until("the command to run", || async {
        let found = node.cri.shell(&id, "pgrep -fc '^sleep 4343'").await;
        match found {
            Ok(count) if count.trim() == "2" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    call.abort();
    wait_gone(&node, &id, "sleep 4343").await?;
    assert_eq!(node.cri.shell(&id, "echo alive").await?, "alive\n");
    node.finish().await
}

/// A background child holds the pipes; the command itself is done.
#[tokio::test]
async fn a_background_child_does_not_hold_the_call() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let started = Instant::now();
    let done = node
        .cri
        .exec(&id, &["sh", "-c", "echo done; sleep 1000 &"], 20)
        .await?;
    assert_eq!(done.exit_code, 0);
    assert_eq!(done.stdout, b"done\n");
    assert!(
        started.elapsed() < patience(Duration::from_secs(10)),
        "after {:?}",
        started.elapsed()
    );
    node.finish().await
}

#[tokio::test]
async fn large_output_is_bounded() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let request = podwright_cri_api::v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: ["sh", "-c", "head -c 33554432 /dev/zero"]
            .map(str::to_owned)
            .into(),
        timeout: 30,
    };
    // Two streams of 16 MiB do not fit into the kubelet's own 16 MiB, so the limit here is wider.
    let mut runtime = node
        .cri
        .client()
        .runtime
        .max_decoding_message_size(64 << 20);
    match runtime.exec_sync(request).await {
        Ok(done) => assert!(done.into_inner().stdout.len() <= 16 << 20),
        Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}"),
    }
    node.finish().await
}

#[tokio::test]
async fn many_at_once_keep_apart() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let commands: Vec<_> = (0..40)
        .map(|number| format!("echo {number}; exit {number}"))
        .collect();
    let calls = commands.iter().map(|script| {
        let command = ["sh", "-c", script.as_str()];
        let (node, id) = (&node, &id);
        async move { node.cri.exec(id, &command, 20).await }
    });
    for (number, done) in futures_util::future::join_all(calls)
        .await
        .into_iter()
        .enumerate()
    {
        let done = done?;
        assert_eq!(done.exit_code, i32::try_from(number)?);
        assert_eq!(String::from_utf8(done.stdout)?, format!("{number}\n"));
    }
    node.finish().await
}

/// Commands begin a few at a time; those that cannot begin do not keep the places of the others.
#[tokio::test]
async fn commands_of_a_frozen_pod_hold_up_nobody() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let frozen_pod = node.cri.run_pod(PodSpec::new("frozen")).await?;
    let frozen = node.cri.run(&frozen_pod, ContainerSpec::new("c")).await?;
    let pause = parent(node.cri.container_pid(&frozen).await?)?;
    kill(pause, Signal::SIGSTOP)?;
    let hung = (0..amount(200)).map(|_| node.cri.exec(&frozen, &["true"], 60));
    let mut hung = Box::pin(futures_util::future::try_join_all(hung));
    let others = async {
        for _ in 0..10 {
            let done = node.cri.exec(&id, &["true"], 10).await?;
            assert_eq!(done.exit_code, 0);
        }
        anyhow::Ok(())
    };
    tokio::select! {
        // The others are sent behind these, on the same connection.
        biased;
        done = hung.as_mut() => bail!("a frozen pod executes: {done:?}"),
        done = timeout(patience(Duration::from_secs(10)), others) => done.context("others wait")??,
    }
    kill(pause, Signal::SIGCONT)?;
    for done in hung.await? {
        assert_eq!(done.exit_code, 0);
    }
    node.finish().await
}

/// A daemon that does not read for a moment, for it waits for the kernel or for a processor, is not the end of a pod.
#[tokio::test]
async fn commands_that_end_while_the_daemon_is_busy_are_told_later() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let commands = amount(600);
    let calls = (0..commands).map(|_| node.cri.exec(&id, &["sleep", "4242"], 120));
    let mut calls = Box::pin(futures_util::future::try_join_all(calls));
    let all_sleep = until("all commands to sleep", || async {
        let sleeping = sleeping_commands(&node).map_err(|error| format!("{error:#}"))?;
        match sleeping.len() == commands {
            true => Ok(sleeping),
            false => Err(format!("{} of {commands} do", sleeping.len())),
        }
    });
    let sleeping = tokio::select! {
        done = calls.as_mut() => bail!("the commands have ended: {done:?}"),
        sleeping = all_sleep => sleeping?,
    };
    let daemon = Pid::from_raw(
        node.daemon
            .pid()
            .context("there is no daemon")?
            .try_into()?,
    );
    kill(daemon, Signal::SIGSTOP)?;
    for pid in sleeping {
        kill(pid, Signal::SIGKILL)?;
    }
    until("all commands to be gone", || async {
        match sleeping_commands(&node) {
            Ok(left) if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await?;
    kill(daemon, Signal::SIGCONT)?;
    for done in calls.await? {
        assert_eq!(done.exit_code, 137);
    }
    assert_eq!(node.cri.exec(&id, &["true"], 10).await?.exit_code, 0);
    node.finish().await
}

/// The processes in the groups of commands that have become `sleep`.
fn sleeping_commands(node: &Node) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for group in node.daemon.slot().exec_groups()? {
        // One that is gone meanwhile has no processes.
        let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.trim() == "sleep" {
                found.push(Pid::from_raw(pid.parse()?));
            }
        }
    }
    Ok(found)
}

/// The group that a command of its own is in, by the line of /proc/PID/cgroup; and what it has started besides stays there.
async fn exec_group(node: &Node, id: &str, besides: &str) -> Result<String> {
    let script = format!("{besides} cat /proc/self/cgroup");
    let groups = node.cri.shell(id, &script).await?;
    let mut own = groups.lines().filter(|line| line.contains("/exec-"));
    match (own.next(), own.next()) {
        (Some(line), None) => Ok(line.to_owned()),
        _ => bail!("a command is not in one group of its own: {groups}"),
    }
}

/// Where there is cgroup v2; v1 alone does not tell which groups are empty.
#[tokio::test]
async fn a_command_s_group_is_the_next_one_s_if_it_is_empty() -> Result<()> {
    let (mut node, _, id) = sleeping().await?;
    let first = exec_group(&node, &id, "").await?;
    assert_eq!(exec_group(&node, &id, "").await?, first);
    let leaving = "sleep 4242 >/dev/null 2>&1 &";
    assert_eq!(exec_group(&node, &id, leaving).await?, first);
    let second = exec_group(&node, &id, "").await?;
    assert_ne!(second, first, "it has a process that was left behind");
    assert_eq!(exec_group(&node, &id, "").await?, second);
    // Two at once have one each, and what the deadline of one ends is not the other's.
    let long = node.cri.exec_for(&id, &["sleep", "4242"], 1);
    let (ended, beside) = tokio::join!(long, exec_group(&node, &id, "sleep 2;"));
    assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
    beside?;
    let left = node.cri.shell(&id, "pgrep -fc '[s]leep 4242'").await?;
    assert_eq!(left.trim(), "1");

    // A new daemon has its own, and removes those that are empty.
    node.daemon.kill9().await?;
    node.daemon.restart().await?;
    let groups = node.daemon.slot().exec_groups()?;
    assert_eq!(groups.len(), 1, "{groups:?}");
    let third = exec_group(&node, &id, "").await?;
    assert!(third != first && third != second, "{third}");
    node.finish().await
}
