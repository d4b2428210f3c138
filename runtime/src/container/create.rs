//! CreateContainer: everything that can be decided before the container runs is decided and checked here.

use std::sync::{Arc, Mutex};

use oci_spec::image::ImageConfiguration;
use podwright_cri_api::v1::{
    ContainerConfig, ContainerEventType, CreateContainerRequest, LinuxContainerSecurityContext,
    SupplementalGroupsPolicy,
};
use podwright_image::Image;
use podwright_nri::api::{CdiDevice, ContainerEviction, ContainerUpdate};
use podwright_pause::mapping::{IdMappings, outside};

use super::{Container, ContainerName, Parts, State, volume_images};
use crate::cdi;
use crate::clock;
use crate::error::{CallError, Context, Kind};
use crate::ids::ContainerId;
use crate::index::shown;
use crate::names::Claim;
use crate::node::Node;
use crate::nri;
use crate::plan;
use crate::records::{ContainerRecord, Record, ResourcesRecord, UserRecord};
use crate::sandbox::{Sandbox, check_same, map_volume};
use crate::security::users::{GroupsPolicy, KeptDatabase, MAX_DATABASE, UserRequest, resolve};

/// Creates a container; a retried call finds the first one's.
pub(crate) async fn create(
    node: &Arc<Node>,
    request: CreateContainerRequest,
) -> Result<ContainerId, CallError> {
    let config = request
        .config
        .ok_or_else(|| CallError::invalid("the request has no container config"))?;
    let metadata = config
        .metadata
        .clone()
        .ok_or_else(|| CallError::invalid("the container config has no metadata"))?;
    crate::sandbox::check_name("the container's name", &metadata.name)?;
    let sandbox = node.sandboxes.require(&request.pod_sandbox_id)?;
    // Held to the end: a pod that is being removed must not get a container that nobody then removes.
    let pod = Arc::clone(&sandbox);
    let _operation = pod.operation.lock().await;
    sandbox.require_ready("create the container")?;
    let name = ContainerName {
        sandbox: sandbox.id.clone(),
        name: metadata.name,
        attempt: metadata.attempt,
    };
    let reservation = match node.container_names.reserve(name).await {
        Claim::Free(reservation) => reservation,
        Claim::Taken(id) => return found(node, id, &config),
    };
    let id = ContainerId::random().internal(|| "cannot make an id from /dev/urandom".into())?;
    let directory = super::directory(&node.config.state_dir, &id);
    // No new plugin is told what lives until the container is among it.
    let gate = node.nri.hold().await;
    match make(node, &id, sandbox, config).await {
        Ok((container, elsewhere)) => {
            let container = Arc::new(container);
            node.add_container(Arc::clone(&container));
            node.container_events
                .container(ContainerEventType::ContainerCreatedEvent, &container);
            reservation.keep(id.clone());
            drop(gate);
            if let Err(error) = nri::follow_up(node, &container, elsewhere).await {
                super::remove(node, id.as_str()).await?;
                return Err(error);
            }
            Ok(id)
        }
        Err(error) => {
            node.reclaim.directory(directory);
            Err(error)
        }
    }
}

fn found(node: &Node, id: ContainerId, config: &ContainerConfig) -> Result<ContainerId, CallError> {
    match node.containers.get(id.as_str()) {
        Some(container) if container.config == *config && container.state() == State::Created => {
            Ok(id)
        }
        _ => {
            let what = format!(
                "the name and attempt belong to the container {id} of this pod already: remove it or count the attempt up"
            );
            Err(CallError::new(Kind::AlreadyExists, what))
        }
    }
}

/// The container, and what NRI plugins want elsewhere for it.
async fn make(
    node: &Arc<Node>,
    id: &ContainerId,
    sandbox: Arc<Sandbox>,
    config: ContainerConfig,
) -> Result<(Container, Option<Elsewhere>), CallError> {
    let reference = config
        .image
        .as_ref()
        .map(|image| image.image.clone())
        .unwrap_or_default();
    if reference.is_empty() {
        return Err(CallError::invalid("the container config names no image"));
    }
    let missing = || {
        CallError::new(
            Kind::NotFound,
            format!(
                "the image '{}' is not on this node: pull it first",
                shown(&reference)
            ),
        )
    };
    let image = node.images.resolve(&reference).ok_or_else(missing)?;
    let lease = node
        .images
        .lease(&image)
        .internal(|| format!("cannot use the image '{}'", shown(&reference)))?;
    check(node, &sandbox, &config)?;
    let (volume_images, mut leases) = volume_images::resolve(node, &config)?;
    leases.push(lease);
    let confinement = super::confine::decide(node, &sandbox, &config).await?;
    let mut record = record(node, id, &sandbox, &image, config)?;
    record.confinement = Some(confinement);
    record.volume_images = volume_images;
    let cgroup = sandbox
        .cgroup
        .join(id.as_str())
        .internal(|| "cannot name the container's cgroup".into())?;
    let directory = super::directory(&node.config.state_dir, id);
    let mut container = Container::new(Parts {
        id: id.clone(),
        sandbox,
        image: Arc::clone(&image.config),
        directory,
        cgroup: node.cgroups.cgroup(&cgroup),
        leases,
        state: State::Created,
        resources: None,
        nri: nri::Told::default(),
        record,
    });
    let made = match adjust(node, &mut container).await {
        Ok(elsewhere) => lay_out(node, &container).map(|()| elsewhere),
        Err(error) => Err(error),
    };
    match made {
        Ok(elsewhere) => Ok((container, elsewhere)),
        Err(error) => {
            nri::undone(node, &container).await;
            node.reclaim.cgroup(container.cgroup);
            Err(error)
        }
    }
}

/// Refuses what this pod or this machine cannot give.
fn check(node: &Node, sandbox: &Sandbox, config: &ContainerConfig) -> Result<(), CallError> {
    let linux = config.linux.as_ref();
    let context = linux.and_then(|linux| linux.security_context.as_ref());
    let namespaces = context.and_then(|context| context.namespace_options.as_ref());
    check_same(sandbox, namespaces)?;
    check_privilege(sandbox, context)?;
    plan::check_mounts(config)?;
    for volume in &config.mounts {
        if plan::volume_image(volume).is_none() && map_volume(sandbox, volume)? {
            node.user_namespaces
                .check_volume(&volume.host_path, &volume.container_path)?;
        }
    }
    super::log::check_path(sandbox, config)
}

/// Compiles the container, and makes its directory, records and cgroup.
fn lay_out(node: &Node, container: &Container) -> Result<(), CallError> {
    let compiled = container.compile(node)?;
    super::relabel::volumes(&container.config, &compiled.spec)?;
    let linux = compiled.spec.linux().as_ref();
    let label = linux.and_then(|linux| linux.mount_label().as_deref());
    make_writable_layer(container, label)?;
    let directory = &container.directory;
    whole_record(container)?
        .write(directory)
        .internal(|| "cannot create the container".into())?;
    super::start::make_group(node, container, &compiled)?;
    if let Some(record) = container.nri.record() {
        record
            .write(directory)
            .internal(|| "cannot create the container".into())?;
        let record = ResourcesRecord {
            resources: Some(container.asked_resources()),
        };
        record
            .write(directory)
            .internal(|| "cannot create the container".into())?;
    }
    Ok(())
}

/// What NRI plugins want done once the container is there.
type Elsewhere = (Vec<ContainerUpdate>, Vec<ContainerEviction>);

/// Lets NRI plugins have their say. None when there is nobody to ask.
async fn adjust(node: &Node, container: &mut Container) -> Result<Option<Elsewhere>, CallError> {
    let Some(mut adjusted) = nri::wishes(node, container).await? else {
        return Ok(None);
    };
    let elsewhere = adjusted.elsewhere();
    container.resources = Mutex::new(adjusted.resources);
    container.nri = adjusted.told;
    let wishes = container.nri.adjustment();
    let devices = wishes.map_or(&[][..], |wishes| &wishes.cdi_devices);
    if !devices.is_empty() {
        // All together: no edit of a file is made twice.
        let edits = cdi_edits(node, &container.config, devices).map_err(|error| {
            let what = "cannot give the container the CDI devices that NRI plugins ask for";
            CallError::caused(Kind::FailedPrecondition, what, error)
        });
        container.record.cdi_edits = edits?;
    }
    Ok(Some(elsewhere))
}

/// "If a privileged container is to be executed within it, this MUST be true" (CRI, LinuxSandboxSecurityContext).
fn check_privilege(
    sandbox: &Sandbox,
    context: Option<&LinuxContainerSecurityContext>,
) -> Result<(), CallError> {
    let pod = sandbox
        .config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    let announced = pod.is_some_and(|pod| pod.privileged);
    if context.is_some_and(|context| context.privileged) && !announced {
        return Err(CallError::invalid(
            "the container is privileged, but the pod sandbox was run without privileged in its security context",
        ));
    }
    Ok(())
}

/// Overlayfs gives the root directory the owner of the upper one.
fn make_writable_layer(container: &Container, label: Option<&str>) -> Result<(), CallError> {
    let upper = container.directory.join("upper");
    for path in [
        &container.directory,
        &upper,
        &container.directory.join("work"),
    ] {
        std::fs::create_dir(path)
            .internal(|| format!("cannot make the directory {}", path.display()))?;
        if let Some(label) = label {
            super::relabel::label_path(path, label)?;
        }
    }
    match &container.sandbox.settings.user_namespace {
        None => Ok(()),
        Some(IdMappings { uids, gids }) => {
            std::os::unix::fs::chown(&upper, outside(uids, 0), outside(gids, 0))
                .internal(|| format!("cannot give {} to the pod's root", upper.display()))
        }
    }
}

/// What is kept of the request and of the image that its name means now.
fn record(
    node: &Node,
    id: &ContainerId,
    sandbox: &Sandbox,
    image: &Image,
    config: ContainerConfig,
) -> Result<ContainerRecord, CallError> {
    Ok(ContainerRecord {
        id: id.to_string(),
        sandbox: sandbox.id.to_string(),
        created_at: clock::now(),
        image_id: image.id.to_string(),
        image_ref: image
            .repo_digests
            .first()
            .cloned()
            .unwrap_or_else(|| image.id.to_string()),
        // Beside the record until that is written.
        image_config: String::new(),
        layer_directories: image.layers.iter().map(|layer| layer.dir.clone()).collect(),
        chains: image
            .layers
            .iter()
            .map(|layer| layer.chain_id.to_string())
            .collect(),
        volume_images: Vec::new(),
        cdi_edits: cdi_edits(node, &config, &[])?,
        confinement: None,
        user: Some(mapped(sandbox, user(node, image, &config)?)?),
        log_path: super::log::path(sandbox, &config),
        config: Some(config),
    })
}

/// The container's record, with what the container has beside it.
fn whole_record(container: &Container) -> Result<ContainerRecord, CallError> {
    Ok(ContainerRecord {
        config: Some(container.config.clone()),
        image_config: serde_json::to_string(&*container.image)
            .internal(|| "cannot write the image's configuration".into())?,
        ..container.record.clone()
    })
}

/// What the request's CDI devices, and those that NRI plugins want, mean now.
fn cdi_edits(
    node: &Node,
    config: &ContainerConfig,
    wishes: &[CdiDevice],
) -> Result<String, CallError> {
    let wishes = wishes.iter().map(|device| device.name.as_str());
    let devices = cdi::wanted(config, wishes)?;
    if devices.is_empty() {
        return Ok(String::new());
    }
    node.cdi.edits(&devices)?.completed()?.to_json()
}

/// Who the container runs as, by the user database of its image.
fn user(node: &Node, image: &Image, config: &ContainerConfig) -> Result<UserRecord, CallError> {
    let context = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.clone())
        .unwrap_or_default();
    let image_user = image
        .config
        .config()
        .as_ref()
        .and_then(|config| config.user().clone())
        .unwrap_or_default();
    let policy = match SupplementalGroupsPolicy::try_from(context.supplemental_groups_policy) {
        Ok(SupplementalGroupsPolicy::Merge) => GroupsPolicy::Merge,
        Ok(SupplementalGroupsPolicy::Strict) => GroupsPolicy::Strict,
        Err(_) => {
            return Err(CallError::invalid(format!(
                "{} is no supplemental groups policy",
                context.supplemental_groups_policy
            )));
        }
    };
    let request = UserRequest {
        image_user: &image_user,
        run_as_user: context.run_as_user.map(|user| user.value),
        run_as_group: context.run_as_group.map(|group| group.value),
        run_as_username: &context.run_as_username,
        supplemental_groups: &context.supplemental_groups,
        policy,
    };
    let database = node
        .user_databases
        .of(&image.id, || user_database(node, image))?;
    let user = resolve(&request, &database.as_database())
        .invalid(|| "cannot run the container as its user".into())?;
    Ok(UserRecord {
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        home: user.home.unwrap_or_default(),
    })
}

fn user_database(node: &Node, image: &Image) -> Result<KeptDatabase, CallError> {
    let view = node
        .images
        .view(image)
        .internal(|| "cannot look into the image".into())?;
    let read = |path: &str| {
        view.read(path, MAX_DATABASE as u64)
            .internal(|| format!("cannot read /{path} of the image"))
    };
    Ok(KeptDatabase {
        passwd: read("etc/passwd")?,
        group: read("etc/group")?,
    })
}

/// A user whom the pod's user namespace has, or an error.
fn mapped(sandbox: &Sandbox, user: UserRecord) -> Result<UserRecord, CallError> {
    let Some(IdMappings { uids, gids }) = &sandbox.settings.user_namespace else {
        return Ok(user);
    };
    let group = std::iter::once(&user.gid)
        .chain(&user.groups)
        .find(|group| outside(gids, **group).is_none());
    let (kind, id) = match (outside(uids, user.uid), group) {
        (None, _) => ("user", user.uid),
        (_, Some(group)) => ("group", *group),
        _ => return Ok(user),
    };
    Err(CallError::invalid(format!(
        "cannot run the container as its user: the pod's user namespace does not map the {kind} id {id}"
    )))
}

/// The configuration of a recorded container's image: the image's own, or what the record carries when the image was removed.
pub(crate) fn recorded_image(
    node: &Node,
    record: &ContainerRecord,
) -> Result<Arc<ImageConfiguration>, serde_json::Error> {
    match node.images.resolve(&record.image_id) {
        Some(image) => Ok(Arc::clone(&image.config)),
        None => serde_json::from_str(&record.image_config).map(Arc::new),
    }
}
