//! The pod's SELinux labels.

use podwright_cri_api::v1::{PodSandboxConfig, SeLinuxOption};

use super::Sandbox;
use crate::error::{CallError, Context};
use crate::ids::SandboxId;
use crate::security::selinux::{LabelRequest, Labels, Selinux};

/// The labels that options ask for in a pod; none where SELinux is off.
pub(crate) fn label(
    selinux: &Selinux,
    options: &SeLinuxOption,
    pod: &SandboxId,
) -> Result<Option<Labels>, CallError> {
    let request = LabelRequest {
        user: &options.user,
        role: &options.role,
        kind: &options.r#type,
        level: &options.level,
    };
    selinux
        .labels(&request, pod.as_str())
        .invalid(|| "cannot use the SELinux options".into())
}

/// The labels of a pod by its request.
pub(super) fn of_pod(
    selinux: &Selinux,
    config: &PodSandboxConfig,
    pod: &SandboxId,
) -> Result<Option<Labels>, CallError> {
    let context = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    let options = context.and_then(|context| context.selinux_options.clone());
    label(selinux, &options.unwrap_or_default(), pod)
}

impl Sandbox {
    /// The labels of containers that have no options of their own.
    pub(crate) fn labels(&self, selinux: &Selinux) -> Result<Option<Labels>, CallError> {
        of_pod(selinux, &self.config, &self.id)
    }
}
