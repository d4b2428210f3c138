//! crictl against a node of its own, which notes the commands that it runs.

use std::{
    collections::BTreeSet,
    fs,
    process::{Output, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use podwright_integration::{
    images::BUSYBOX,
    node::{Node, deadline},
    tools::Tools,
};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use super::process::Background;

/// A chapter of the tour.
pub(super) struct Crictl {
    pub(super) node: Node,
    tools: Tools,
    files: tempfile::TempDir,
    planned: &'static [&'static str],
    used: Mutex<BTreeSet<String>>,
}

impl Crictl {
    /// A node for a chapter that runs the commands `planned`.
    pub(super) async fn start(planned: &'static [&'static str]) -> Result<Self> {
        let tools = tokio::task::spawn_blocking(Tools::open).await??;
        Ok(Self {
            node: Node::start().await?,
            tools,
            files: tempfile::tempdir()?,
            planned,
            used: Mutex::default(),
        })
    }

    /// Checks that every planned command has run, and that the node is clean.
    pub(super) async fn finish(self) -> Result<()> {
        let used = self.used.into_inner();
        let planned: BTreeSet<_> = self.planned.iter().map(ToString::to_string).collect();
        assert_eq!(
            used.unwrap_or_else(PoisonError::into_inner),
            planned,
            "the commands that ran"
        );
        self.node.finish().await
    }

    /// `crictl arguments`, which begin with the command.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let command = arguments.first().map(ToString::to_string);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.extend(command);
        let mut crictl = Command::from(self.tools.crictl_for(&self.node.daemon.socket()));
        crictl.args(arguments).stdin(Stdio::null());
        crictl.kill_on_drop(true);
        crictl
    }

    /// crictl without any options of ours: a test of those.
    pub(super) fn bare(&self) -> Command {
        Command::new(self.tools.crictl())
    }

    /// Runs to the end with success; what it prints, without blanks around it.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = finished(self.command(arguments)).await?;
        succeeded(&arguments.join(" "), &output)
    }

    /// The same, parsed.
    pub(super) async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(arguments).await?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} is no JSON: {text}"))
    }

    /// The lines that it prints.
    pub(super) async fn lines(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let text = self.run(arguments).await?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Runs to the end with a failure; what it says on standard error.
    pub(super) async fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = finished(self.command(arguments)).await?;
        ensure!(!output.status.success(), "{arguments:?} has succeeded");
        Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Starts what goes on until it is told to end.
    pub(super) fn background(&self, arguments: &[&str]) -> Result<Background> {
        Background::start(self.command(arguments))
    }

    /// A file of a JSON document.
    pub(super) fn file(&self, name: &str, content: &Value) -> Result<String> {
        let path = self.files.path().join(name);
        fs::write(&path, content.to_string())?;
        Ok(path.display().to_string())
    }

    /// A path that is removed at the end.
    pub(super) fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// The file of a pod's configuration.
    pub(super) fn pod_file(&self, name: &str) -> Result<String> {
        let logs = self.files.path().join("logs").join(name);
        let pod = json!({
            "metadata": { "name": name, "namespace": "tour", "uid": format!("uid-{name}"), "attempt": 2 },
            "hostname": name, "log_directory": logs.display().to_string(),
            "labels": { "tour": name }, "annotations": { "note": "of a tour" }, "linux": {},
        });
        self.file(&format!("pod-{name}.json"), &pod)
    }

    /// The file of a container's configuration: a shell script, and what differs from other containers.
    pub(super) fn container_file(&self, name: &str, script: &str, other: Value) -> Result<String> {
        let mut container = json!({
            "metadata": { "name": name }, "image": { "image": BUSYBOX },
            "command": ["sh", "-c", script], "log_path": format!("{name}.log"),
            "labels": { "tour": name },
            "linux": { "security_context": { "namespace_options": { "pid": 1 } } },
        });
        if let (Some(to), Value::Object(other)) = (container.as_object_mut(), other) {
            to.extend(other);
        }
        self.file(&format!("container-{name}.json"), &container)
    }

    /// The id of a new pod, made by the CRI itself.
    pub(super) async fn pod(&self, name: &str) -> Result<podwright_integration::cri::Pod> {
        let spec = podwright_integration::pod::PodSpec::new(name).label("tour", name);
        Ok(self.node.cri.run_pod(spec).await?)
    }
}

/// The output of a command that ends in time.
pub(super) async fn finished(mut command: Command) -> Result<Output> {
    timeout(deadline(), command.output())
        .await
        .with_context(|| format!("{command:?} does not end"))?
        .context("starting crictl")
}

/// What a successful command printed, without blanks around it.
pub(super) fn succeeded(what: &str, output: &Output) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(
        output.status.success(),
        "crictl {what} failed ({}): {}",
        output.status,
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}
