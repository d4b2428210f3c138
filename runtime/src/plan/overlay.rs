//! Overlays: a container's root, and images that are volumes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use oci_spec::runtime::Spec;
use podwright_pause::plan::{BindSource, Step};
use podwright_pause::wire::Bytes;

use super::launch::{LaunchInputs, path_bytes};
use crate::error::{CallError, Kind};

/// The most that mount(2) takes as options: a page, with its NUL.
const LONGEST_OPTIONS: usize = 4095;

/// The container's root.
pub(super) fn root(inputs: &LaunchInputs<'_>) -> Result<Step, CallError> {
    // overlayfs takes the topmost layer first. Commas and colons would end a value: our own names hold none, but the state
    // directory's may.
    let lower: Vec<&str> = inputs.layers.iter().rev().map(String::as_str).collect();
    let (upper, work) = (
        inputs.directory.join("upper"),
        inputs.directory.join("work"),
    );
    let mut options = b"lowerdir=".to_vec();
    options.extend_from_slice(lower.join(":").as_bytes());
    if let Some(mount_points) = inputs.mount_points {
        options.push(b':');
        push_escaped(&mut options, mount_points);
    }
    for (key, path) in [("upperdir", &upper), ("workdir", &work)] {
        options.extend_from_slice(format!(",{key}=").as_bytes());
        push_escaped(&mut options, path);
    }
    // Without it every mount of a writable overlay starts its lifetime with a sync of the upper file system on umount
    // (containerd issue 4485): a container's writable layer need not survive a power loss.
    options.extend_from_slice(b",volatile");
    push_label(&mut options, inputs.spec);
    check_length(&options, lower.len())?;
    Ok(Step::OverlayRoot {
        layers: path_bytes(inputs.layers_root),
        options: Bytes(options),
        at: path_bytes(inputs.mount_point),
    })
}

fn push_escaped(options: &mut Vec<u8>, path: &Path) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b',' | b'\\' | b':') {
            options.push(b'\\');
        }
        options.push(*byte);
    }
}

fn check_length(options: &[u8], layers: usize) -> Result<(), CallError> {
    if options.len() <= LONGEST_OPTIONS {
        return Ok(());
    }
    let what = format!(
        "the image has {layers} layers: their mount options take {} bytes, mount(2) takes {LONGEST_OPTIONS}",
        options.len()
    );
    Err(CallError::new(Kind::FailedPrecondition, what))
}

/// What an image volume shows.
pub(super) fn image_source(
    inputs: &LaunchInputs<'_>,
    name: &str,
    sub_path: &str,
) -> Result<BindSource, CallError> {
    let image = inputs.volume_images.iter().find(|image| image.name == name);
    let image = image.ok_or_else(|| {
        let what = format!("the image volume '{name}' is none of the request's");
        CallError::new(Kind::Internal, what)
    })?;
    if image.layer_directories.is_empty() {
        return Ok(BindSource::Host {
            path: path_bytes(inputs.empty),
        });
    }
    // Without an upper directory overlayfs wants two lower ones at least; and a single layer must not be bound as it is: its
    // whiteouts would show.
    let mut lower = b"lowerdir=".to_vec();
    for directory in image.layer_directories.iter().rev() {
        lower.extend_from_slice(directory.as_bytes());
        lower.push(b':');
    }
    push_escaped(&mut lower, inputs.empty);
    push_label(&mut lower, inputs.spec);
    check_length(&lower, image.layer_directories.len())?;
    Ok(BindSource::Image {
        layers: path_bytes(inputs.layers_root),
        options: Bytes(lower),
        sub_path: sub_path.into(),
        at: path_bytes(inputs.mount_point),
    })
}

/// The label of an overlay's files. Its commas are the label's own (mount(8), "context=").
fn push_label(options: &mut Vec<u8>, spec: &Spec) {
    if let Some(label) = mount_label(spec) {
        options.extend_from_slice(format!(",context=\"{label}\"").as_bytes());
    }
}

/// The SELinux label of what is mounted for the container.
pub(super) fn mount_label(spec: &Spec) -> Option<&str> {
    spec.linux().as_ref()?.mount_label().as_deref()
}
