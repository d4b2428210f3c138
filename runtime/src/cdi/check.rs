//! What a specification file must be like (SPEC.md, "CDI JSON Specification").

use std::collections::HashSet;

use super::model::{Device, Edits, Spec};
use super::name::{is_device, is_kind_part};

/// Released versions, in their order.
const VERSIONS: [&str; 10] = [
    "0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
];

/// Moments at which a hook can run.
pub(super) const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// Says what is wrong with a file's contents.
pub(super) fn check(spec: &Spec) -> Result<(), String> {
    check_version(spec)?;
    let (vendor, class) = spec.kind.split_once('/').unwrap_or_default();
    if !is_kind_part(vendor) || !is_kind_part(class) {
        return Err(format!("the kind '{}' is not vendor/class", spec.kind));
    }
    check_edits(&spec.container_edits)?;
    if spec.devices.is_empty() {
        return Err("it has no devices".into());
    }
    let mut names = HashSet::new();
    for device in &spec.devices {
        check_device(device).map_err(|why| format!("device '{}': {why}", device.name))?;
        if !names.insert(&device.name) {
            return Err(format!("it has the device '{}' twice", device.name));
        }
    }
    Ok(())
}

fn check_version(spec: &Spec) -> Result<(), String> {
    let version = spec.cdi_version.trim_start_matches('v');
    let known = VERSIONS.iter().position(|known| *known == version);
    let known = known.ok_or_else(|| {
        let [.., newest] = VERSIONS;
        format!(
            "its cdiVersion '{}' is unknown; {newest} is the newest known",
            spec.cdi_version
        )
    })?;
    let needed = needed_version(spec);
    match VERSIONS.iter().position(|version| *version == needed) {
        Some(least) if known < least => Err(format!(
            "it has what came with cdiVersion {needed}, and says {version}"
        )),
        _ => Ok(()),
    }
}

/// The first version that has all that the file uses.
fn needed_version(spec: &Spec) -> &'static str {
    let of_devices = spec.devices.iter().map(|device| &device.container_edits);
    let edits: Vec<&Edits> = of_devices.chain([&spec.container_edits]).collect();
    let any = |uses: &dyn Fn(&Edits) -> bool| edits.iter().any(|edits| uses(edits));
    let newer_rdt = |edits: &Edits| {
        let rdt = edits.intel_rdt.as_ref();
        rdt.is_some_and(|rdt| !rdt.schemata.is_empty() || rdt.enable_monitoring)
    };
    let class = spec.kind.split_once('/').map_or("", |(_, class)| class);
    let mut devices = spec.devices.iter();
    if any(&newer_rdt) || any(&|edits| !edits.net_devices.is_empty()) {
        "1.1.0"
    } else if any(&|edits| edits.intel_rdt.is_some() || !edits.additional_gids.is_empty()) {
        "0.7.0"
    } else if !spec.annotations.is_empty()
        || devices.any(|device| !device.annotations.is_empty())
        || class.contains('.')
    {
        "0.6.0"
    } else if any(&|edits| {
        edits
            .device_nodes
            .iter()
            .any(|node| !node.host_path.is_empty())
    }) || spec
        .devices
        .iter()
        .any(|device| device.name.starts_with(|c: char| c.is_ascii_digit()))
    {
        "0.5.0"
    } else if any(&|edits| edits.mounts.iter().any(|mount| !mount.kind.is_empty())) {
        "0.4.0"
    } else {
        "0.3.0"
    }
}

fn check_device(device: &Device) -> Result<(), String> {
    if !is_device(&device.name) {
        return Err("this is no name of a device".into());
    }
    if device.container_edits == Edits::default() {
        return Err("it has no containerEdits".into());
    }
    check_edits(&device.container_edits)
}

fn check_edits(edits: &Edits) -> Result<(), String> {
    check_variables(&edits.env)?;
    for node in &edits.device_nodes {
        if !node.path.starts_with('/') {
            return Err(format!(
                "the device node '{}' has no absolute path",
                node.path
            ));
        }
        if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
            return Err(format!(
                "the device node {} is of no type '{}'",
                node.path, node.kind
            ));
        }
        if !node.permissions.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(format!(
                "the device node {} has the permissions '{}': r, w and m are possible",
                node.path, node.permissions
            ));
        }
    }
    for mount in &edits.mounts {
        if mount.host_path.is_empty() || mount.container_path.is_empty() {
            return Err("a mount needs hostPath and containerPath".into());
        }
    }
    for hook in &edits.hooks {
        if !HOOKS.contains(&hook.hook_name.as_str()) {
            return Err(format!(
                "'{}' is no hook: {} are",
                hook.hook_name,
                HOOKS.join(", ")
            ));
        }
        if !hook.path.starts_with('/') {
            return Err(format!("the hook {} has no absolute path", hook.hook_name));
        }
        if hook.timeout.is_some_and(|seconds| seconds <= 0) {
            return Err(format!("the hook {} has no positive timeout", hook.path));
        }
        check_variables(&hook.env)?;
    }
    match &edits.intel_rdt {
        Some(rdt)
            if rdt.clos_id != "/"
                && (rdt.clos_id.contains(['/', '\n'])
                    || [".", ".."].contains(&rdt.clos_id.as_str())) =>
        {
            Err(format!("intelRdt: '{}' is no class", rdt.clos_id))
        }
        _ => Ok(()),
    }
}

fn check_variables(variables: &[String]) -> Result<(), String> {
    match variables
        .iter()
        .find(|entry| entry.find('=').is_none_or(|at| at == 0) || entry.contains('\0'))
    {
        Some(bad) => Err(format!("'{bad}' is no NAME=value")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(json: &str) -> String {
        let spec: Result<Spec, _> = serde_json::from_str(json);
        match spec {
            Ok(spec) => check(&spec).err().unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    fn file(version: &str, kind: &str, edits: &str) -> String {
        format!(
            r#"{{"cdiVersion":"{version}","kind":"{kind}","devices":[{{"name":"d","containerEdits":{edits}}}]}}"#
        )
    }

    #[test]
    fn whole_files_are_taken() {
        let edits = r#"{"env":["A=b"],"deviceNodes":[{"path":"/dev/x","permissions":"rw"}],
            "mounts":[{"hostPath":"/a","containerPath":"/b","options":["ro"]}],
            "hooks":[{"hookName":"createContainer","path":"/bin/x","args":["x"],"timeout":3}]}"#;
        for version in ["0.3.0", "0.8.0", "1.0.0", "v1.1.0"] {
            assert_eq!(told(&file(version, "v.com/c", edits)), "");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let some = r#"{"env":["A=b"]}"#;
        for (json, word) in [
            (file("2.0.0", "v/c", some), "cdiVersion '2.0.0'"),
            (file("0.3.0", "v", some), "not vendor/class"),
            (file("0.5.0", "v/c.d", some), "0.6.0"),
            (file("0.6.0", "v/c", r#"{"additionalGids":[7]}"#), "0.7.0"),
            (
                file(
                    "1.0.0",
                    "v/c",
                    r#"{"netDevices":[{"hostInterfaceName":"a","name":"b"}]}"#,
                ),
                "1.1.0",
            ),
            (
                file(
                    "0.4.0",
                    "v/c",
                    r#"{"deviceNodes":[{"path":"/a","hostPath":"/b"}]}"#,
                ),
                "0.5.0",
            ),
            (
                file(
                    "0.3.0",
                    "v/c",
                    r#"{"mounts":[{"hostPath":"/a","containerPath":"/b","type":"x"}]}"#,
                ),
                "0.4.0",
            ),
            (file("1.0.0", "v/c", "{}"), "no containerEdits"),
            (file("1.0.0", "v/c", r#"{"env":["A"]}"#), "NAME=value"),
            (
                file(
                    "1.0.0",
                    "v/c",
                    r#"{"deviceNodes":[{"path":"/a","type":"z"}]}"#,
                ),
                "'z'",
            ),
            (
                file(
                    "1.0.0",
                    "v/c",
                    r#"{"deviceNodes":[{"path":"/a","permissions":"x"}]}"#,
                ),
                "permissions",
            ),
            (
                file("1.0.0", "v/c", r#"{"deviceNodes":[{"path":"a"}]}"#),
                "absolute",
            ),
            (
                file(
                    "1.0.0",
                    "v/c",
                    r#"{"hooks":[{"hookName":"late","path":"/x"}]}"#,
                ),
                "'late' is no hook",
            ),
            (
                file(
                    "1.0.0",
                    "v/c",
                    r#"{"hooks":[{"hookName":"poststop","path":"x"}]}"#,
                ),
                "absolute",
            ),
            (file("1.0.0", "v/c", r#"{"unheard":1}"#), "unknown field"),
            (
                r#"{"cdiVersion":"1.0.0","kind":"v/c","devices":[]}"#.into(),
                "no devices",
            ),
        ] {
            let told = told(&json);
            assert!(told.contains(word), "{json}: {told}");
        }
    }
}
