//! What plugins want of a new container, put into its OCI spec.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Mount, PosixRlimitBuilder,
    PosixRlimitType, Process, Spec,
};
use podwright_nri::api::{self, ContainerAdjustment, LinuxContainerAdjustment, Marked};

use super::describe::namespace_name;
use super::hooks;
use super::resources::device_type;
use crate::error::{CallError, Context};
use crate::index::shown;
use crate::plan::{check_covered, inside_path};
use crate::security::oom::OomScoreRange;

/// A wish that this runtime does not meet.
pub(super) fn cannot(what: &str) -> CallError {
    CallError::state(format!(
        "a NRI plugin asks for {what}, which this runtime does not offer; change the plugin's configuration"
    ))
}

/// A wish that makes no sense.
pub(super) fn wrong(what: impl std::fmt::Display) -> CallError {
    CallError::state(format!("a NRI plugin asks for what cannot be: {what}"))
}

/// Makes the spec what the plugins want. Limits are not in it: they are kept with the container's (see `resources`). Nor are
/// CDI devices: what they change is in the spec with what those of the request do.
pub(crate) fn adjust(
    spec: &mut Spec,
    wishes: &ContainerAdjustment,
    scores: OomScoreRange,
) -> Result<(), CallError> {
    refuse(spec, wishes)?;
    annotations(spec, wishes);
    let mut process = spec.process().clone().unwrap_or_default();
    env(&mut process, &wishes.env);
    if !wishes.args.is_empty() {
        process.set_args(Some(wishes.args.clone()));
    }
    rlimits(&mut process, &wishes.rlimits)?;
    let linux = wishes.linux.clone().unwrap_or_default();
    if let Some(score) = linux.oom_score_adj {
        let score = scores
            .clamp(score.value)
            .invalid(|| "cannot set the oom_score_adj that a NRI plugin asks for".into())?;
        process.set_oom_score_adj(Some(score));
    }
    spec.set_process(Some(process));
    hooks::add(spec, wishes.hooks.as_ref())?;
    devices(spec, &linux)?;
    mounts(spec, &wishes.mounts)
}

/// What would be left out otherwise.
fn refuse(spec: &Spec, wishes: &ContainerAdjustment) -> Result<(), CallError> {
    let linux = wishes.linux.clone().unwrap_or_default();
    let own = spec.linux().clone().unwrap_or_default();
    let own_cgroup = own.cgroups_path().clone().unwrap_or_default();
    let moved = !linux.cgroups_path.is_empty() && Path::new(&linux.cgroups_path) != own_cgroup;
    let priority = linux
        .io_priority
        .is_some_and(|priority| priority.class() != api::IoPrioClass::IoprioClassNone);
    let scheduler = linux
        .scheduler
        .as_ref()
        .is_some_and(|scheduler| scheduler.policy() != api::LinuxSchedulerPolicy::SchedNone);
    let rdt = linux.rdt.as_ref().is_some_and(|rdt| !rdt.remove);
    let refused = [
        ("another cgroup", moved),
        ("an I/O priority", priority),
        ("a scheduling policy", scheduler),
        ("network devices", !linux.net_devices.is_empty()),
        (
            "sysctls of a container (they are the pod's)",
            !linux.sysctl.is_empty(),
        ),
        ("an RDT class", rdt),
        ("a memory policy", linux.memory_policy.is_some()),
    ];
    if let Some((what, _)) = refused.into_iter().find(|(_, wanted)| *wanted) {
        return Err(cannot(what));
    }
    namespaces(&own, &linux.namespaces)
}

/// Namespaces are the pod's. One that the container has already may be asked for again.
fn namespaces(own: &Linux, wishes: &[api::LinuxNamespace]) -> Result<(), CallError> {
    for wish in wishes {
        let has = |kind: &str| {
            own.namespaces()
                .iter()
                .flatten()
                .any(|namespace| namespace_name(namespace.typ()) == kind)
        };
        let met = match Marked::of(&wish.r#type) {
            Marked::Kept(kind) => has(kind) && wish.path.is_empty(),
            Marked::Removed(kind) => !has(kind),
        };
        if !met {
            return Err(cannot(&format!(
                "another {} namespace",
                shown(Marked::of(&wish.r#type).key())
            )));
        }
    }
    Ok(())
}

fn annotations(spec: &mut Spec, wishes: &ContainerAdjustment) {
    let mut all: HashMap<String, String> = spec.annotations().clone().unwrap_or_default();
    for key in wishes.annotations.keys() {
        all.remove(Marked::of(key).key());
    }
    let kept = wishes.annotations.iter();
    let kept = kept.filter(|(key, _)| matches!(Marked::of(key), Marked::Kept(_)));
    all.extend(kept.map(|(key, value)| (key.clone(), value.clone())));
    spec.set_annotations(Some(all));
}

/// A variable that is there keeps its place.
fn env(process: &mut Process, wishes: &[api::KeyValue]) {
    let mut all = process.env().clone().unwrap_or_default();
    for wish in wishes {
        let marked = Marked::of(&wish.key);
        let place = all
            .iter()
            .position(|entry| entry.split('=').next() == Some(marked.key()));
        match (marked, place) {
            (Marked::Removed(_), Some(at)) => {
                all.remove(at);
            }
            (Marked::Removed(_), None) => {}
            (Marked::Kept(key), Some(at)) => all[at] = format!("{key}={}", wish.value),
            (Marked::Kept(key), None) => all.push(format!("{key}={}", wish.value)),
        }
    }
    process.set_env(Some(all));
}

fn rlimits(process: &mut Process, wishes: &[api::PosixRlimit]) -> Result<(), CallError> {
    let mut all = process.rlimits().clone().unwrap_or_default();
    for wish in wishes {
        let kind: PosixRlimitType = wish.r#type.parse().map_err(|_| {
            wrong(format_args!(
                "'{}' is no limit of setrlimit(2)",
                shown(&wish.r#type)
            ))
        })?;
        if wish.soft > wish.hard {
            return Err(wrong(format_args!(
                "the soft limit of {} is {}, above the hard one of {}",
                wish.r#type, wish.soft, wish.hard
            )));
        }
        all.retain(|limit| limit.typ() != kind);
        let limit = PosixRlimitBuilder::default()
            .typ(kind)
            .soft(wish.soft)
            .hard(wish.hard)
            .build();
        all.push(limit.internal(|| "cannot build the container's limits".into())?);
    }
    process.set_rlimits(Some(all));
    Ok(())
}

fn devices(spec: &mut Spec, wishes: &LinuxContainerAdjustment) -> Result<(), CallError> {
    if wishes.devices.is_empty() {
        return Ok(());
    }
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut all = linux.devices().clone().unwrap_or_default();
    let mut limits = linux.resources().clone().unwrap_or_default();
    // None where devices are not limited.
    let mut rules = limits.devices().clone();
    for wish in &wishes.devices {
        let marked = Marked::of(&wish.path);
        all.retain(|device| device.path() != Path::new(marked.key()));
        if let Marked::Kept(path) = marked {
            let device = device(path, wish)?;
            if let Some(rules) = &mut rules {
                rules.push(rule(&device));
            }
            all.push(device);
        }
    }
    let own_dev = spec.mounts().iter().flatten().any(|mount| {
        mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("tmpfs")
    });
    if !own_dev {
        return Err(cannot("devices in a container whose /dev is a volume"));
    }
    limits.set_devices(rules);
    linux.set_resources(Some(limits));
    linux.set_devices(Some(all));
    spec.set_linux(Some(linux));
    Ok(())
}

fn device(path: &str, wish: &api::LinuxDevice) -> Result<LinuxDevice, CallError> {
    let number = |value: i64| {
        u32::try_from(value)
            .map_err(|_| wrong(format_args!("{value} is no number of a device")))
            .map(i64::from)
    };
    let kind = device_type(&wish.r#type)?;
    if kind == LinuxDeviceType::A {
        return Err(wrong(format_args!("'{}' has no type", shown(path))));
    }
    let mut device = LinuxDevice::default();
    device
        .set_path(inside_path(path)?)
        .set_typ(kind)
        .set_major(number(wish.major)?)
        .set_minor(number(wish.minor)?)
        .set_file_mode(Some(
            wish.file_mode.map_or(0o666, |mode| mode.value & 0o7777),
        ))
        .set_uid(wish.uid.map(|uid| uid.value))
        .set_gid(wish.gid.map(|gid| gid.value));
    Ok(device)
}

/// As the reference gives access: block devices may be made as well.
fn rule(device: &LinuxDevice) -> LinuxDeviceCgroup {
    let access = match device.typ() {
        LinuxDeviceType::B => "rwm",
        _ => "rw",
    };
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(device.typ()))
        .set_major(Some(device.major()))
        .set_minor(Some(device.minor()))
        .set_access(Some(access.into()));
    rule
}

/// Mounts of plugins come after those of the request, parents before children.
fn mounts(spec: &mut Spec, wishes: &[api::Mount]) -> Result<(), CallError> {
    let mut all = spec.mounts().clone().unwrap_or_default();
    let mut added = Vec::new();
    for wish in wishes {
        let marked = Marked::of(&wish.destination);
        let destination = inside_path(marked.key())?;
        all.retain(|mount| *mount.destination() != destination);
        match marked {
            Marked::Kept(_) => added.push(mount(destination, wish)?),
            Marked::Removed("/proc") => return Err(wrong("a container without /proc")),
            Marked::Removed(_) => {}
        }
    }
    added.sort_by_key(|mount| mount.destination().components().count());
    all.extend(added);
    spec.set_mounts(Some(all));
    Ok(())
}

fn mount(destination: std::path::PathBuf, wish: &api::Mount) -> Result<Mount, CallError> {
    let shown_destination = shown(&wish.destination);
    check_covered(&destination, &wish.source)
        .map_err(|why| wrong(format_args!("a mount on '{shown_destination}': {why}")))?;
    let mut options = wish.options.clone();
    let is_bind = |option: &String| option == "bind" || option == "rbind";
    if wish.r#type == "bind" && !options.iter().any(is_bind) {
        options.insert(0, "bind".into());
    }
    if options.iter().any(is_bind) {
        if !Path::new(&wish.source).is_absolute() || wish.source.contains('\0') {
            return Err(wrong(format_args!(
                "the source '{}' of the mount on '{shown_destination}' is not an absolute path",
                shown(&wish.source)
            )));
        }
    } else if wish.r#type.is_empty() {
        return Err(wrong(format_args!(
            "the mount on '{shown_destination}' has no file system type"
        )));
    }
    let mut mount = Mount::default();
    mount
        .set_destination(destination)
        .set_typ(Some(wish.r#type.clone()).filter(|typ| !typ.is_empty()))
        .set_source(Some(wish.source.clone().into()))
        .set_options(Some(options));
    Ok(mount)
}

#[cfg(test)]
mod tests;
