//! The mounts of a container below its root.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use oci_spec::runtime::{Mount, Spec};
use podwright_pause::plan::{BindSource, Create, FsOption, Owners, Recursion, Step};

use super::launch::{LaunchInputs, flags, path_bytes};
use super::mounts::{IMAGE, POD_SHM, SUB_PATH};
use super::overlay::{image_source, mount_label};
use crate::cgroup::Version;
use crate::error::CallError;

/// A tmpfs of the container's is labelled for it, and so are its terminals; other file systems of the kernel's have the
/// policy's labels.
fn with_label(spec: &Spec, mount: &Mount, mut options: Vec<FsOption>) -> Vec<FsOption> {
    if matches!(mount.typ().as_deref(), Some("tmpfs" | "devpts")) {
        options.extend(mount_label(spec).map(|label| FsOption {
            key: "context".into(),
            value: Some(label.into()),
        }));
    }
    options
}

/// A mount's options, sorted by who understands them (mount(8), mount_setattr(2)).
#[derive(Default)]
struct Options {
    attributes: u64,
    tree_attributes: Option<Recursion>,
    propagation: u64,
    tree: Option<Recursion>,
    file_system: Vec<FsOption>,
    /// Of an image volume.
    sub_path: String,
}

fn parse_options(mount: &Mount) -> Options {
    let mut out = Options {
        propagation: flags(libc::MS_PRIVATE),
        ..Options::default()
    };
    for option in mount.options().iter().flatten() {
        let attribute = match option.as_str() {
            "ro" => libc::MOUNT_ATTR_RDONLY,
            "nosuid" => libc::MOUNT_ATTR_NOSUID,
            "nodev" => libc::MOUNT_ATTR_NODEV,
            "noexec" => libc::MOUNT_ATTR_NOEXEC,
            "noatime" => libc::MOUNT_ATTR_NOATIME,
            "strictatime" => libc::MOUNT_ATTR_STRICTATIME,
            "nodiratime" => libc::MOUNT_ATTR_NODIRATIME,
            "nosymfollow" => libc::MOUNT_ATTR_NOSYMFOLLOW,
            _ => 0,
        };
        out.attributes |= attribute;
        match option.as_str() {
            _ if attribute != 0 => {}
            "rw" | "suid" | "dev" | "exec" | "relatime" | "defaults" | "async" => {}
            "rro" => {
                out.attributes |= libc::MOUNT_ATTR_RDONLY;
                out.tree_attributes = Some(Recursion::Tree);
            }
            "bind" => out.tree = Some(Recursion::This),
            "rbind" => out.tree = Some(Recursion::Tree),
            "private" | "rprivate" => out.propagation = flags(libc::MS_PRIVATE),
            "slave" | "rslave" => out.propagation = flags(libc::MS_SLAVE),
            "shared" | "rshared" => out.propagation = flags(libc::MS_SHARED),
            other if mount.typ().as_deref() == Some(IMAGE) && other.starts_with(SUB_PATH) => {
                out.sub_path = other[SUB_PATH.len()..].to_owned();
            }
            other => out.file_system.push(match other.split_once('=') {
                Some((key, value)) => FsOption {
                    key: key.into(),
                    value: Some(value.into()),
                },
                None => FsOption {
                    key: other.into(),
                    value: None,
                },
            }),
        }
    }
    out
}

fn owners(mount: &Mount) -> Owners {
    match mount.uid_mappings() {
        Some(_) => Owners::OfPod,
        None => Owners::OfHost,
    }
}

/// What makes one of the spec's mounts.
pub(super) fn mount_steps(
    inputs: &LaunchInputs<'_>,
    mount: &Mount,
    steps: &mut Vec<Step>,
) -> Result<(), CallError> {
    let options = parse_options(mount);
    let target = path_bytes(mount.destination());
    let source = mount.source().clone().unwrap_or_default();
    let kind = mount.typ().clone().unwrap_or_default();
    if let Some(unknown) = options
        .file_system
        .first()
        .filter(|_| options.tree.is_some())
    {
        let key = String::from_utf8_lossy(&unknown.key.0).into_owned();
        return Err(CallError::invalid(format!(
            "'{key}' is no option of a bind mount on '{}'",
            mount.destination().display()
        )));
    }
    match options.tree {
        Some(tree) => steps.push(Step::Bind {
            source: if source == Path::new(POD_SHM) {
                BindSource::PodShm
            } else {
                BindSource::Host {
                    path: path_bytes(&source),
                }
            },
            tree,
            attributes: options.attributes,
            attributes_tree: options.tree_attributes.unwrap_or(Recursion::This),
            propagation: options.propagation,
            target,
            create: Create::AsSource,
            owners: owners(mount),
        }),
        None if kind == IMAGE => steps.push(Step::Bind {
            source: image_source(inputs, &source.to_string_lossy(), &options.sub_path)?,
            tree: Recursion::This,
            attributes: options.attributes,
            attributes_tree: Recursion::This,
            propagation: options.propagation,
            owners: owners(mount),
            target,
            create: Create::Directory,
        }),
        None if kind == "cgroup" && inputs.cgroup_version != Version::V2 => {
            cgroup1_steps(inputs, &options, mount.destination(), steps)
        }
        None => steps.push(Step::MountFs {
            fstype: if kind == "cgroup" {
                "cgroup2".into()
            } else {
                kind.into()
            },
            source: path_bytes(&source),
            options: with_label(inputs.spec, mount, options.file_system),
            attributes: options.attributes,
            target,
            create: Create::Directory,
        }),
    }
    Ok(())
}

/// With cgroup v1 the container sees its own cgroup of each hierarchy, where programs look for it.
fn cgroup1_steps(
    inputs: &LaunchInputs<'_>,
    options: &Options,
    target: &Path,
    steps: &mut Vec<Step>,
) {
    let setting = |key: &str, value: &str| FsOption {
        key: key.into(),
        value: Some(value.into()),
    };
    let is_read_only = options.attributes & libc::MOUNT_ATTR_RDONLY != 0;
    steps.push(match inputs.cgroup_places.filter(|_| is_read_only) {
        Some(places) => own_bind(places, target, options.attributes),
        None => Step::MountFs {
            fstype: "tmpfs".into(),
            source: "tmpfs".into(),
            options: vec![setting("mode", "755"), setting("size", "64k")],
            attributes: options.attributes & !libc::MOUNT_ATTR_RDONLY,
            target: path_bytes(target),
            create: Create::Directory,
        },
    });
    for file in &inputs.join_files {
        let Some(own) = file.parent() else { continue };
        let suffix = inputs.cgroup.trim_start_matches('/');
        let mount = own.as_os_str().as_bytes().strip_suffix(suffix.as_bytes());
        let Some(name) =
            mount.and_then(|mount| Path::new(std::ffi::OsStr::from_bytes(mount)).file_name())
        else {
            continue;
        };
        steps.push(own_bind(own, &target.join(name), options.attributes));
    }
}

/// Of a directory that is the runtime's business.
fn own_bind(source: &Path, target: &Path, attributes: u64) -> Step {
    Step::Bind {
        source: BindSource::Host {
            path: path_bytes(source),
        },
        tree: Recursion::This,
        attributes,
        attributes_tree: Recursion::This,
        propagation: flags(libc::MS_PRIVATE),
        target: path_bytes(target),
        create: Create::Directory,
        owners: Owners::OfHost,
    }
}
