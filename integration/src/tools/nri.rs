//! A plugin of the Node Resource Interface, built from `integration/tools/nri-plugin` with the public Go library.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;

use crate::{
    cache,
    node::{Slot, until},
};

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/nri-plugin");
const RECIPE: &str = concat!(
    include_str!("../../tools/nri-plugin/go.mod"),
    include_str!("../../tools/nri-plugin/go.sum"),
    include_str!("../../tools/nri-plugin/main.go")
);

/// Finds the plugin's program in the cache, or builds it, which takes half a minute the first time.
///
/// # Errors
/// When Go is missing, or the build fails.
pub fn program() -> Result<PathBuf> {
    let directory = cache::directory_of("nri-plugin", RECIPE, |fresh| {
        let result = Command::new("go")
            .args(["build", "-trimpath", "-mod=readonly", "-ldflags", "-s -w"])
            .arg("-o")
            .arg(fresh.join("nri-plugin"))
            .arg(".")
            .current_dir(MODULE)
            .output()
            .context("starting go (the NRI plugin is built with Go 1.24 or later)")?;
        ensure!(
            result.status.success(),
            "building the NRI plugin failed: {}",
            String::from_utf8_lossy(&result.stderr).trim()
        );
        Ok(())
    })?;
    Ok(directory.join("nri-plugin"))
}

/// What a plugin was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Event {
    /// The call.
    pub event: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// Names of the pods in a list.
    pub pods: Vec<String>,
    /// Names of the containers in a list.
    pub containers: Vec<String>,
    /// Their variables.
    pub env: Vec<String>,
    /// Names of a container's CDI devices.
    pub devices: Vec<String>,
    /// Paths of its createContainer hooks.
    pub hooks: Vec<String>,
    /// A memory limit in bytes, or how many updates failed.
    pub memory: i64,
    /// The memory limit of a pod's overhead in bytes.
    pub overhead: i64,
    /// The container's process.
    pub pid: u32,
}

/// The events that a plugin has written down.
#[derive(Clone, Debug)]
pub struct Events {
    path: PathBuf,
}

impl Events {
    /// Of the plugin `name` in `slot`.
    pub fn of(slot: &Slot, name: &str) -> Self {
        Self {
            path: slot.path(&format!("{name}.events")),
        }
    }

    /// The file's path, for the plugin's configuration.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All until now.
    pub fn all(&self) -> Vec<Event> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        // A line that is being written is not whole yet.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.all().into_iter().map(|event| event.event).collect()
    }

    /// Waits for the `count`th event of a name, and returns it.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn wait(&self, name: &str, count: usize) -> Result<Event> {
        until("an event of the plugin", || async {
            let all = self.all();
            let mut named = all.iter().filter(|event| event.event == name);
            match named.nth(count - 1) {
                Some(event) => Ok(event.clone()),
                None => Err(format!("{name} number {count} is not among {all:?}")),
            }
        })
        .await
    }
}

/// A plugin that connects by itself.
#[derive(Debug)]
pub struct ExternalPlugin {
    child: Child,
    /// What it is told.
    pub events: Events,
}

impl ExternalPlugin {
    /// Starts it, and waits until it is synchronized. `config` is added to its configuration.
    ///
    /// # Errors
    /// When it cannot be started, or is not synchronized.
    pub async fn start(
        slot: &Slot,
        index: &str,
        name: &str,
        config: &[(&str, &str)],
    ) -> Result<Self> {
        let program = tokio::task::spawn_blocking(program).await??;
        let events = Events::of(slot, name);
        let before = events
            .names()
            .iter()
            .filter(|name| *name == "Synchronize")
            .count();
        let child = Command::new(program)
            .arg("-socket")
            .arg(slot.path("nri/nri.sock"))
            .args(["-index", index, "-name", name, "-config"])
            .arg(configuration(&events, config))
            .stdin(Stdio::null())
            .stderr(fs::File::create(slot.path(&format!("{name}.stderr")))?)
            .spawn()
            .context("starting the NRI plugin")?;
        let plugin = Self { child, events };
        plugin.events.wait("Synchronize", before + 1).await?;
        Ok(plugin)
    }

    /// Has it ask for updates of all containers that it knows.
    ///
    /// # Errors
    /// When it has ended.
    pub fn ask_for_updates(&self) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        kill(Pid::from_raw(pid), Signal::SIGUSR1).context("signalling the plugin")
    }

    /// Waits until its process has ended.
    ///
    /// # Errors
    /// When it lives on.
    pub async fn ended(&mut self) -> Result<()> {
        let child = std::sync::Mutex::new(&mut self.child);
        until("the plugin's end", || async {
            let mut child = child.lock().map_err(|error| error.to_string())?;
            match child.try_wait() {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }
}

impl Drop for ExternalPlugin {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(events: &Events, config: &[(&str, &str)]) -> String {
    let mut object = serde_json::json!({ "events": events.path() });
    for (key, value) in config {
        // Values are JSON where they can be: true is not "true".
        object[*key] = serde_json::from_str(value).unwrap_or_else(|_| (*value).into());
    }
    object.to_string()
}

/// Puts the plugin into the directory of those that the runtime starts.
///
/// # Errors
/// When it cannot be built or copied.
pub fn pre_install(
    slot: &Slot,
    index: &str,
    name: &str,
    config: &[(&str, &str)],
) -> Result<Events> {
    let events = Events::of(slot, name);
    let (plugins, configs) = (slot.path("nri/plugins"), slot.path("nri/conf.d"));
    for directory in [&plugins, &configs] {
        fs::create_dir_all(directory)?;
    }
    let path = plugins.join(format!("{index}-{name}"));
    fs::copy(program()?, &path).with_context(|| format!("copying to {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let file = configs.join(format!("{name}.conf"));
    fs::write(file, configuration(&events, config))?;
    Ok(events)
}
