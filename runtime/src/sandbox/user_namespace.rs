//! A pod's user namespace: what is asked for, and what it goes together with.

use podwright_cri_api::v1::{self as cri, NamespaceMode, UserNamespace};
use podwright_pause::mapping::{IdMappings, map_file};

use super::settings::{mode, unfit};
use super::{IpcMode, NetworkMode, PidMode, Sandbox};
use crate::error::{CallError, Context};
use crate::index::shown;
use crate::security::id_mappings::{self, RequestedRange};

fn ranges(mappings: &[cri::IdMapping]) -> Vec<RequestedRange> {
    let range = |mapping: &cri::IdMapping| RequestedRange {
        container: mapping.container_id,
        host: mapping.host_id,
        length: mapping.length,
    };
    mappings.iter().map(range).collect()
}

/// The mappings of a request; none means the host's user namespace.
pub(super) fn requested(options: Option<&UserNamespace>) -> Result<Option<IdMappings>, CallError> {
    let Some(options) = options else {
        return Ok(None);
    };
    match mode("user", options.mode)? {
        NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(None),
        NamespaceMode::Node => Err(CallError::invalid(
            "there are id mappings for the host's user namespace (mode NODE): a user namespace of the pod has mode POD",
        )),
        NamespaceMode::Pod => id_mappings::check(&ranges(&options.uids), &ranges(&options.gids))
            .invalid(|| "cannot give the pod a user namespace".into())
            .map(Some),
        other => Err(unfit("user", other)),
    }
}

/// That nothing of the host's is shared with a pod whose root must have no power there. The kubelet does not ask for it either.
pub(super) fn check_companions(
    network: NetworkMode,
    ipc: IpcMode,
    pid: &PidMode,
) -> Result<(), CallError> {
    let shared = if network == NetworkMode::Host {
        "network"
    } else if ipc == IpcMode::Host {
        "IPC"
    } else if *pid == PidMode::Host {
        "PID"
    } else {
        return Ok(());
    };
    Err(CallError::invalid(format!(
        "a pod with a user namespace of its own cannot use the host's {shared} namespace"
    )))
}

/// That a container asks for the user namespace that its pod has, as the peers demand.
pub(crate) fn check_same(
    sandbox: &Sandbox,
    options: Option<&cri::NamespaceOption>,
) -> Result<(), CallError> {
    let asked = requested(options.and_then(|options| options.userns_options.as_ref()))?;
    if asked == sandbox.settings.user_namespace {
        return Ok(());
    }
    let has = |mappings: &Option<IdMappings>| match mappings {
        None => "the host's user namespace".to_owned(),
        Some(IdMappings { uids, gids }) => {
            let lines = |ranges| shown(map_file(ranges).trim().replace('\n', ", ").as_str());
            format!(
                "one that maps users {} and groups {}",
                lines(uids),
                lines(gids)
            )
        }
    };
    Err(CallError::invalid(format!(
        "the container asks for {}, the pod sandbox has {}: both must be the same",
        has(&asked),
        has(&sandbox.settings.user_namespace)
    )))
}

/// Whether a volume's owners are to be mapped: by the pod's mappings or not at all.
pub(crate) fn map_volume(sandbox: &Sandbox, volume: &cri::Mount) -> Result<bool, CallError> {
    if volume.uid_mappings.is_empty() && volume.gid_mappings.is_empty() {
        return Ok(false);
    }
    let refused = |why: &str| {
        CallError::invalid(format!(
            "cannot mount '{}' on '{}' with id mappings: {why}",
            shown(&volume.host_path),
            shown(&volume.container_path)
        ))
    };
    let Some(pod) = &sandbox.settings.user_namespace else {
        return Err(refused("the pod sandbox has no user namespace of its own"));
    };
    let asked = id_mappings::check(&ranges(&volume.uid_mappings), &ranges(&volume.gid_mappings))
        .map_err(|error| refused(&error.to_string()))?;
    if asked != *pod {
        return Err(refused("they are others than the pod's"));
    }
    Ok(true)
}
