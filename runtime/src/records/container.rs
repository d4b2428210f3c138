//! Records of a container.

use podwright_cri_api::v1::{ContainerConfig, LinuxContainerResources};
use podwright_nri::api::{ContainerAdjustment, LinuxResources};

use super::Record;

/// Written when the container is created.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerRecord {
    /// 64 hex characters.
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    /// Its pod's id.
    #[prost(string, tag = "2")]
    pub(crate) sandbox: String,
    /// As the client sent it.
    #[prost(message, optional, tag = "3")]
    pub(crate) config: Option<ContainerConfig>,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "4")]
    pub(crate) created_at: i64,
    /// The image's id.
    #[prost(string, tag = "5")]
    pub(crate) image_id: String,
    /// What the image is called: a repository digest if it has one.
    #[prost(string, tag = "6")]
    pub(crate) image_ref: String,
    /// The image's configuration, as JSON: the image may be removed while the container lives.
    #[prost(string, tag = "7")]
    pub(crate) image_config: String,
    /// Directories below the layer root, lowest first.
    #[prost(string, repeated, tag = "8")]
    pub(crate) layer_directories: Vec<String>,
    /// The same layers' chain ids: what the container's lease holds.
    #[prost(string, repeated, tag = "9")]
    pub(crate) chains: Vec<String>,
    /// The user that the container runs as.
    #[prost(message, optional, tag = "10")]
    pub(crate) user: Option<UserRecord>,
    /// The log file's path; empty for none.
    #[prost(string, tag = "11")]
    pub(crate) log_path: String,
    /// The images of its volumes.
    #[prost(message, repeated, tag = "12")]
    pub(crate) volume_images: Vec<VolumeImageRecord>,
    /// What its CDI devices change of it, as JSON; empty for nothing.
    #[prost(string, tag = "13")]
    pub(crate) cdi_edits: String,
    /// What binds it. A record of a daemon that wrote none stands for what its request means now.
    #[prost(message, optional, tag = "14")]
    pub(crate) confinement: Option<ConfinementRecord>,
}

/// The AppArmor profile and SELinux labels of a container, as they were understood when it was created. An exec enters the same.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConfinementRecord {
    /// The profile's name; empty for none.
    #[prost(string, tag = "1")]
    pub(crate) apparmor: String,
    /// The label of its processes; empty for none.
    #[prost(string, tag = "2")]
    pub(crate) process_label: String,
    /// The label of its files; empty for none.
    #[prost(string, tag = "3")]
    pub(crate) mount_label: String,
}

/// An image that is mounted as a volume, as its name was understood when the container was created.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VolumeImageRecord {
    /// The image as the request names it.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Directories below the layer root, lowest first.
    #[prost(string, repeated, tag = "2")]
    pub(crate) layer_directories: Vec<String>,
    /// The same layers' chain ids.
    #[prost(string, repeated, tag = "3")]
    pub(crate) chains: Vec<String>,
}

/// Who a container runs as, resolved by its image's user database when it was created.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UserRecord {
    /// User id.
    #[prost(uint32, tag = "1")]
    pub(crate) uid: u32,
    /// Group id.
    #[prost(uint32, tag = "2")]
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one first.
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) groups: Vec<u32>,
    /// The home directory for HOME; empty when unknown.
    #[prost(string, tag = "4")]
    pub(crate) home: String,
}

impl Record for ContainerRecord {
    const FILE: &'static str = "record";
}

/// Written when its program was executed.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StartedRecord {
    /// In the host's PID namespace.
    #[prost(uint32, tag = "1")]
    pub(crate) pid: u32,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "2")]
    pub(crate) at: i64,
}

impl Record for StartedRecord {
    const FILE: &'static str = "started";
}

/// Written when it has ended.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExitRecord {
    /// As a shell tells it.
    #[prost(int32, tag = "1")]
    pub(crate) exit_code: i32,
    /// The signal that ended it; 0 for none.
    #[prost(int32, tag = "2")]
    pub(crate) signal: i32,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "3")]
    pub(crate) finished_at: i64,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` …
    #[prost(string, tag = "4")]
    pub(crate) reason: String,
    /// For people.
    #[prost(string, tag = "5")]
    pub(crate) message: String,
}

impl Record for ExitRecord {
    const FILE: &'static str = "exit";
}

/// Written when its limits were changed.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResourcesRecord {
    /// All limits, changed and unchanged.
    #[prost(message, optional, tag = "1")]
    pub(crate) resources: Option<LinuxContainerResources>,
}

impl Record for ResourcesRecord {
    const FILE: &'static str = "resources";
}

/// Written when NRI plugins have changed what is made of the request, so that a later daemon makes the same of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NriRecord {
    /// How the container was made.
    #[prost(message, optional, tag = "1")]
    pub(crate) adjustment: Option<ContainerAdjustment>,
    /// The limits that CRI's have no words for, as they are now.
    #[prost(message, optional, tag = "2")]
    pub(crate) limits: Option<LinuxResources>,
}

impl Record for NriRecord {
    const FILE: &'static str = "nri";
}
