//! One method for each event: every plugin that wants it is told, in their order.

use prost::Message as _;

use super::Nri;
use crate::api::{
    Container, ContainerAdjustment, ContainerEviction, ContainerUpdate, CreateContainerRequest,
    CreateContainerResponse, Event, LinuxResources, PluginInstance, PodSandbox,
    PostCreateContainerRequest, RunPodSandboxRequest, StateChangeEvent, StopContainerRequest,
    StopContainerResponse, UpdateContainerRequest, UpdateContainerResponse,
    UpdatePodSandboxRequest, ValidateContainerAdjustmentRequest,
    ValidateContainerAdjustmentResponse,
};
use crate::error::{NriError, shown};
use crate::identity::PluginName;
use crate::merge::{CreationMerge, UpdateMerge};
use crate::plugin::{Asked, method};
use crate::validator::{self, Seen};

/// How a new container shall be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Creation {
    /// What is different from what was asked for.
    pub adjustment: ContainerAdjustment,
    /// What shall change of other containers.
    pub updates: Vec<ContainerUpdate>,
    /// Containers that shall go.
    pub evictions: Vec<ContainerEviction>,
}

/// What an update of a pod asks for; what is none stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodUpdate {
    /// What the pod itself costs.
    pub overhead: Option<LinuxResources>,
    /// What its containers have together.
    pub resources: Option<LinuxResources>,
}

impl Nri {
    /// Tells of a pod: that it runs, has stopped, is removed, or was updated.
    ///
    /// # Errors
    /// When a plugin refuses.
    pub async fn pod_event(&self, event: Event, pod: PodSandbox) -> Result<(), NriError> {
        // The requests of these events are the same on the wire: a pod in field 1.
        let request = RunPodSandboxRequest {
            pod: Some(pod.clone()),
        };
        let change = StateChangeEvent {
            event: event.into(),
            pod: Some(pod),
            container: None,
        };
        self.tell(
            event,
            &request.encode_to_vec(),
            Some(&change.encode_to_vec()),
        )
        .await
    }

    /// Tells that a pod's resources are about to change.
    ///
    /// # Errors
    /// When a plugin refuses.
    pub async fn update_pod(&self, pod: PodSandbox, update: PodUpdate) -> Result<(), NriError> {
        let request = UpdatePodSandboxRequest {
            pod: Some(pod),
            overhead_linux_resources: update.overhead,
            linux_resources: update.resources,
        };
        self.tell(Event::UpdatePodSandbox, &request.encode_to_vec(), None)
            .await
    }

    /// Tells of a container: that it was created, is about to be started, was started or updated, or is removed.
    ///
    /// # Errors
    /// When a plugin refuses.
    pub async fn container_event(
        &self,
        event: Event,
        pod: PodSandbox,
        container: Container,
    ) -> Result<(), NriError> {
        // As for pods: the pod in field 1, the container in field 2.
        let request = PostCreateContainerRequest {
            pod: Some(pod.clone()),
            container: Some(container.clone()),
        };
        let change = StateChangeEvent {
            event: event.into(),
            pod: Some(pod),
            container: Some(container),
        };
        self.tell(
            event,
            &request.encode_to_vec(),
            Some(&change.encode_to_vec()),
        )
        .await
    }

    async fn tell(
        &self,
        event: Event,
        request: &[u8],
        state_change: Option<&[u8]>,
    ) -> Result<(), NriError> {
        for plugin in self.shared.plugins().iter() {
            if !plugin.events.contains(event) {
                continue;
            }
            if let Asked::Refused(reason) = plugin.tell(event, request, state_change).await {
                return Err(refused(&plugin.name, event, reason));
            }
        }
        Ok(())
    }

    /// Whether plugins have to see a new container of a pod with these annotations, though none may be there.
    pub fn wants_creation(
        &self,
        pod_annotations: &std::collections::BTreeMap<String, String>,
    ) -> bool {
        self.wants(Event::CreateContainer)
            || self.shared.config.is_some() && validator::is_demanding(pod_annotations)
    }

    /// Asks how a container shall be made.
    ///
    /// # Errors
    /// When a plugin refuses, two contradict each other, a required one has not seen it, or the whole does not pass.
    pub async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<Creation, NriError> {
        let plugins = self.shared.plugins();
        let mut merge = CreationMerge::new(container.clone());
        let mut seen = Seen::default();
        for plugin in plugins.iter() {
            if plugin.events.contains(Event::CreateContainer) {
                let request = CreateContainerRequest {
                    pod: Some(pod.clone()),
                    container: Some(merge.container().clone()),
                };
                match plugin
                    .ask::<CreateContainerResponse>(Event::CreateContainer, &request)
                    .await
                {
                    Asked::Answered(answer) => merge.apply(&plugin.name, answer)?,
                    Asked::Refused(reason) => {
                        return Err(refused(&plugin.name, Event::CreateContainer, reason));
                    }
                    Asked::Missed(why) => {
                        seen.missed.push((plugin.name.clone(), why));
                        continue;
                    }
                }
            }
            seen.by.push(plugin.name.clone());
        }
        if self.wants(Event::ValidateContainerAdjustment) {
            self.validate(&pod, &container, &merge, &mut seen).await?;
        }
        if let Some(config) = &self.shared.config {
            validator::check(config, &pod, &container, &merge, &seen)?;
        }
        let (adjustment, updates, evictions) = merge.finish();
        Ok(Creation {
            adjustment,
            updates,
            evictions,
        })
    }

    /// Shows the whole to the plugins that judge it. No answer is no consent; a plugin that has gone is not there to give any, and
    /// has not seen the container.
    async fn validate(
        &self,
        pod: &PodSandbox,
        container: &Container,
        merge: &CreationMerge,
        seen: &mut Seen,
    ) -> Result<(), NriError> {
        let instance = |name: &PluginName| PluginInstance {
            name: name.name().into(),
            index: name.index().into(),
        };
        let request = ValidateContainerAdjustmentRequest {
            pod: Some(pod.clone()),
            container: Some(container.clone()),
            adjust: Some(merge.adjustment().clone()),
            update: merge.updates(),
            owners: Some(merge.owners().message().clone()),
            plugins: seen.by.iter().map(instance).collect(),
        };
        let event = Event::ValidateContainerAdjustment;
        for plugin in self.shared.plugins().iter() {
            if !plugin.events.contains(event) {
                continue;
            }
            let plugin_name = plugin.name.to_string();
            match plugin
                .ask::<ValidateContainerAdjustmentResponse>(event, &request)
                .await
            {
                Asked::Answered(verdict) if !verdict.reject => {}
                Asked::Answered(verdict) => {
                    return Err(NriError::Invalid {
                        plugin: plugin_name,
                        reason: shown(&verdict.reason),
                    });
                }
                Asked::Missed(why) if plugin.connection.end().is_some() => {
                    seen.by.retain(|name| *name != plugin.name);
                    seen.missed.push((plugin.name.clone(), why));
                }
                Asked::Refused(why) | Asked::Missed(why) => {
                    return Err(NriError::NotValidated {
                        plugin: plugin_name,
                        why,
                    });
                }
            }
        }
        Ok(())
    }

    /// Asks what an update of a container shall be: its resources then, and updates of others.
    ///
    /// # Errors
    /// When a plugin refuses, or two contradict each other.
    pub async fn update_container(
        &self,
        pod: PodSandbox,
        container: Container,
        resources: LinuxResources,
    ) -> Result<(LinuxResources, Vec<ContainerUpdate>), NriError> {
        let mut merge = UpdateMerge::for_update_of(container.id.clone(), resources);
        for plugin in self.shared.plugins().iter() {
            if !plugin.events.contains(Event::UpdateContainer) {
                continue;
            }
            let request = UpdateContainerRequest {
                pod: Some(pod.clone()),
                container: Some(container.clone()),
                linux_resources: Some(merge.requested()),
            };
            match plugin
                .ask::<UpdateContainerResponse>(Event::UpdateContainer, &request)
                .await
            {
                Asked::Answered(answer) => merge.apply(&plugin.name, answer.update)?,
                Asked::Refused(why) => {
                    return Err(refused(&plugin.name, Event::UpdateContainer, why));
                }
                Asked::Missed(_) => {}
            }
        }
        Ok((merge.requested(), merge.others()))
    }

    /// Tells that a container has ended; the answer is what shall change of others.
    ///
    /// # Errors
    /// When a plugin refuses, or two contradict each other. The others have been told.
    pub async fn stop_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<Vec<ContainerUpdate>, NriError> {
        let mut merge = UpdateMerge::for_stop();
        let mut failed = None;
        let request = StopContainerRequest {
            pod: Some(pod),
            container: Some(container),
        };
        for plugin in self.shared.plugins().iter() {
            if !plugin.events.contains(Event::StopContainer) {
                continue;
            }
            let merged = match plugin
                .ask::<StopContainerResponse>(Event::StopContainer, &request)
                .await
            {
                Asked::Answered(answer) => merge.apply(&plugin.name, answer.update),
                Asked::Refused(why) => Err(refused(&plugin.name, Event::StopContainer, why)),
                Asked::Missed(_) => Ok(()),
            };
            // What has ended cannot be undone: every plugin hears of it.
            failed = failed.or(merged.err());
        }
        failed.map_or_else(|| Ok(merge.others()), Err)
    }
}

fn refused(plugin: &PluginName, event: Event, reason: String) -> NriError {
    NriError::Refused {
        plugin: plugin.to_string(),
        event: method(event),
        reason,
    }
}
