//! How all plugins together want containers to be changed that are there.

use crate::api::{ContainerUpdate, LinuxContainerUpdate, LinuxResources};
use crate::error::NriError;
use crate::identity::PluginName;

use super::{Claims, Owners, resources};

/// The container that the plugins were asked about.
#[derive(Debug)]
enum Subject {
    /// It is being made: it cannot be updated.
    Creation { id: String },
    /// It is being updated with these resources, which the plugins may change.
    Update {
        id: String,
        resources: Box<LinuxResources>,
    },
    /// It has stopped, or there is none.
    None,
}

/// Collects the updates in plugins' answers.
#[derive(Debug)]
pub(crate) struct UpdateMerge {
    subject: Subject,
    /// Of other containers, in the order in which they were first named.
    others: Vec<ContainerUpdate>,
    owners: Owners,
}

impl UpdateMerge {
    pub(super) fn for_creation_of(id: String) -> Self {
        Self::new(Subject::Creation { id })
    }

    /// For UpdateContainer with `resources`.
    pub(crate) fn for_update_of(id: String, resources: LinuxResources) -> Self {
        Self::new(Subject::Update {
            id,
            resources: Box::new(resources),
        })
    }

    /// For StopContainer.
    pub(crate) fn for_stop() -> Self {
        Self::new(Subject::None)
    }

    fn new(subject: Subject) -> Self {
        Self {
            subject,
            others: Vec::new(),
            owners: Owners::default(),
        }
    }

    pub(super) fn owners(&self) -> &Owners {
        &self.owners
    }

    pub(super) fn owners_mut(&mut self) -> &mut Owners {
        &mut self.owners
    }

    pub(crate) fn others(&self) -> Vec<ContainerUpdate> {
        self.others.clone()
    }

    /// The resources that the updated container shall have, as the next plugin sees them.
    pub(crate) fn requested(&self) -> LinuxResources {
        match &self.subject {
            Subject::Update { resources, .. } => (**resources).clone(),
            Subject::Creation { .. } | Subject::None => LinuxResources::default(),
        }
    }

    /// Adds a plugin's updates. One that must not fail the call is left out when it contradicts another plugin's.
    pub(crate) fn apply(
        &mut self,
        plugin: &PluginName,
        updates: Vec<ContainerUpdate>,
    ) -> Result<(), NriError> {
        for update in updates {
            if matches!(&self.subject, Subject::Creation { id } if *id == update.container_id) {
                return Err(NriError::UpdateOfNew {
                    plugin: plugin.to_string(),
                });
            }
            let ignore = update.ignore_failure;
            match self.merge(plugin, update) {
                Err(error) if ignore => {
                    tracing::warn!(%plugin, error = %error, "an update that may fail is left out");
                }
                merged => merged?,
            }
        }
        Ok(())
    }

    fn merge(&mut self, plugin: &PluginName, update: ContainerUpdate) -> Result<(), NriError> {
        let from = update
            .linux
            .as_ref()
            .and_then(|linux| linux.resources.clone())
            .unwrap_or_default();
        let mut claims = Claims {
            owners: &mut self.owners,
            container: &update.container_id,
            plugin,
        };
        if let Subject::Update { id, resources } = &mut self.subject
            && *id == update.container_id
        {
            // On a copy: a conflict that is ignored must leave nothing half done.
            let mut changed = (**resources).clone();
            resources::merge(&mut claims, &from, &mut [&mut changed])?;
            **resources = changed;
            return Ok(());
        }
        let known = self
            .others
            .iter_mut()
            .find(|other| other.container_id == update.container_id);
        let mut changed = known
            .as_ref()
            .and_then(|known| known.linux.clone()?.resources)
            .unwrap_or_default();
        resources::merge(&mut claims, &from, &mut [&mut changed])?;
        let linux = Some(LinuxContainerUpdate {
            resources: Some(changed),
        });
        match known {
            Some(known) => {
                known.linux = linux;
                known.ignore_failure &= update.ignore_failure;
            }
            None => self.others.push(ContainerUpdate { linux, ..update }),
        }
        Ok(())
    }
}
