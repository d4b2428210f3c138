//! The launch plan of a command in a container that runs.

use std::path::PathBuf;

use podwright_pause::plan::{LaunchPlan, PidNamespace, Process, Stdio};
#[cfg(feature = "next-protocol")]
use podwright_pause::wire::Bytes;

/// What a container's plan says of every process in it.
#[derive(Debug)]
pub(crate) struct CommandBase {
    oom_score_adj: Option<i32>,
    /// Without arguments.
    process: Process,
}

impl CommandBase {
    /// Of a container with this plan.
    pub(crate) fn of(container: &LaunchPlan) -> Self {
        let process = container.process.clone();
        Self {
            oom_score_adj: container.oom_score_adj,
            process: Process {
                argv: Vec::new(),
                ..process
            },
        }
    }

    /// The plan of another process in the container, in these groups.
    pub(crate) fn plan(&self, command: &[String], join_files: &[PathBuf]) -> LaunchPlan {
        let argv = command
            .iter()
            .map(|argument| argument.as_str().into())
            .collect();
        LaunchPlan {
            new_namespaces: 0,
            // The container's own: pause sees to it.
            pid_namespace: PidNamespace::Host,
            cgroup_procs: join_files
                .iter()
                .map(|path| path.as_path().into())
                .collect(),
            oom_score_adj: self.oom_score_adj,
            steps: Vec::new(),
            process: Process {
                argv,
                ..self.process.clone()
            },
            stdio: Stdio::Passed,
            #[cfg(feature = "next-protocol")]
            rehearsal: Bytes::default(),
        }
    }
}
