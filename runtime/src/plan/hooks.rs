//! Hooks of a container: programs that its CDI devices and NRI plugins have run while it is made (OCI runtime specification, config.md,
//! "POSIX-platform Hooks"; runtime.md, "State").

use std::fs;
use std::path::Path;

use oci_spec::runtime::{Hook, Spec};
use podwright_pause::plan::Step;

use super::launch::LaunchInputs;
use crate::error::{CallError, Context};

/// The version of the specification that hooks are told.
const OCI_VERSION: &str = "1.2.0";
/// A hook without a time of its own has this long, and none has longer: a start does not take for ever.
const LONGEST_SECONDS: i64 = 60;
/// What a hook reads must fit in a pipe, whose least capacity is a page (pipe(7)).
const LONGEST_STATE: usize = 4096;

/// The steps that run these hooks, in their order.
pub(super) fn steps(
    inputs: &LaunchInputs<'_>,
    hooks: Option<&Vec<Hook>>,
) -> Result<Vec<Step>, CallError> {
    let hooks = hooks.into_iter().flatten();
    hooks.map(|hook| step(inputs, hook)).collect()
}

fn step(inputs: &LaunchInputs<'_>, hook: &Hook) -> Result<Step, CallError> {
    let strings = |list: &Option<Vec<String>>| {
        let list = list.iter().flatten();
        list.map(|text| text.as_str().into()).collect::<Vec<_>>()
    };
    let mut argv = strings(hook.args());
    if argv.is_empty() {
        argv.push(hook.path().as_path().into());
    }
    let seconds = hook.timeout().unwrap_or(LONGEST_SECONDS);
    let seconds = seconds.clamp(1, LONGEST_SECONDS);
    Ok(Step::Hook {
        path: hook.path().as_path().into(),
        argv,
        env: strings(hook.env()),
        timeout_ms: u32::try_from(seconds * 1000).unwrap_or(u32::MAX),
        input: state(inputs)?.into(),
    })
}

/// The container's state. Its annotations are left out: they have no bound, and are in the bundle's config.
fn state(inputs: &LaunchInputs<'_>) -> Result<String, CallError> {
    let state = serde_json::json!({
        "ociVersion": OCI_VERSION,
        "id": inputs.id.as_str(),
        "status": "creating",
        // The hook sees the container's processes, of which its parent is the first.
        "pid": 1,
        "bundle": inputs.directory,
    });
    let text = state.to_string();
    match text.len() {
        0..=LONGEST_STATE => Ok(text),
        length => Err(CallError::state(format!(
            "cannot run the container's hooks: its state takes {length} bytes, {LONGEST_STATE} are the limit; the state directory's path is too long"
        ))),
    }
}

/// Hooks look for the root in the bundle's config.json: while they run it is mounted where all containers' are, each in its
/// own mount namespace.
pub(crate) fn write_bundle(
    directory: &Path,
    mount_point: &Path,
    spec: &Spec,
) -> Result<(), CallError> {
    if spec.hooks().is_none() {
        return Ok(());
    }
    let mut spec = spec.clone();
    let mut root = spec.root().clone().unwrap_or_default();
    root.set_path(mount_point.to_owned());
    spec.set_root(Some(root));
    let path = directory.join("config.json");
    let failed = || {
        format!(
            "cannot write {}, which the container's hooks read",
            path.display()
        )
    };
    let text = serde_json::to_vec(&spec).internal(failed)?;
    fs::write(&path, text).internal(failed)
}
