//! A command in a running container, for ExecSync and for streamed sessions. Whoever has it waits for it; when nobody does
//! any more, the command is killed with all that it started.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podwright_pause::plan::{LaunchPlan, Stdio, Step};
use podwright_pause::protocol::{Exit, Target};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::Container;
use super::turns::Turn;
use crate::cgroup::ExecGroup;
use crate::error::{CallError, Context, Kind, chain};
use crate::node::Node;
use crate::pause::{Exec, Pause};

/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(5);

/// What a command's standard streams are.
pub(crate) enum ExecStdio {
    /// These descriptors are its 0, 1 and 2.
    Given([OwnedFd; 3]),
    /// A terminal of its own.
    Terminal,
}

/// Starts a command; with a terminal, gives the terminal's master too.
pub(crate) async fn start_exec(
    node: &Arc<Node>,
    container: &Arc<Container>,
    command: Vec<String>,
    stdio: ExecStdio,
) -> Result<(Running, Option<OwnedFd>), CallError> {
    container.require_running("execute a command")?;
    let pause = container.sandbox.require_pause("execute a command")?;
    // A client that goes away meanwhile takes its command with it.
    let turn = node.turns.next(&container.late).await;
    // Begun to the end even when the client goes away meanwhile; what has begun is then killed by its guard.
    let begun = tokio::spawn(begin(
        Arc::clone(node),
        Arc::clone(container),
        pause,
        turn,
        command,
        stdio,
    ));
    begun.await.internal(|| failed(container))?
}

/// What goes wrong with a command.
pub(crate) fn failed(container: &Container) -> String {
    format!("cannot execute a command in the container {}", container.id)
}

async fn begin(
    node: Arc<Node>,
    container: Arc<Container>,
    pause: Arc<Pause>,
    turn: Turn,
    command: Vec<String>,
    stdio: ExecStdio,
) -> Result<(Running, Option<OwnedFd>), CallError> {
    let group = container
        .exec_groups
        .take()
        .internal(|| failed(&container))?;
    let base = container.command_base(&node)?;
    let (streams, terminal): (Vec<BorrowedFd<'_>>, bool) = match &stdio {
        ExecStdio::Given(streams) => (streams.iter().map(AsFd::as_fd).collect(), false),
        ExecStdio::Terminal => (Vec::new(), true),
    };
    let plan = |groups: &[PathBuf]| {
        let mut plan = base.plan(&command, groups);
        if terminal {
            take_terminal(&mut plan);
        }
        plan
    };
    let begun = turn.spend(&container.late, async {
        let own = plan(&group.join_files());
        let exec = pause.exec(&container.id, &own, &streams).await;
        if !matches!(&exec, Err(error) if error.errno() == Some(libc::EOPNOTSUPP)) {
            return exec;
        }
        // A container that has made threaded groups below its own: beside them there can be no other kind (cgroups(7)), so the
        // command is where the container's first process is.
        let shared = plan(&container.cgroup.join_files());
        pause.exec(&container.id, &shared, &streams).await
    });
    let Exec {
        number,
        end,
        terminal,
    } = begun.await.map_err(|error| {
        // The group goes: a pause that has not answered in time may still begin the command, which must not be in another's.
        let kind = match error.errno() {
            Some(libc::ESRCH) => Kind::FailedPrecondition,
            errno => super::start::launch_failure(errno),
        };
        CallError::caused(kind, failed(&container), error)
    })?;
    let running = Running {
        container,
        pause,
        number,
        group: Some(group),
        end,
        kills: node.kills.clone(),
    };
    Ok((running, terminal))
}

/// Makes it the plan of a command with a terminal. Its size comes from the client, later.
fn take_terminal(plan: &mut LaunchPlan) {
    plan.stdio = Stdio::Terminal;
    plan.steps = vec![Step::Terminal {
        rows: 0,
        columns: 0,
    }];
    let env = &mut plan.process.env;
    if !env.iter().any(|variable| variable.0.starts_with(b"TERM=")) {
        env.push("TERM=xterm".into());
    }
}

/// The end of a command was not seen.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the pod, or the connection to its pause process, ended with the command")]
pub(crate) struct Unseen;

/// A command that is killed when nobody waits for it any more: its client's deadline has passed, or the client is gone.
pub(crate) struct Running {
    container: Arc<Container>,
    pause: Arc<Pause>,
    number: u64,
    /// Taken when the command has ended or is being killed.
    group: Option<ExecGroup>,
    end: oneshot::Receiver<Exit>,
    kills: TaskTracker,
}

impl Running {
    /// Waits for its end. What it leaves behind is its container's from then on.
    ///
    /// # Errors
    /// The pod has ended with it, or the connection to pause, which then kills all that it started.
    pub(crate) async fn ended(&mut self) -> Result<Exit, Unseen> {
        let exit = (&mut self.end).await.map_err(|_| Unseen)?;
        if let Some(group) = self.group.take() {
            self.container.exec_groups.give_back(group);
        }
        Ok(exit)
    }

    /// For signals and the terminal's size.
    pub(crate) fn target(&self) -> (&Arc<Pause>, Target) {
        (&self.pause, Target::Exec { exec: self.number })
    }

    /// Kills the command and all that it started.
    pub(crate) fn kill(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let group = self.group.take();
        let (container, pause, number) = (
            Arc::clone(&self.container),
            Arc::clone(&self.pause),
            self.number,
        );
        async move {
            let Some(group) = group else { return };
            let killed = tokio::task::spawn_blocking(move || group.kill(KILLED)).await;
            if let Ok(Err(error)) = killed {
                tracing::warn!(container = %container.id, error = %chain(&error), "a command that nobody waits for is not wholly killed");
            }
            if let Err(error) = pause
                .signal(Target::Exec { exec: number }, libc::SIGKILL)
                .await
            {
                tracing::debug!(container = %container.id, error = %chain(&error), "the command had ended");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.group.is_some() {
            let kill = self.kill();
            self.kills.spawn(kill);
        }
    }
}
