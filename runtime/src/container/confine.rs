//! What binds a container's process beyond its user: its seccomp program, AppArmor profile and SELinux label.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use podwright_cri_api::v1::security_profile::ProfileType;
use podwright_cri_api::v1::{LinuxContainerSecurityContext, SecurityProfile};

use crate::error::{CallError, Context};
use crate::index::shown;
use crate::node::Node;
use crate::plan::{SeccompChoice, privilege};
use crate::sandbox::{Sandbox, label};
use crate::security::apparmor::ProfileRequest;
use crate::security::capabilities::CapabilitySet;
use crate::security::seccomp::{MAX_PROFILE, Program};
use crate::security::selinux::Labels;

/// The compiled seccomp profile; none for an unconfined container.
pub(super) fn seccomp(
    node: &Node,
    choice: &SeccompChoice,
    bounding: CapabilitySet,
) -> Result<Option<Arc<Program>>, CallError> {
    match choice {
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::RuntimeDefault => node
            .seccomp
            .runtime_default(bounding)
            .map(Some)
            .internal(|| "cannot compile the container's seccomp profile".into()),
        SeccompChoice::Localhost(path) => {
            let json = read_profile(path)
                .invalid(|| format!("cannot read the seccomp profile '{}'", shown(path)))?;
            node.seccomp
                .localhost(&json, bounding)
                .map(Some)
                .invalid(|| format!("cannot use the seccomp profile '{}'", shown(path)))
        }
    }
}

/// Reads a file of the operator's, which may be none: a device or pipe would never end.
fn read_profile(path: &str) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut json = Vec::new();
    // One byte more than a profile may have: then it is refused for its size.
    File::open(path)?
        .take(MAX_PROFILE as u64 + 1)
        .read_to_end(&mut json)?;
    Ok(json)
}

/// The AppArmor profile that execve(2) changes to; none for an unconfined container.
pub(super) fn apparmor(
    node: &Node,
    context: &LinuxContainerSecurityContext,
) -> Result<Option<String>, CallError> {
    let failed = || "cannot confine the container by AppArmor".into();
    let request = match &context.apparmor {
        None => old_apparmor(context)?,
        Some(SecurityProfile {
            profile_type,
            localhost_ref,
        }) => match ProfileType::try_from(*profile_type) {
            Ok(ProfileType::Localhost) => ProfileRequest::Localhost(localhost_ref),
            Ok(_) if !localhost_ref.is_empty() => {
                return Err(CallError::invalid(format!(
                    "the AppArmor profile '{}' is named, but the type is not Localhost",
                    shown(localhost_ref)
                )));
            }
            Ok(ProfileType::RuntimeDefault) => ProfileRequest::RuntimeDefault,
            Ok(ProfileType::Unconfined) => ProfileRequest::Unconfined,
            Err(_) => {
                return Err(CallError::invalid(format!(
                    "{profile_type} is no type of an AppArmor profile"
                )));
            }
        },
    };
    node.apparmor
        .profile(&request, privilege(context))
        .invalid(failed)
}

#[expect(deprecated, reason = "older kubelets send the profile in this field")]
fn old_apparmor(context: &LinuxContainerSecurityContext) -> Result<ProfileRequest<'_>, CallError> {
    ProfileRequest::from_text(&context.apparmor_profile)
        .invalid(|| "cannot confine the container by AppArmor".into())
}

/// The SELinux labels of a container: its own options', or its pod's. None where SELinux is off.
pub(super) fn selinux(
    node: &Node,
    sandbox: &Sandbox,
    context: &LinuxContainerSecurityContext,
) -> Result<Option<Labels>, CallError> {
    match &context.selinux_options {
        None => sandbox.labels(&node.selinux),
        Some(options) => label(&node.selinux, options, &sandbox.id),
    }
}
