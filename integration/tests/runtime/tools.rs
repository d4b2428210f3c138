//! crictl works, and reads well.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use podwright_integration::{images::BUSYBOX, node::Node, tools::Tools};
use serde_json::json;

struct Crictl {
    tools: Tools,
    socket: std::path::PathBuf,
}

impl Crictl {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command: Command = self.tools.crictl_for(&self.socket);
        let output = command
            .args(arguments)
            .output()
            .context("starting crictl")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        ensure!(
            output.status.success(),
            "crictl {} failed: {}",
            arguments.join(" "),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crictl_drives_a_pod_through_its_life() -> Result<()> {
    let tools = tokio::task::spawn_blocking(Tools::open).await??;
    let node = Node::start().await?;
    let crictl = Crictl {
        tools,
        socket: node.daemon.socket(),
    };
    let files = tempfile::tempdir()?;
    let logs = files.path().join("logs").display().to_string();
    let write = |name: &str, content: serde_json::Value| -> Result<String> {
        let path = files.path().join(name);
        fs::write(&path, content.to_string())?;
        Ok(path.display().to_string())
    };
    let pod_file = write(
        "pod.json",
        json!({
            "metadata": { "name": "demo", "namespace": "test", "uid": "1", "attempt": 1 },
            "hostname": "demo", "log_directory": logs, "linux": {},
        }),
    )?;
    let container_file = write(
        "container.json",
        json!({
            "metadata": { "name": "shell" }, "image": { "image": BUSYBOX },
            "command": ["sh", "-c", "echo hello; exec sleep 1000"],
            "log_path": "shell.log", "linux": {},
        }),
    )?;

    assert!(
        crictl
            .run(&["version"])?
            .contains("RuntimeName:  podwright")
    );
    crictl.run(&["info"])?;
    crictl.run(&["pull", BUSYBOX])?;
    assert!(crictl.run(&["images"])?.contains("e2e-test-images/busybox"));
    crictl.run(&["inspecti", BUSYBOX])?;

    let pod = crictl.run(&["runp", &pod_file])?;
    let container = crictl.run(&["create", &pod, &container_file, &pod_file])?;
    crictl.run(&["start", &container])?;
    assert!(crictl.run(&["pods"])?.contains("demo"));
    assert!(crictl.run(&["ps"])?.contains("shell"));
    assert!(
        crictl
            .run(&["inspect", &container])?
            .contains("CONTAINER_RUNNING")
    );
    assert!(crictl.run(&["inspectp", &pod])?.contains("SANDBOX_READY"));
    assert_eq!(crictl.run(&["exec", "-s", &container, "hostname"])?, "demo");
    assert_eq!(crictl.run(&["logs", &container])?, "hello");
    crictl.run(&["stats", "-a"])?;

    crictl.run(&["stop", "-t", "0", &container])?;
    crictl.run(&["rm", &container])?;
    crictl.run(&["stopp", &pod])?;
    crictl.run(&["rmp", &pod])?;
    crictl.run(&["rmi", BUSYBOX])?;
    assert!(!crictl.run(&["images"])?.contains("busybox"));
    node.cri.pull(BUSYBOX).await?;
    node.finish().await
}
