//! The pod's SELinux level and labels.

use std::path::Path;

use podwright_cri_api::v1::{PodSandboxConfig, SeLinuxOption};

use super::{HOSTNAME, HOSTS, IpcMode, PidMode, RESOLV_CONF, Sandbox, Settings};
use crate::container::label_path;
use crate::error::{CallError, Context};
use crate::ids::SandboxId;
use crate::records::SandboxRecord;
use crate::security::Privilege;
use crate::security::selinux::{LabelRequest, Labels, Selinux};

fn options(config: &PodSandboxConfig) -> SeLinuxOption {
    let linux = config.linux.as_ref();
    let context = linux.and_then(|linux| linux.security_context.as_ref());
    let options = context.and_then(|context| context.selinux_options.clone());
    options.unwrap_or_default()
}

/// The level of a new pod: the one that it asks for, or one that no other pod has. Empty where pods have none.
pub(super) fn new_level(
    selinux: &Selinux,
    config: &PodSandboxConfig,
    pod: &SandboxId,
) -> Result<String, CallError> {
    let asked = options(config).level;
    if !asked.is_empty() {
        selinux.take_level(&asked);
        return Ok(asked);
    }
    let reserved = selinux.reserve_level(pod.as_str());
    Ok(reserved
        .internal(|| "cannot give the pod an SELinux level".into())?
        .unwrap_or_default())
}

/// Keeps the level of a pod that is there from others. A pod of a daemon that has recorded none gets another one for the
/// containers to come.
pub(crate) fn restore_level(selinux: &Selinux, record: &mut SandboxRecord) {
    if !record.selinux_level.is_empty() {
        selinux.take_level(&record.selinux_level);
    } else if let Ok(Some(level)) = selinux.reserve_level(&record.id) {
        record.selinux_level = level;
    }
}

/// What containers of a pod may do to each other and to the host, by the namespaces that they share with it: who sees the
/// host's processes or uses its memory cannot be kept from them, as with the peers.
fn separation(settings: &Settings, privilege: Privilege) -> Privilege {
    match settings.pid == PidMode::Host || settings.ipc == IpcMode::Host {
        true => Privilege::Privileged,
        false => privilege,
    }
}

/// The labels that options ask for in a pod with this level; none where SELinux is off.
fn label(
    selinux: &Selinux,
    options: &SeLinuxOption,
    level: &str,
    privilege: Privilege,
) -> Result<Option<Labels>, CallError> {
    let request = LabelRequest {
        user: &options.user,
        role: &options.role,
        kind: &options.r#type,
        level: &options.level,
    };
    selinux
        .labels(&request, level, privilege)
        .invalid(|| "cannot use the SELinux options".into())
}

/// The label of the files of a pod by its request.
pub(super) fn of_pod(
    selinux: &Selinux,
    config: &PodSandboxConfig,
    level: &str,
) -> Result<Option<String>, CallError> {
    let labels = label(selinux, &options(config), level, Privilege::Confined)?;
    Ok(labels.map(|labels| labels.mount))
}

/// Labels the files that the runtime makes for a pod, which its containers read.
pub(super) fn label_files(directory: &Path, label: &str) -> Result<(), CallError> {
    for name in [RESOLV_CONF, HOSTNAME, HOSTS] {
        label_path(&directory.join(name), label)?;
    }
    Ok(())
}

impl Sandbox {
    /// The labels of a container with these options, or of one that has none and gets the pod's.
    pub(crate) fn labels(
        &self,
        selinux: &Selinux,
        own: Option<&SeLinuxOption>,
        privilege: Privilege,
    ) -> Result<Option<Labels>, CallError> {
        let options = own.cloned().unwrap_or_else(|| options(&self.config));
        let privilege = separation(&self.settings, privilege);
        label(selinux, &options, &self.selinux_level, privilege)
    }
}
