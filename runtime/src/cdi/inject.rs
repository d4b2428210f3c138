//! Edits on an OCI runtime spec.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci_spec::runtime::{
    Hook as OciHook, Hooks, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Mount as OciMount,
    Spec,
};

use podwright_pause::mapping::{IdMappings, outside};

use super::model::{DeviceNode, Edits, Hook, Mount};
use crate::error::{CallError, Context, Kind};
use crate::index::shown;

impl Edits {
    /// Completes what is left to the host: numbers and modes of devices. They are looked at once, when the container is
    /// created; what cannot be done for a container is refused then.
    pub(crate) fn completed(mut self) -> Result<Self, CallError> {
        for node in &mut self.device_nodes {
            complete(node)?;
        }
        if let Some(link) = self.net_devices.first() {
            let what = format!(
                "cannot move the link '{}' into the pod, as a CDI device asks: netDevices are not supported",
                shown(&link.host_interface_name)
            );
            return Err(CallError::state(what));
        }
        if let Some(rdt) = &self.intel_rdt {
            let what = format!(
                "cannot put the container in the class '{}' of resctrl, as a CDI device asks: intelRdt is not supported",
                shown(&rdt.clos_id)
            );
            return Err(CallError::state(what));
        }
        let possible = ["createContainer", "startContainer"];
        let mut hooks = self.hooks.iter();
        if let Some(hook) = hooks.find(|hook| !possible.contains(&hook.hook_name.as_str())) {
            let what = format!(
                "cannot run the {} hook {} of a CDI device: {} are possible",
                hook.hook_name,
                shown(&hook.path),
                possible.join(" and ")
            );
            return Err(CallError::state(what));
        }
        Ok(self)
    }

    /// For the container's record.
    pub(crate) fn to_json(&self) -> Result<String, CallError> {
        serde_json::to_string(self).internal(|| "cannot keep the CDI devices".into())
    }

    /// From the container's record; empty for none.
    pub(crate) fn from_json(json: &str) -> Result<Self, CallError> {
        match json {
            "" => Ok(Self::default()),
            json => serde_json::from_str(json)
                .internal(|| "the record of the container's CDI devices cannot be read".into()),
        }
    }
}

fn complete(node: &mut DeviceNode) -> Result<(), CallError> {
    if node.host_path.is_empty() {
        node.host_path.clone_from(&node.path);
    }
    if node.kind == "u" {
        node.kind = "c".into();
    }
    let is_known = !node.kind.is_empty() && (node.major != 0 || node.kind == "p");
    if is_known && node.file_mode.is_some() {
        return Ok(());
    }
    let metadata = std::fs::metadata(&node.host_path).invalid(|| {
        format!(
            "cannot give the device '{}' that a CDI device needs",
            shown(&node.host_path)
        )
    })?;
    let kind = metadata.file_type();
    let kind = match (
        kind.is_block_device(),
        kind.is_char_device(),
        kind.is_fifo(),
    ) {
        (true, _, _) => "b",
        (_, true, _) => "c",
        (_, _, true) => "p",
        _ => {
            let what = format!(
                "'{}', which a CDI device needs, is no device",
                shown(&node.host_path)
            );
            return Err(CallError::new(Kind::InvalidArgument, what));
        }
    };
    if !node.kind.is_empty() && node.kind != kind {
        let what = format!(
            "'{}', which a CDI device needs, is of type {kind}, not {}",
            shown(&node.host_path),
            node.kind
        );
        return Err(CallError::new(Kind::InvalidArgument, what));
    }
    node.kind = kind.into();
    if node.major == 0 && node.minor == 0 && kind != "p" {
        node.major = libc::major(metadata.rdev()).into();
        node.minor = libc::minor(metadata.rdev()).into();
    }
    node.file_mode = node.file_mode.or(Some(metadata.mode() & 0o7777));
    Ok(())
}

/// Changes the spec as the edits say.
pub(crate) fn apply(
    edits: &Edits,
    spec: &mut Spec,
    pod: Option<&IdMappings>,
) -> Result<(), CallError> {
    if *edits == Edits::default() {
        return Ok(());
    }
    let user = spec
        .process()
        .as_ref()
        .map(|process| process.user().clone());
    let user = user.unwrap_or_default();
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        for entry in &edits.env {
            let name = entry
                .split_once('=')
                .map_or(entry.as_str(), |(name, _)| name);
            env.retain(|known| known.split_once('=').is_none_or(|(known, _)| known != name));
            env.push(entry.clone());
        }
        process.set_env(Some(env));
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
            if !groups.contains(gid) {
                groups.push(*gid);
            }
        }
        process.user_mut().set_additional_gids(Some(groups));
    }
    add_devices(edits, spec, (user.uid(), user.gid()), pod)?;
    add_mounts(edits, spec)?;
    add_hooks(edits, spec);
    Ok(())
}

fn add_devices(
    edits: &Edits,
    spec: &mut Spec,
    (uid, gid): (u32, u32),
    pod: Option<&IdMappings>,
) -> Result<(), CallError> {
    // Nodes are made by the host's root, which counts owners as the host does.
    let owner = |id: u32| {
        pod.map_or(Some(id), |pod| outside(&pod.uids, id))
            .unwrap_or(id)
    };
    let group = |id: u32| {
        pod.map_or(Some(id), |pod| outside(&pod.gids, id))
            .unwrap_or(id)
    };
    let Some(linux) = spec.linux_mut() else {
        return Ok(());
    };
    let mut devices = linux.devices().clone().unwrap_or_default();
    let mut resources = linux.resources().clone().unwrap_or_default();
    // None on a machine without a device controller.
    let mut rules = resources.devices().clone();
    for node in &edits.device_nodes {
        let path = crate::plan::inside_path(&node.path)?;
        let kind = match node.kind.as_str() {
            "b" => LinuxDeviceType::B,
            "p" => LinuxDeviceType::P,
            _ => LinuxDeviceType::C,
        };
        devices.retain(|device| *device.path() != path);
        let mut device = LinuxDevice::default();
        device
            .set_path(path)
            .set_typ(kind)
            .set_major(node.major)
            .set_minor(node.minor)
            .set_file_mode(node.file_mode)
            .set_uid(Some(owner(node.uid.unwrap_or(uid))))
            .set_gid(Some(group(node.gid.unwrap_or(gid))));
        devices.push(device);
        if kind == LinuxDeviceType::P {
            continue;
        }
        if let Some(rules) = &mut rules {
            let access = match node.permissions.as_str() {
                "" => "rwm",
                access => access,
            };
            let mut rule = LinuxDeviceCgroup::default();
            rule.set_allow(true)
                .set_typ(Some(kind))
                .set_major(Some(node.major))
                .set_minor(Some(node.minor))
                .set_access(Some(access.to_owned()));
            rules.push(rule);
        }
    }
    resources.set_devices(rules);
    linux.set_resources(Some(resources));
    linux.set_devices(Some(devices));
    Ok(())
}

/// A mount of an edit takes the place of another on the same path. Parents come before children.
fn add_mounts(edits: &Edits, spec: &mut Spec) -> Result<(), CallError> {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for edit in &edits.mounts {
        let mount = oci_mount(edit)?;
        mounts.retain(|known| known.destination() != mount.destination());
        mounts.push(mount);
    }
    if !edits.mounts.is_empty() {
        // Stable: those of one depth keep their order.
        mounts.sort_by_key(|mount| mount.destination().components().count());
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

fn oci_mount(mount: &Mount) -> Result<OciMount, CallError> {
    let host = Path::new(&mount.host_path);
    let is_bind = matches!(mount.kind.as_str(), "" | "bind");
    if is_bind && !host.is_absolute() {
        return Err(CallError::invalid(format!(
            "the host path '{}' of a CDI device is not absolute",
            shown(&mount.host_path)
        )));
    }
    let mut options = mount.options.clone();
    let binds = options
        .iter()
        .any(|option| option == "bind" || option == "rbind");
    if is_bind && !binds {
        options.push("rbind".into());
    }
    let mut out = OciMount::default();
    out.set_destination(crate::plan::inside_path(&mount.container_path)?)
        .set_source(Some(host.to_owned()))
        .set_typ(Some(if is_bind {
            "bind".into()
        } else {
            mount.kind.clone()
        }))
        .set_options(Some(options));
    Ok(out)
}

fn add_hooks(edits: &Edits, spec: &mut Spec) {
    if edits.hooks.is_empty() {
        return;
    }
    let mut all = spec.hooks().clone().unwrap_or_default();
    let add = |list: &Option<Vec<OciHook>>, hook: &Hook| {
        let mut list = list.clone().unwrap_or_default();
        list.push(oci_hook(hook));
        Some(list)
    };
    for hook in &edits.hooks {
        match hook.hook_name.as_str() {
            "startContainer" => all.set_start_container(add(all.start_container(), hook)),
            _ => all.set_create_container(add(all.create_container(), hook)),
        };
    }
    spec.set_hooks(Some::<Hooks>(all));
}

fn oci_hook(hook: &Hook) -> OciHook {
    let mut out = OciHook::default();
    out.set_path(hook.path.as_str().into())
        .set_args(Some(hook.args.clone()))
        .set_env(Some(hook.env.clone()))
        .set_timeout(hook.timeout);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{Linux, Process};

    fn edits(json: &str) -> Edits {
        serde_json::from_str(json).unwrap()
    }

    fn spec() -> Spec {
        let mut process = Process::default();
        process.set_env(Some(vec!["A=1".into(), "B=2".into()]));
        process.user_mut().set_uid(1000).set_gid(100);
        let mut resources = oci_spec::runtime::LinuxResources::default();
        resources.set_devices(Some(Vec::new()));
        let mut linux = Linux::default();
        linux.set_resources(Some(resources)).set_devices(None);
        let mut spec = Spec::default();
        spec.set_process(Some(process))
            .set_linux(Some(linux))
            .set_mounts(Some(Vec::new()));
        spec
    }

    #[test]
    fn variables_groups_mounts_and_hooks_are_added_in_their_places() {
        let edits = edits(
            r#"{"env":["A=9","C=3"],"additionalGids":[0,44,44],
                "mounts":[{"hostPath":"/h/deep","containerPath":"/a/b"},
                          {"hostPath":"/h","containerPath":"/a","options":["ro","bind"]}],
                "hooks":[{"hookName":"createContainer","path":"/bin/h","args":["h","x"],"timeout":5}]}"#,
        );
        let mut spec = spec();
        apply(&edits.completed().unwrap(), &mut spec, None).unwrap();
        let process = spec.process().clone().unwrap();
        assert_eq!(process.env().clone().unwrap(), ["B=2", "A=9", "C=3"]);
        assert_eq!(process.user().additional_gids().clone().unwrap(), [44]);
        let mounts = spec.mounts().clone().unwrap();
        let shown: Vec<String> = mounts
            .iter()
            .map(|mount| {
                let options = mount.options().clone().unwrap_or_default().join(",");
                format!("{} {options}", mount.destination().display())
            })
            .collect();
        assert_eq!(shown, ["/a ro,bind", "/a/b rbind"]);
        let hooks = spec
            .hooks()
            .clone()
            .unwrap()
            .create_container()
            .clone()
            .unwrap();
        assert_eq!(
            (hooks[0].args().clone().unwrap().len(), hooks[0].timeout()),
            (2, Some(5))
        );
    }

    #[test]
    fn devices_are_the_host_s_and_the_user_s() {
        let edits = edits(
            r#"{"deviceNodes":[{"path":"/dev/mine","hostPath":"/dev/null","permissions":"r"},
                               {"path":"/dev/given","type":"c","major":7,"minor":8,"fileMode":384,"uid":5}]}"#,
        );
        let edits = edits.completed().unwrap();
        let again = Edits::from_json(&edits.to_json().unwrap()).unwrap();
        assert_eq!(again, edits, "it is kept as it is");
        let mut spec = spec();
        apply(&edits, &mut spec, None).unwrap();
        let linux = spec.linux().clone().unwrap();
        let devices = linux.devices().clone().unwrap();
        let told: Vec<_> = devices
            .iter()
            .map(|device| {
                (
                    device.major(),
                    device.minor(),
                    device.uid(),
                    device.gid(),
                    device.file_mode(),
                )
            })
            .collect();
        assert_eq!(told[0], (1, 3, Some(1000), Some(100), Some(0o666)));
        assert_eq!(told[1], (7, 8, Some(5), Some(100), Some(0o600)));
        let rules = linux
            .resources()
            .clone()
            .unwrap()
            .devices()
            .clone()
            .unwrap();
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["c 1:3 r", "c 7:8 rwm"]);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (json, word) in [
            (
                r#"{"deviceNodes":[{"path":"/nonexistent"}]}"#,
                "/nonexistent",
            ),
            (r#"{"deviceNodes":[{"path":"/etc/passwd"}]}"#, "no device"),
            (
                r#"{"deviceNodes":[{"path":"/dev/null","type":"b"}]}"#,
                "of type c, not b",
            ),
            (
                r#"{"netDevices":[{"hostInterfaceName":"eth7","name":"a"}]}"#,
                "eth7",
            ),
            (r#"{"intelRdt":{"closID":"fast"}}"#, "fast"),
            (
                r#"{"hooks":[{"hookName":"poststop","path":"/bin/late"}]}"#,
                "poststop hook /bin/late",
            ),
        ] {
            let error = edits(json).completed().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
