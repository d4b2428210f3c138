//! Records of a pod sandbox.

use podwright_cri_api::v1::{LinuxContainerResources, PodSandboxConfig};

use super::Record;

/// Written before anything of the sandbox is made, so that whatever a crash leaves is known to be ours.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SandboxRecord {
    /// 64 hex characters.
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    /// As the client sent it.
    #[prost(message, optional, tag = "2")]
    pub(crate) config: Option<PodSandboxConfig>,
    /// The runtime handler that was asked for.
    #[prost(string, tag = "3")]
    pub(crate) runtime_handler: String,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "4")]
    pub(crate) created_at: i64,
    /// The pod's cgroup: pause and all containers are in or below it.
    #[prost(string, tag = "5")]
    pub(crate) cgroup: String,
    /// The SELinux level of its containers; empty where they have none.
    #[prost(string, tag = "6")]
    pub(crate) selinux_level: String,
}

impl Record for SandboxRecord {
    const FILE: &'static str = "record";
}

/// Written when its resources were changed.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodResourcesRecord {
    /// What the pod itself takes besides its containers.
    #[prost(message, optional, tag = "1")]
    pub(crate) overhead: Option<LinuxContainerResources>,
    /// What its containers take together.
    #[prost(message, optional, tag = "2")]
    pub(crate) resources: Option<LinuxContainerResources>,
}

impl Record for PodResourcesRecord {
    const FILE: &'static str = "resources";
}

impl From<&PodSandboxConfig> for PodResourcesRecord {
    fn from(config: &PodSandboxConfig) -> Self {
        let linux = config.linux.clone().unwrap_or_default();
        Self {
            overhead: linux.overhead,
            resources: linux.resources,
        }
    }
}

/// Written once the sandbox has stopped for good.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StoppedRecord {
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "1")]
    pub(crate) at: i64,
}

impl Record for StoppedRecord {
    const FILE: &'static str = "stopped";
}

/// Written when the sandbox is whole, before its id is told: one without it is what a crash left of an unfinished call.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadyRecord {
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "1")]
    pub(crate) at: i64,
}

impl Record for ReadyRecord {
    const FILE: &'static str = "ready";
}
