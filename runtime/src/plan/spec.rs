//! The OCI runtime spec of a container (<https://github.com/opencontainers/runtime-spec>, config-linux.md).

use oci_spec::image::Config as ImageConfig;
use oci_spec::runtime::{
    Linux, LinuxNamespace, LinuxNamespaceType, LinuxPids, PosixRlimitBuilder, PosixRlimitType,
    Process, Root, Spec, User,
};
use podwright_cri_api::v1::ContainerConfig;

use super::{environment, mounts, process, resources};
use crate::cgroup::{CgroupPath, Version};
use crate::error::{CallError, Context};
use crate::records::{ConfinementRecord, UserRecord};
use crate::sandbox::{IpcMode, NetworkMode, PidMode, Sandbox, pid_mode};
use crate::security::Privilege;
use crate::security::capabilities::CapabilitySet;

/// What a container may open at first and at most: enough for servers, few enough for programs that walk through all.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// What the spec is made from.
pub(crate) struct SpecInputs<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: Option<&'a ImageConfig>,
    pub(crate) user: &'a UserRecord,
    pub(crate) cgroup: &'a CgroupPath,
    pub(crate) cgroup_version: Version,
    /// What the daemon itself may give.
    pub(crate) available: CapabilitySet,
    /// The score as it will be set.
    pub(crate) oom_score_adj: i32,
    /// Its AppArmor profile and SELinux labels.
    pub(crate) confinement: &'a ConfinementRecord,
}

/// The spec of a container; fails when the request cannot be met.
pub(crate) fn container_spec(inputs: &SpecInputs<'_>) -> Result<Spec, CallError> {
    let context = inputs
        .config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.clone())
        .unwrap_or_default();
    let privilege = process::privilege(&context);
    let mut root = Root::default();
    root.set_path("rootfs".into());
    root.set_readonly(Some(context.readonly_rootfs));
    let mut spec = Spec::default();
    spec.set_root(Some(root));
    spec.set_hostname(None);
    spec.set_mounts(Some(mounts::all_mounts(
        inputs.sandbox,
        inputs.config,
        privilege,
    )?));
    spec.set_process(Some(oci_process(inputs, &context)?));
    spec.set_linux(Some(linux(inputs, &context, privilege)?));
    spec.set_annotations(Some(
        inputs.config.annotations.clone().into_iter().collect(),
    ));
    Ok(spec)
}

fn oci_process(
    inputs: &SpecInputs<'_>,
    context: &podwright_cri_api::v1::LinuxContainerSecurityContext,
) -> Result<Process, CallError> {
    let (config, sandbox) = (inputs.config, inputs.sandbox);
    let mut user = User::default();
    user.set_uid(inputs.user.uid);
    user.set_gid(inputs.user.gid);
    user.set_additional_gids(Some(inputs.user.groups.clone()));
    user.set_umask(Some(0o022));
    let working_dir = match config.working_dir.as_str() {
        "" => inputs
            .image
            .and_then(|image| image.working_dir().clone())
            .unwrap_or_default(),
        path => path.to_owned(),
    };
    let limit = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(OPEN_FILES.0)
        .hard(OPEN_FILES.1)
        .build();
    let limit = limit.internal(|| "cannot build the container's limits".into())?;
    let mut process = Process::default();
    process.set_terminal(Some(config.tty));
    process.set_user(user);
    process.set_args(Some(environment::arguments(config, inputs.image)?));
    process.set_env(Some(environment::environment(
        config,
        inputs.image,
        &sandbox.config.hostname,
        &inputs.user.home,
    )?));
    process.set_cwd(mounts::inside_path(if working_dir.is_empty() {
        "/"
    } else {
        &working_dir
    })?);
    process.set_capabilities(Some(process::oci_capabilities(&process::capability_sets(
        context,
        inputs.available,
    )?)));
    process.set_rlimits(Some(vec![limit]));
    process.set_no_new_privileges(Some(context.no_new_privs));
    process.set_oom_score_adj(Some(inputs.oom_score_adj));
    process.set_apparmor_profile(named(&inputs.confinement.apparmor));
    process.set_selinux_label(named(&inputs.confinement.process_label));
    Ok(process)
}

/// A record's text; empty for none.
fn named(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn linux(
    inputs: &SpecInputs<'_>,
    context: &podwright_cri_api::v1::LinuxContainerSecurityContext,
    privilege: Privilege,
) -> Result<Linux, CallError> {
    let pods = inputs.sandbox.handler.pods();
    let (devices, rules) =
        process::container_devices(inputs.config, privilege, pods.privileged_devices)?;
    let asked = inputs
        .config
        .linux
        .as_ref()
        .and_then(|linux| linux.resources.clone())
        .unwrap_or_default();
    let mut linux = Linux::default();
    let mut limits = resources::oci_resources(&asked, Some(rules))?;
    if let Some(most) = pods.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(most.get().into());
        limits.set_pids(Some(pids));
    }
    linux.set_resources(Some(limits));
    linux.set_cgroups_path(Some(inputs.cgroup.as_str().into()));
    linux.set_namespaces(Some(namespaces(inputs)?));
    if let Some(mappings) = &inputs.sandbox.settings.user_namespace {
        let outside_dev =
            |device: &&oci_spec::runtime::LinuxDevice| !device.path().starts_with("/dev");
        if let Some(device) = devices.iter().find(outside_dev) {
            return Err(CallError::invalid(format!(
                "cannot make the device '{}' in a user namespace: there it is possible below /dev only",
                device.path().display()
            )));
        }
        linux.set_uid_mappings(Some(mounts::oci_mappings(&mappings.uids)?));
        linux.set_gid_mappings(Some(mounts::oci_mappings(&mappings.gids)?));
    }
    linux.set_mount_label(named(&inputs.confinement.mount_label));
    linux.set_devices(Some(devices));
    // A kubelet sends the lists it means; an empty one stands for none (procMount: Unmasked).
    let (masked, read_only) = match privilege {
        Privilege::Privileged => (Vec::new(), Vec::new()),
        Privilege::Confined => (context.masked_paths.clone(), context.readonly_paths.clone()),
    };
    linux.set_masked_paths(Some(masked));
    linux.set_readonly_paths(Some(read_only));
    Ok(linux)
}

fn namespaces(inputs: &SpecInputs<'_>) -> Result<Vec<LinuxNamespace>, CallError> {
    let settings = &inputs.sandbox.settings;
    let mut kinds = vec![LinuxNamespaceType::Mount];
    if settings.user_namespace.is_some() {
        kinds.push(LinuxNamespaceType::User);
    }
    if settings.network == NetworkMode::Pod {
        kinds.extend([LinuxNamespaceType::Network, LinuxNamespaceType::Uts]);
    }
    if settings.ipc == IpcMode::Pod {
        kinds.push(LinuxNamespaceType::Ipc);
    }
    if container_pid_mode(inputs.config)? != PidMode::Host {
        kinds.push(LinuxNamespaceType::Pid);
    }
    if inputs.cgroup_version == Version::V2 {
        kinds.push(LinuxNamespaceType::Cgroup);
    }
    Ok(kinds
        .into_iter()
        .map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            namespace
        })
        .collect())
}

/// Whose processes the container sees.
pub(crate) fn container_pid_mode(config: &ContainerConfig) -> Result<PidMode, CallError> {
    let context = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    match context.and_then(|context| context.namespace_options.as_ref()) {
        // CRI: an absent option means POD.
        None => Ok(PidMode::Pod),
        Some(options) => pid_mode(options.pid, &options.target_id),
    }
}
