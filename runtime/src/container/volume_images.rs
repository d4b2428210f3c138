//! Images that a container's request mounts as volumes (KEP-4639).
//!
//! They are mounted read-only in the container's own mount namespace, from the layers that the store has: nothing is
//! mounted on the host, and nothing is copied.

use podwright_cri_api::v1::{self as cri, ContainerConfig};
use podwright_image::{Image, Lease};

use crate::error::{CallError, Kind};
use crate::index::shown;
use crate::node::Node;
use crate::plan;
use crate::records::VolumeImageRecord;

/// Kubelets look for this word at the beginning of the message (`ErrImageVolumeMountFailed` of cri-api).
const FAILED: &str = "ImageVolumeMountFailed";

/// What the names of the request's image volumes mean now, and the leases that keep it.
pub(super) fn resolve(
    node: &Node,
    config: &ContainerConfig,
) -> Result<(Vec<VolumeImageRecord>, Vec<Lease>), CallError> {
    let mut records: Vec<VolumeImageRecord> = Vec::new();
    let mut leases = Vec::new();
    for volume in &config.mounts {
        let Some(name) = plan::volume_image(volume) else {
            continue;
        };
        check(volume)?;
        let image = node.images.resolve(name).ok_or_else(|| {
            let why = "it is not on this node: pull it first";
            CallError::new(Kind::NotFound, failed(volume, why))
        })?;
        check_sub_path(node, volume, &image)?;
        if records.iter().any(|record| record.name == name) {
            continue;
        }
        let lease = node.images.lease(&image).map_err(|error| {
            CallError::caused(Kind::Internal, failed(volume, "its layers"), error)
        })?;
        leases.push(lease);
        let layers = image.layers.iter();
        records.push(VolumeImageRecord {
            name: name.to_owned(),
            layer_directories: layers.clone().map(|layer| layer.dir.clone()).collect(),
            chains: layers.map(|layer| layer.chain_id.to_string()).collect(),
        });
    }
    Ok((records, leases))
}

fn check(volume: &cri::Mount) -> Result<(), CallError> {
    let path = &volume.image_sub_path;
    let climbs = path.split('/').any(|part| part == "..");
    let why = if !volume.host_path.is_empty() {
        "a mount has an image or a host path, not both"
    } else if path.starts_with('/') || climbs || path.contains('\0') {
        "the sub path must be relative, without '..'"
    } else if path.len() > plan::LONGEST_PATH {
        "the sub path is too long"
    } else {
        return Ok(());
    };
    Err(CallError::invalid(failed(volume, why)))
}

/// Fails early for what would fail at the start: the sub path must lead to a directory within the image.
fn check_sub_path(node: &Node, volume: &cri::Mount, image: &Image) -> Result<(), CallError> {
    if volume.image_sub_path.is_empty() {
        return Ok(());
    }
    let view = node.images.view(image).map_err(|error| {
        CallError::caused(Kind::Internal, failed(volume, "cannot look into it"), error)
    })?;
    let found = view.is_directory(&volume.image_sub_path).map_err(|error| {
        CallError::caused(
            Kind::InvalidArgument,
            failed(volume, "cannot follow the sub path"),
            error,
        )
    })?;
    match found {
        Some(true) => Ok(()),
        Some(false) => Err(CallError::invalid(failed(
            volume,
            "the sub path is no directory",
        ))),
        None => Err(CallError::new(
            Kind::NotFound,
            failed(volume, "the image has no such sub path"),
        )),
    }
}

fn failed(volume: &cri::Mount, why: &str) -> String {
    let name = plan::volume_image(volume).unwrap_or_default();
    let part = match volume.image_sub_path.as_str() {
        "" => String::new(),
        path => format!(" (sub path '{}')", shown(path)),
    };
    format!(
        "{FAILED}: cannot mount the image '{}'{part} on '{}': {why}",
        shown(name),
        shown(&volume.container_path)
    )
}
