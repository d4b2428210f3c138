//! How all plugins together want a new container to be made.

use crate::api::{
    CdiDevice, Container, ContainerAdjustment, ContainerEviction, ContainerUpdate,
    CreateContainerResponse, Field, Hooks, KeyValue, LinuxContainer, LinuxContainerAdjustment,
    LinuxNamespace, LinuxRdt, LinuxResources, Marked, PosixRlimit,
};
use crate::error::NriError;
use crate::identity::PluginName;

use super::lists::{merge_list, merge_map};
use super::{Claims, Owners, UpdateMerge, resources};

/// Collects the answers to CreateContainer.
#[derive(Debug)]
pub(crate) struct CreationMerge {
    /// As the next plugin sees it.
    container: Container,
    adjustment: ContainerAdjustment,
    updates: UpdateMerge,
    evictions: Vec<ContainerEviction>,
}

/// Takes a field that has one owner and no parts.
macro_rules! merge_whole {
    ($claims:expr, $value:expr, $field:ident, $($target:expr),+) => {
        if let Some(value) = $value {
            $claims.take(Field::$field)?;
            $($target = Some(value.clone());)+
        }
    };
}

impl CreationMerge {
    pub(crate) fn new(container: Container) -> Self {
        Self {
            updates: UpdateMerge::for_creation_of(container.id.clone()),
            container,
            adjustment: ContainerAdjustment::default(),
            evictions: Vec::new(),
        }
    }

    /// As the next plugin sees it.
    pub(crate) fn container(&self) -> &Container {
        &self.container
    }

    pub(crate) fn adjustment(&self) -> &ContainerAdjustment {
        &self.adjustment
    }

    pub(crate) fn owners(&self) -> &Owners {
        self.updates.owners()
    }

    pub(crate) fn updates(&self) -> Vec<ContainerUpdate> {
        self.updates.others()
    }

    /// What all want.
    pub(crate) fn finish(
        self,
    ) -> (
        ContainerAdjustment,
        Vec<ContainerUpdate>,
        Vec<ContainerEviction>,
    ) {
        (self.adjustment, self.updates.others(), self.evictions)
    }

    /// Adds a plugin's answer.
    pub(crate) fn apply(
        &mut self,
        plugin: &PluginName,
        answer: CreateContainerResponse,
    ) -> Result<(), NriError> {
        if let Some(adjustment) = answer.adjust {
            self.adjust(plugin, adjustment)?;
        }
        self.updates.apply(plugin, answer.update)?;
        self.evictions.extend(answer.evict);
        Ok(())
    }

    fn adjust(&mut self, plugin: &PluginName, from: ContainerAdjustment) -> Result<(), NriError> {
        let Self {
            container,
            adjustment,
            updates,
            ..
        } = self;
        let id = container.id.clone();
        let mut claims = Claims {
            owners: updates.owners_mut(),
            container: &id,
            plugin,
        };
        let claims = &mut claims;
        merge_map(
            claims,
            Field::Annotations,
            from.annotations,
            &mut container.annotations,
            &mut adjustment.annotations,
        )?;
        let mounts = &mut container.mounts;
        let together = &mut adjustment.mounts;
        let added = merge_list(claims, Field::Mounts, from.mounts, together, |key| {
            mounts.retain(|mount| mount.destination != key);
        })?;
        mounts.extend(added);
        merge_env(claims, from.env, container, adjustment)?;
        merge_args(claims, from.args, container, adjustment)?;
        merge_hooks(claims, from.hooks, container, adjustment);
        if let Some(linux) = from.linux {
            merge_linux(claims, linux, container, adjustment)?;
        }
        merge_rlimits(claims, from.rlimits, container, adjustment)?;
        merge_cdi(claims, from.cdi_devices, adjustment)
    }
}

fn merge_env(
    claims: &mut Claims<'_>,
    from: Vec<KeyValue>,
    container: &mut Container,
    adjustment: &mut ContainerAdjustment,
) -> Result<(), NriError> {
    let env = &mut container.env;
    let added = merge_list(claims, Field::Env, from, &mut adjustment.env, |key| {
        env.retain(|entry| entry.split('=').next() != Some(key));
    })?;
    let entries = added
        .iter()
        .map(|KeyValue { key, value }| format!("{key}={value}"));
    env.extend(entries);
    Ok(())
}

/// The reference's mark for arguments that take the place of another plugin's is an empty first one.
fn merge_args(
    claims: &mut Claims<'_>,
    mut from: Vec<String>,
    container: &mut Container,
    adjustment: &mut ContainerAdjustment,
) -> Result<(), NriError> {
    match from.first() {
        None => return Ok(()),
        Some(first) if first.is_empty() => {
            claims.clear(Field::Args);
            from.remove(0);
        }
        Some(_) => {}
    }
    claims.take(Field::Args)?;
    container.args.clone_from(&from);
    adjustment.args = from;
    Ok(())
}

fn merge_hooks(
    claims: &mut Claims<'_>,
    from: Option<Hooks>,
    container: &mut Container,
    adjustment: &mut ContainerAdjustment,
) {
    let Some(from) = from.filter(|hooks| *hooks != Hooks::default()) else {
        return;
    };
    claims
        .owners
        .add(claims.container, Field::OciHooks, claims.plugin);
    for target in [&mut container.hooks, &mut adjustment.hooks] {
        let target = target.get_or_insert_default();
        target.prestart.extend(from.prestart.iter().cloned());
        target
            .create_runtime
            .extend(from.create_runtime.iter().cloned());
        target
            .create_container
            .extend(from.create_container.iter().cloned());
        target
            .start_container
            .extend(from.start_container.iter().cloned());
        target.poststart.extend(from.poststart.iter().cloned());
        target.poststop.extend(from.poststop.iter().cloned());
    }
}

fn merge_linux(
    claims: &mut Claims<'_>,
    mut from: LinuxContainerAdjustment,
    container: &mut Container,
    adjustment: &mut ContainerAdjustment,
) -> Result<(), NriError> {
    let linux = container.linux.get_or_insert_default();
    let together = adjustment.linux.get_or_insert_default();
    let devices = &mut linux.devices;
    let added = merge_list(
        claims,
        Field::Devices,
        std::mem::take(&mut from.devices),
        &mut together.devices,
        |key| devices.retain(|device| device.path != key),
    )?;
    devices.extend(added);
    if let Some(resources) = from
        .resources
        .take()
        .filter(|limits| *limits != LinuxResources::default())
    {
        let seen = linux.resources.get_or_insert_default();
        let set = together.resources.get_or_insert_default();
        resources::merge(claims, &resources, &mut [seen, set])?;
    }
    merge_namespaces(
        claims,
        std::mem::take(&mut from.namespaces),
        &mut linux.namespaces,
        &mut together.namespaces,
    )?;
    merge_map(
        claims,
        Field::Sysctl,
        std::mem::take(&mut from.sysctl),
        &mut linux.sysctl,
        &mut together.sysctl,
    )?;
    merge_map(
        claims,
        Field::LinuxNetDevices,
        std::mem::take(&mut from.net_devices),
        &mut linux.net_devices,
        &mut together.net_devices,
    )?;
    if let Some(rdt) = from.rdt.take() {
        merge_rdt(claims, &rdt, &mut together.rdt)?;
        linux.rdt.clone_from(&together.rdt);
    }
    merge_values(claims, from, linux, together)
}

/// The fields that have one owner and no parts.
fn merge_values(
    claims: &mut Claims<'_>,
    from: LinuxContainerAdjustment,
    linux: &mut LinuxContainer,
    together: &mut LinuxContainerAdjustment,
) -> Result<(), NriError> {
    if !from.cgroups_path.is_empty() {
        claims.take(Field::CgroupsPath)?;
        linux.cgroups_path.clone_from(&from.cgroups_path);
        together.cgroups_path = from.cgroups_path;
    }
    merge_whole!(
        claims,
        &from.oom_score_adj,
        OomScoreAdj,
        linux.oom_score_adj,
        together.oom_score_adj
    );
    merge_whole!(
        claims,
        &from.io_priority,
        IoPriority,
        linux.io_priority,
        together.io_priority
    );
    merge_whole!(
        claims,
        &from.seccomp_policy,
        SeccompPolicy,
        linux.seccomp_policy,
        together.seccomp_policy
    );
    merge_whole!(
        claims,
        &from.scheduler,
        LinuxSched,
        linux.scheduler,
        together.scheduler
    );
    merge_whole!(
        claims,
        &from.memory_policy,
        MemoryPolicy,
        together.memory_policy
    );
    Ok(())
}

fn merge_namespaces(
    claims: &mut Claims<'_>,
    from: Vec<LinuxNamespace>,
    seen: &mut Vec<LinuxNamespace>,
    together: &mut Vec<LinuxNamespace>,
) -> Result<(), NriError> {
    for namespace in from {
        let marked = Marked::of(&namespace.r#type);
        claims.take_entry(Field::Namespace, marked.key())?;
        seen.retain(|other| other.r#type != marked.key());
        if let Marked::Kept(_) = marked {
            seen.push(namespace.clone());
        }
        together.push(namespace);
    }
    Ok(())
}

fn merge_rdt(
    claims: &mut Claims<'_>,
    from: &LinuxRdt,
    together: &mut Option<LinuxRdt>,
) -> Result<(), NriError> {
    let target = together.get_or_insert_default();
    if from.remove {
        for field in [
            Field::RdtClosId,
            Field::RdtSchemata,
            Field::RdtEnableMonitoring,
        ] {
            claims.clear(field);
        }
        *target = LinuxRdt {
            remove: true,
            ..LinuxRdt::default()
        };
    }
    merge_whole!(claims, &from.clos_id, RdtClosId, target.clos_id);
    merge_whole!(claims, &from.schemata, RdtSchemata, target.schemata);
    merge_whole!(
        claims,
        &from.enable_monitoring,
        RdtEnableMonitoring,
        target.enable_monitoring
    );
    if target.clos_id.is_some() || target.schemata.is_some() || target.enable_monitoring.is_some() {
        target.remove = false;
    }
    Ok(())
}

fn merge_rlimits(
    claims: &mut Claims<'_>,
    from: Vec<PosixRlimit>,
    container: &mut Container,
    adjustment: &mut ContainerAdjustment,
) -> Result<(), NriError> {
    for limit in from {
        claims.take_entry(Field::Rlimits, &limit.r#type)?;
        container
            .rlimits
            .retain(|other| other.r#type != limit.r#type);
        container.rlimits.push(limit.clone());
        adjustment.rlimits.push(limit);
    }
    Ok(())
}

/// References to devices, which the runtime resolves; none can be taken away, and none given twice.
fn merge_cdi(
    claims: &mut Claims<'_>,
    from: Vec<CdiDevice>,
    adjustment: &mut ContainerAdjustment,
) -> Result<(), NriError> {
    for device in from {
        claims.take_entry(Field::CdiDevices, &device.name)?;
        adjustment.cdi_devices.push(device);
    }
    Ok(())
}
