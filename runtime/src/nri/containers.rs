//! What plugins are told of containers, and what they make of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use podwright_cri_api::v1::LinuxContainerResources;
use podwright_nri::api::{
    ContainerAdjustment, ContainerEviction, ContainerUpdate, Event, LinuxResources, LinuxSeccomp,
};
use podwright_nri::{Creation, Host as _};

use super::{NodeHost, call_error, describe, resources};
use crate::container::Container;
use crate::error::{CallError, Context, chain};
use crate::node::Node;
use crate::records::NriRecord;

/// What plugins have made of a container, and how far they have been told of it.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// As it was when it was created; does not change.
    adjustment: Option<ContainerAdjustment>,
    /// The limits of plugins that CRI cannot say; the others are with the container's. Guards the value alone.
    limits: Mutex<LinuxResources>,
    /// Held while plugins are told of its start or end, so that they hear the end last.
    order: tokio::sync::Mutex<()>,
    /// Whether they have heard of its end, or were not there to hear it.
    ended: AtomicBool,
}

impl Told {
    /// As it was recorded.
    pub(crate) fn recorded(record: Option<NriRecord>) -> Self {
        let record = record.unwrap_or_default();
        Self {
            adjustment: record.adjustment,
            limits: Mutex::new(record.limits.unwrap_or_default()),
            ..Self::default()
        }
    }

    /// What is to be recorded; none when no plugin has changed anything.
    pub(crate) fn record(&self) -> Option<NriRecord> {
        let limits = self.limits();
        let limits = (limits != LinuxResources::default()).then_some(limits);
        (self.adjustment.is_some() || limits.is_some()).then(|| NriRecord {
            adjustment: self.adjustment.clone(),
            limits,
        })
    }

    pub(crate) fn adjustment(&self) -> Option<&ContainerAdjustment> {
        self.adjustment.as_ref()
    }

    /// In place of the profile that the request names.
    pub(crate) fn seccomp_policy(&self) -> Option<&LinuxSeccomp> {
        self.adjustment
            .as_ref()?
            .linux
            .as_ref()?
            .seccomp_policy
            .as_ref()
    }

    pub(crate) fn limits(&self) -> LinuxResources {
        self.limits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Adds limits that CRI cannot say; what is to be recorded then, if anything has changed.
    pub(crate) fn add_limits(&self, new: LinuxResources) -> Option<NriRecord> {
        if new == LinuxResources::default() {
            return None;
        }
        {
            let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            resources::add(&mut limits, new);
        }
        self.record()
    }

    /// Nobody is to be told of its end: it ended before anybody was there to hear.
    pub(crate) fn know_end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Puts the plugins' limits onto those that the container has by CRI.
    pub(crate) fn overlay(
        &self,
        limits: &mut oci_spec::runtime::LinuxResources,
    ) -> Result<(), CallError> {
        resources::overlay(limits, &self.limits())
    }
}

/// How plugins want a container to be made, and what shall change elsewhere once it is.
pub(crate) struct Adjusted {
    pub(crate) told: Told,
    /// The container's limits with the plugins'.
    pub(crate) resources: LinuxContainerResources,
    updates: Vec<ContainerUpdate>,
    evictions: Vec<ContainerEviction>,
}

/// Asks plugins how `container`, which is not made yet, shall be made. None when nobody is to be asked.
pub(crate) async fn wishes(
    node: &Node,
    container: &Container,
) -> Result<Option<Adjusted>, CallError> {
    if !node
        .nri
        .wants_creation(&container.sandbox.config.annotations)
    {
        return Ok(None);
    }
    let pod = describe::pod(node, &container.sandbox);
    let described = describe::of_spec(container, &container.spec(node)?);
    let Creation {
        mut adjustment,
        updates,
        evictions,
    } = node
        .nri
        .create_container(pod, described)
        .await
        .map_err(|error| call_error("cannot create the container", error))?;
    check_sources(&adjustment)?;
    let limits = adjustment
        .linux
        .as_mut()
        .and_then(|linux| linux.resources.take())
        .unwrap_or_default();
    let (said, rest) = resources::split(limits)?;
    let mut combined = resources::combine(container.asked_resources(), said);
    // Kept with the limits, so that a later update takes its place. Zero is not given there: then it stays an adjustment.
    let score = adjustment
        .linux
        .as_mut()
        .and_then(|linux| linux.oom_score_adj.take_if(|score| score.value != 0));
    if let Some(score) = score {
        combined.oom_score_adj = score.value;
    }
    // Wrong limits are found now, not at the start.
    crate::plan::oci_resources(&combined, None)?;
    Ok(Some(Adjusted {
        told: Told {
            adjustment: (adjustment != ContainerAdjustment::default()).then_some(adjustment),
            limits: Mutex::new(rest),
            ..Told::default()
        },
        resources: combined,
        updates,
        evictions,
    }))
}

/// What is to be shown in the container has to be there: the start would fail, and say less.
fn check_sources(adjustment: &ContainerAdjustment) -> Result<(), CallError> {
    for mount in &adjustment.mounts {
        let bind = mount.r#type == "bind"
            || mount
                .options
                .iter()
                .any(|option| option == "bind" || option == "rbind");
        if bind && !mount.destination.starts_with('-') {
            std::fs::metadata(&mount.source).invalid(|| {
                format!(
                    "a NRI plugin asks for a mount of '{}', which cannot be mounted",
                    crate::index::shown(&mount.source)
                )
            })?;
        }
    }
    Ok(())
}

/// Does elsewhere what plugins asked for when `container` was created, and tells them that it was.
///
/// # Errors
/// When an update fails that must not.
pub(crate) async fn follow_up(
    node: &Arc<Node>,
    container: &Arc<Container>,
    adjusted: Option<(Vec<ContainerUpdate>, Vec<ContainerEviction>)>,
) -> Result<(), CallError> {
    if let Some((updates, evictions)) = adjusted {
        update_others(node, updates).await?;
        for eviction in evictions {
            let host = NodeHost::of(node);
            tokio::spawn(async move {
                let id = eviction.container_id.clone();
                if let Err(why) = host.evict(eviction).await {
                    tracing::error!(container = id, why, "cannot evict as a NRI plugin asks");
                }
            });
        }
    }
    tell(node, container, Event::PostCreateContainer).await;
    Ok(())
}

impl Adjusted {
    /// What is done once the container is there.
    pub(crate) fn elsewhere(&mut self) -> (Vec<ContainerUpdate>, Vec<ContainerEviction>) {
        (
            std::mem::take(&mut self.updates),
            std::mem::take(&mut self.evictions),
        )
    }
}

/// A start under way: plugins are told of its end after it.
pub(crate) struct Starting<'a> {
    container: &'a Container,
    _order: tokio::sync::MutexGuard<'a, ()>,
}

/// A container is about to be started. A plugin may refuse: then it must not.
pub(crate) async fn starting<'a>(
    node: &Node,
    container: &'a Container,
) -> Result<Starting<'a>, CallError> {
    let starting = Starting {
        container,
        _order: container.nri.order.lock().await,
    };
    if node.nri.wants(Event::StartContainer) {
        let pod = describe::pod(node, &container.sandbox);
        let described = describe::container(node, container);
        node.nri
            .container_event(Event::StartContainer, pod, described)
            .await
            .map_err(|error| call_error("cannot start the container", error))?;
    }
    Ok(starting)
}

impl Starting<'_> {
    /// It was started.
    pub(crate) async fn done(self, node: &Node) {
        tell(node, self.container, Event::PostStartContainer).await;
    }
}

/// A container's limits are about to change: to those returned, in CRI's words and the rest, and others' with them.
pub(crate) async fn updating(
    node: &Node,
    container: &Container,
    asked: LinuxContainerResources,
) -> Result<
    (
        LinuxContainerResources,
        LinuxResources,
        Vec<ContainerUpdate>,
    ),
    CallError,
> {
    if !node.nri.wants(Event::UpdateContainer) {
        return Ok((asked, LinuxResources::default(), Vec::new()));
    }
    let pod = describe::pod(node, &container.sandbox);
    let described = describe::container(node, container);
    let (limits, others) = node
        .nri
        .update_container(pod, described, resources::of_cri(&asked))
        .await
        .map_err(|error| call_error("cannot update the container", error))?;
    let (mut said, rest) = resources::split(limits)?;
    said.oom_score_adj = asked.oom_score_adj;
    Ok((said, rest, others))
}

/// Its limits have changed; now the others'.
pub(crate) async fn updated(
    node: &Arc<Node>,
    container: &Container,
    others: Vec<ContainerUpdate>,
) -> Result<(), CallError> {
    let updated = update_others(node, others).await;
    tell(node, container, Event::PostUpdateContainer).await;
    updated
}

/// A container has ended; whoever waits for nothing else may go on.
pub(crate) fn ended(node: &Arc<Node>, container: &Container) {
    if !node.nri.wants(Event::StopContainer) {
        container.nri.know_end();
        return;
    }
    if let Some(container) = node.containers.get(container.id.as_str()) {
        let node = Arc::clone(node);
        tokio::spawn(async move { stopped(&node, &container).await });
    }
}

/// Tells plugins of a container's end, unless they know; returns when they do.
pub(crate) async fn stopped(node: &Arc<Node>, container: &Container) {
    if container.nri.ended.load(Ordering::Relaxed) {
        return;
    }
    let order = container.nri.order.lock().await;
    if container.nri.ended.swap(true, Ordering::Relaxed) || !node.nri.wants(Event::StopContainer) {
        return;
    }
    let pod = describe::pod(node, &container.sandbox);
    let described = describe::container(node, container);
    let told = node.nri.stop_container(pod, described).await;
    drop(order);
    let updated = match told {
        Ok(updates) => update_others(node, updates).await,
        Err(error) => Err(call_error("a NRI plugin objects", error)),
    };
    if let Err(error) = updated {
        tracing::warn!(container = %container.id, error = %chain(&error), "what NRI plugins want after the container's end is not all done");
    }
}

/// A container that plugins were asked about is not made: what they keep for it is to be freed.
pub(crate) async fn undone(node: &Arc<Node>, container: &Container) {
    stopped(node, container).await;
    removed(node, container).await;
}

/// A container is removed.
pub(crate) async fn removed(node: &Node, container: &Container) {
    tell(node, container, Event::RemoveContainer).await;
}

/// What has happened is not refused by anybody.
async fn tell(node: &Node, container: &Container, event: Event) {
    if !node.nri.wants(event) {
        return;
    }
    let pod = describe::pod(node, &container.sandbox);
    let described = describe::container(node, container);
    if let Err(error) = node.nri.container_event(event, pod, described).await {
        tracing::warn!(container = %container.id, error = %chain(&error), "a NRI plugin objects to what has happened");
    }
}

async fn update_others(node: &Arc<Node>, updates: Vec<ContainerUpdate>) -> Result<(), CallError> {
    let host = NodeHost::of(node);
    for update in updates {
        let (id, ignore) = (update.container_id.clone(), update.ignore_failure);
        match host.update(update).await {
            Err(why) if ignore => {
                tracing::warn!(container = id, why, "an update that may fail has failed");
            }
            done => done.internal(|| {
                format!(
                    "cannot update the container '{}' as a NRI plugin asks",
                    crate::index::shown(&id)
                )
            })?,
        }
    }
    Ok(())
}
