//! What binds a container's process beyond its user: its seccomp program, AppArmor profile and SELinux label.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use podwright_cri_api::v1::security_profile::ProfileType;
use podwright_cri_api::v1::{ContainerConfig, LinuxContainerSecurityContext, SecurityProfile};

use crate::error::{CallError, Context};
use crate::index::shown;
use crate::node::Node;
use crate::plan::{SeccompChoice, privilege};
use crate::records::ConfinementRecord;
use crate::sandbox::Sandbox;
use crate::security::apparmor::{AppArmorError, ProfileRequest};
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

/// Where kubelets before 1.30 had a container's AppArmor profile from; its name follows.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Decides which profile and labels a container is bound by for its whole life.
pub(super) async fn decide(
    node: &Node,
    sandbox: &Sandbox,
    config: &ContainerConfig,
) -> Result<ConfinementRecord, CallError> {
    let context = security(config);
    let request = apparmor_request(sandbox, config, &context)?;
    let profile = match node.apparmor.profile(&request, privilege(&context)) {
        Err(AppArmorError::NoDefault { .. }) => {
            node.apparmor.load_default().await;
            node.apparmor.profile(&request, privilege(&context))
        }
        decided => decided,
    };
    record(node, sandbox, &context, profile)
}

/// The same for a container of a daemon that has not recorded it.
pub(super) fn decide_again(
    node: &Node,
    sandbox: &Sandbox,
    config: &ContainerConfig,
) -> Result<ConfinementRecord, CallError> {
    let context = security(config);
    let request = apparmor_request(sandbox, config, &context)?;
    let profile = node.apparmor.profile(&request, privilege(&context));
    record(node, sandbox, &context, profile)
}

fn security(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    let linux = config.linux.as_ref();
    let context = linux.and_then(|linux| linux.security_context.clone());
    context.unwrap_or_default()
}

fn record(
    node: &Node,
    sandbox: &Sandbox,
    context: &LinuxContainerSecurityContext,
    profile: Result<Option<String>, AppArmorError>,
) -> Result<ConfinementRecord, CallError> {
    let profile = profile.invalid(|| "cannot confine the container by AppArmor".into())?;
    let labels = selinux(node, sandbox, context)?;
    let (process_label, mount_label) = match labels {
        Some(labels) => (labels.process, labels.mount),
        None => Default::default(),
    };
    Ok(ConfinementRecord {
        apparmor: profile.unwrap_or_default(),
        process_label,
        mount_label,
    })
}

/// The field of today's kubelets, the one of older ones, or the annotation.
fn apparmor_request<'a>(
    sandbox: &'a Sandbox,
    config: &'a ContainerConfig,
    context: &'a LinuxContainerSecurityContext,
) -> Result<ProfileRequest<'a>, CallError> {
    let Some(SecurityProfile {
        profile_type,
        localhost_ref,
    }) = &context.apparmor
    else {
        let text = match old_field(context) {
            "" => annotation(sandbox, config),
            text => text,
        };
        return ProfileRequest::from_text(text)
            .invalid(|| "cannot confine the container by AppArmor".into());
    };
    match ProfileType::try_from(*profile_type) {
        Ok(ProfileType::Localhost) => Ok(ProfileRequest::Localhost(localhost_ref)),
        Ok(_) if !localhost_ref.is_empty() => Err(CallError::invalid(format!(
            "the AppArmor profile '{}' is named, but the type is not Localhost",
            shown(localhost_ref)
        ))),
        Ok(ProfileType::RuntimeDefault) => Ok(ProfileRequest::RuntimeDefault),
        Ok(ProfileType::Unconfined) => Ok(ProfileRequest::Unconfined),
        Err(_) => Err(CallError::invalid(format!(
            "{profile_type} is no type of an AppArmor profile"
        ))),
    }
}

#[expect(deprecated, reason = "older kubelets send the profile in this field")]
fn old_field(context: &LinuxContainerSecurityContext) -> &str {
    &context.apparmor_profile
}

fn annotation<'a>(sandbox: &'a Sandbox, config: &'a ContainerConfig) -> &'a str {
    let metadata = config.metadata.as_ref();
    let name = metadata.map_or("", |metadata| metadata.name.as_str());
    let key = format!("{ANNOTATION}{name}");
    let said = config.annotations.get(&key);
    said.or_else(|| sandbox.config.annotations.get(&key))
        .map_or("", String::as_str)
}

/// The SELinux labels of a container: its own options', or its pod's. None where SELinux is off.
fn selinux(
    node: &Node,
    sandbox: &Sandbox,
    context: &LinuxContainerSecurityContext,
) -> Result<Option<Labels>, CallError> {
    sandbox.labels(
        &node.selinux,
        context.selinux_options.as_ref(),
        privilege(context),
    )
}
