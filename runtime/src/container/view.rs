//! ListContainers and ContainerStatus: what clients see of a container.

use std::collections::BTreeMap;
use std::sync::Arc;

use podwright_cri_api::list::Listed;
use podwright_cri_api::v1 as cri;
use prost::Message as _;

use super::{Container, State, oom_score, stop};
use crate::error::{CallError, Context};
use crate::node::Node;
use crate::plan::held_resources;

/// Containers that the filter lets through, oldest first.
pub(crate) fn list(node: &Node, filter: Option<&cri::ContainerFilter>) -> Vec<cri::Container> {
    let mut containers = matching(node, filter);
    containers.sort_by_key(|container| container.record.created_at);
    containers.iter().map(|container| item(container)).collect()
}

/// As [`list`], as ListContainers answers them.
pub(crate) fn listed(node: &Node, filter: Option<&cri::ContainerFilter>) -> Vec<Listed> {
    let mut containers = matching(node, filter);
    containers.sort_by_cached_key(|container| container.record.created_at);
    let listed = containers.iter().map(|container| {
        let encoded = container.listed.get_or_init(|| {
            let without_state = cri::Container {
                state: 0,
                ..item(container)
            };
            without_state.encode_to_vec().into()
        });
        Listed::container(encoded.clone(), container.cri_state())
    });
    listed.collect()
}

/// As [`list`], as they are.
pub(crate) fn matching(node: &Node, filter: Option<&cri::ContainerFilter>) -> Vec<Arc<Container>> {
    let Some(filter) = filter else {
        return node.containers.all();
    };
    let mut containers = match filter.id.as_str() {
        "" => node.containers.all(),
        // An unknown or ambiguous id filters everything out.
        id => node
            .containers
            .find(id)
            .ok()
            .flatten()
            .into_iter()
            .collect(),
    };
    containers.retain(|container| {
        let state = filter
            .state
            .is_none_or(|state| state.state == container.cri_state() as i32);
        let sandbox = filter.pod_sandbox_id.is_empty()
            || container
                .sandbox
                .id
                .as_str()
                .starts_with(&filter.pod_sandbox_id);
        state && sandbox && selects(&filter.label_selector, &container.config.labels)
    });
    containers
}

/// Whether every label of the selector is there with its value.
pub(crate) fn selects(
    selector: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

impl Container {
    /// Its image by the name that the user knows.
    pub(crate) fn image_name(&self) -> String {
        let Some(asked) = &self.config.image else {
            return String::new();
        };
        let names = [&asked.user_specified_image, &asked.image];
        let given = names.into_iter().find(|name| !name.is_empty());
        given.cloned().unwrap_or_default()
    }
}

fn image_spec(container: &Container) -> cri::ImageSpec {
    let mut spec = container.config.image.clone().unwrap_or_default();
    spec.image = container.image_name();
    spec.image_ref.clone_from(&container.record.image_id);
    spec
}

fn item(container: &Container) -> cri::Container {
    cri::Container {
        id: container.id.to_string(),
        pod_sandbox_id: container.sandbox.id.to_string(),
        metadata: Some(container.metadata()),
        image: Some(image_spec(container)),
        image_ref: container.record.image_id.clone(),
        state: container.cri_state().into(),
        created_at: container.record.created_at,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        image_id: container.record.image_id.clone(),
    }
}

/// A container's status, with more about it when `verbose`.
pub(crate) fn status(
    node: &Node,
    request: &cri::ContainerStatusRequest,
) -> Result<cri::ContainerStatusResponse, CallError> {
    let container = node.containers.require(&request.container_id)?;
    let info = if request.verbose {
        info(node, &container)?
    } else {
        BTreeMap::new()
    };
    Ok(cri::ContainerStatusResponse {
        status: Some(container_status(&container)),
        info,
    })
}

/// The status as events and pod statuses carry it as well.
pub(crate) fn container_status(container: &Container) -> cri::ContainerStatus {
    let state = container.state();
    let (started, exit) = match &state {
        State::Created => (None, None),
        State::Running { started } => (Some(started), None),
        State::Exited { started, exit } => (started.as_ref(), Some(exit)),
    };
    let user = container.record.user.clone().unwrap_or_default();
    let user = cri::LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: user.groups.iter().map(|group| i64::from(*group)).collect(),
    };
    cri::ContainerStatus {
        id: container.id.to_string(),
        metadata: Some(container.metadata()),
        state: state.cri().into(),
        created_at: container.record.created_at,
        started_at: started.map_or(0, |started| started.at),
        finished_at: exit.map_or(0, |exit| exit.finished_at),
        exit_code: exit.map_or(0, |exit| exit.exit_code),
        image: Some(image_spec(container)),
        image_ref: container.record.image_ref.clone(),
        reason: exit.map_or(String::new(), |exit| exit.reason.clone()),
        message: exit.map_or(String::new(), |exit| exit.message.clone()),
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        mounts: container.config.mounts.clone(),
        log_path: container.record.log_path.clone(),
        resources: Some(cri::ContainerResources {
            linux: Some(resources(container)),
            windows: None,
        }),
        image_id: container.record.image_id.clone(),
        user: Some(cri::ContainerUser { linux: Some(user) }),
        stop_signal: stop::told(container).into(),
    }
}

/// What the cgroup holds while the container runs; what was asked for otherwise.
fn resources(container: &Container) -> cri::LinuxContainerResources {
    let asked = container.asked_resources();
    let State::Running { started } = container.state() else {
        return asked;
    };
    let score = oom_score::of(started.pid).unwrap_or(asked.oom_score_adj);
    let group = &container.cgroup;
    let held = group.read_resources();
    let held = held.and_then(|held| Ok((held, group.read_unified(asked.unified.keys())?)));
    match held {
        Ok((held, unified)) => held_resources(&held, unified, &asked, score),
        Err(_) => asked,
    }
}

fn info(node: &Node, container: &Container) -> Result<BTreeMap<String, String>, CallError> {
    let pid = match container.state() {
        State::Running { started } => started.pid,
        _ => 0,
    };
    let spec = serde_json::to_value(container.spec(node)?)
        .internal(|| "cannot show the OCI spec".into())?;
    let info = serde_json::json!({
        "sandboxID": container.sandbox.id.as_str(),
        "pid": pid,
        "cgroup": container.cgroup.path().as_str(),
        "directory": container.directory,
        "layers": container.record.layer_directories,
        "runtimeSpec": spec,
    });
    Ok(BTreeMap::from([("info".to_owned(), info.to_string())]))
}
