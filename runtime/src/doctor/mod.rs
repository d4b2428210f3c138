//! What the runtime needs of this machine, what it makes use of, and what is missing: `podwright doctor`.
//!
//! The table of features (`table.rs`) is the one that docs/kernel.md shows. Where it is cheap and harmless a feature is
//! tried, with the code that the daemon uses; what is tried is made in namespaces and directories that end with it.

mod calls;
mod cgroups;
mod limits;
mod mounts;
mod network;
mod processes;
mod security;
mod table;

use std::io;
use std::path::PathBuf;

use crate::cgroup::{CgroupError, Hierarchy};
use crate::config::Config;

pub use table::markdown;

/// What a feature is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// Processes and namespaces.
    Processes,
    /// Files and mounts.
    Mounts,
    /// Control groups.
    Cgroups,
    /// What confines containers.
    Security,
    /// The pod network.
    Network,
    /// Limits of the machine.
    Limits,
    /// This node's configuration, directories and daemon.
    Node,
}

impl Area {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Processes => "Processes and namespaces",
            Self::Mounts => "Files and mounts",
            Self::Cgroups => "Control groups",
            Self::Security => "Confinement",
            Self::Network => "Network",
            Self::Limits => "Limits",
            Self::Node => "This node",
        }
    }
}

/// Whether there can be pods without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// No.
    Required,
    /// Yes, without what it gives.
    Optional,
}

/// Whether a feature is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is.
    There,
    /// It is not.
    Missing,
    /// It could not be found out.
    Unknown,
}

/// What looking at one feature gave.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// What it is called.
    pub name: String,
    /// Whether there can be pods without it.
    pub need: Need,
    /// Whether it is there.
    pub verdict: Verdict,
    /// What was looked at or tried.
    pub tried: String,
    /// What the system said.
    pub said: String,
    /// What Podwright does without it.
    pub without: String,
    /// What to do to have it.
    pub remedy: String,
}

impl Finding {
    /// Whether it keeps pods from running.
    pub fn is_fatal(&self) -> bool {
        self.need == Need::Required && self.verdict != Verdict::There
    }
}

/// A feature of the kernel, as the table has it.
struct Feature {
    area: Area,
    name: &'static str,
    /// The first Linux that has it, and how it is configured, if that varies.
    since: &'static str,
    need: Need,
    without: &'static str,
    remedy: &'static str,
    look: fn(&Machine) -> Seen,
}

/// What a look at a feature gave.
struct Seen {
    verdict: Verdict,
    tried: String,
    said: String,
}

impl Seen {
    fn new(verdict: Verdict, tried: impl Into<String>, said: impl Into<String>) -> Self {
        Self {
            verdict,
            tried: tried.into(),
            said: said.into(),
        }
    }

    fn there(tried: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(Verdict::There, tried, said)
    }

    fn missing(tried: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(Verdict::Missing, tried, said)
    }

    fn unknown(tried: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(Verdict::Unknown, tried, said)
    }

    /// What trying it gave. Without the right to try it nothing is known.
    fn tried<T>(tried: impl Into<String>, result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::there(tried, "it works"),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                Self::unknown(tried, error.to_string())
            }
            Err(error) => Self::missing(tried, error.to_string()),
        }
    }
}

/// What several looks go by.
struct Machine {
    hierarchy: Result<Hierarchy, CgroupError>,
    /// The state directory, or the nearest one above it that is there.
    state_dir: PathBuf,
    network: network::Trial,
}

impl Machine {
    fn of(config: &Config) -> Self {
        let mut state_dir = config.state_dir.as_path();
        while let (false, Some(parent)) = (state_dir.is_dir(), state_dir.parent()) {
            state_dir = parent;
        }
        Self {
            hierarchy: Hierarchy::detect(),
            state_dir: state_dir.to_owned(),
            network: network::Trial::run(config),
        }
    }
}

/// Looks at every feature of the table. It takes less than a second, and leaves nothing.
pub fn examine(config: &Config) -> Vec<Finding> {
    let machine = Machine::of(config);
    let look = |feature: &Feature| {
        let seen = (feature.look)(&machine);
        Finding {
            area: feature.area,
            name: feature.name.into(),
            need: feature.need,
            verdict: seen.verdict,
            tried: seen.tried,
            said: seen.said,
            without: feature.without.into(),
            remedy: feature.remedy.into(),
        }
    };
    table::FEATURES.iter().map(look).collect()
}

/// A program by its name, as a shell finds it.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// Does something in a thread of its own, whose namespaces can be left behind.
fn apart<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the trial panicked")))
    })
}

/// A directory for a trial, removed with all that is in it.
struct Scratch(PathBuf);

impl Scratch {
    /// Makes it below `parent`, for this user alone.
    fn below(parent: &std::path::Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = parent.join(format!(".podwright-doctor-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the directory of a trial");
        }
    }
}
