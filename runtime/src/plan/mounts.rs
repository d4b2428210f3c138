//! A container's mounts: the kernel's file systems, the pod's files, and the request's volumes.

use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use oci_spec::image::Config as ImageConfig;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};
use podwright_cri_api::v1::{self as cri, ContainerConfig, MountPropagation};
use podwright_pause::mapping::{IdRange, outside};

use crate::error::{CallError, Context};
use crate::index::shown;
use crate::propagation;
use crate::sandbox::{HOSTNAME, HOSTS, IpcMode, RESOLV_CONF, Sandbox, map_volume};
use crate::security::Privilege;

/// The source that stands for the pod's /dev/shm, which pause holds by descriptor: it has no path.
pub(super) const POD_SHM: &str = "pod-shm";

/// The type of a mount whose source is an image's name, as the request has it.
pub(super) const IMAGE: &str = "image";

/// What comes before an image volume's sub path among its options.
pub(super) const SUB_PATH: &str = "sub_path=";

/// PATH_MAX without its NUL.
pub(crate) const LONGEST_PATH: usize = 4095;

/// Options of single mounts, which a request may add; all others have a field of their own, or a meaning on the host.
const MOUNT_OPTIONS: [&str; 14] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "relatime",
    "strictatime",
    "nodiratime",
    "nosymfollow",
    "defaults",
];

fn mount(destination: &str, typ: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(destination.into());
    mount.set_typ(Some(typ.into()));
    mount.set_source(Some(source.into()));
    mount.set_options(Some(options.iter().map(ToString::to_string).collect()));
    mount
}

/// All mounts, parents before children; a request's mount takes the place of a default one.
pub(super) fn all_mounts(
    sandbox: &Sandbox,
    config: &ContainerConfig,
    privilege: Privilege,
) -> Result<Vec<Mount>, CallError> {
    let mut volumes = config
        .mounts
        .iter()
        .map(|mount| volume(sandbox, mount))
        .collect::<Result<Vec<_>, _>>()?;
    let mut mounts = kernel_mounts(sandbox, privilege);
    mounts.extend(pod_files(sandbox, config)?);
    mounts.retain(|default| {
        !volumes
            .iter()
            .any(|volume| volume.destination() == default.destination())
    });
    // Stable: mounts of one depth keep their order.
    volumes.sort_by_key(|volume| volume.destination().components().count());
    mounts.extend(volumes);
    Ok(mounts)
}

fn kernel_mounts(sandbox: &Sandbox, privilege: Privilege) -> Vec<Mount> {
    let sealed: &[&str] = match privilege {
        Privilege::Confined => &["nosuid", "noexec", "nodev", "ro"],
        Privilege::Privileged => &["nosuid", "noexec", "nodev", "rw"],
    };
    let shm = match sandbox.settings.ipc {
        IpcMode::Pod => mount(
            "/dev/shm",
            "bind",
            POD_SHM,
            &["bind", "nosuid", "noexec", "nodev"],
        ),
        IpcMode::Host => mount(
            "/dev/shm",
            "bind",
            "/dev/shm",
            &["rbind", "nosuid", "noexec", "nodev"],
        ),
    };
    let mut terminals = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    // Terminals are the group tty's (Debian's and Fedora's number), where the pod has that.
    let mappings = sandbox.settings.user_namespace.as_ref();
    if mappings.is_none_or(|mappings| outside(&mappings.gids, 5).is_some()) {
        terminals.push("gid=5");
    }
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount("/dev/pts", "devpts", "devpts", &terminals),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        shm,
        mount("/sys", "sysfs", "sysfs", sealed),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[sealed, &["relatime"]].concat(),
        ),
    ]
}

fn pod_files(sandbox: &Sandbox, config: &ContainerConfig) -> Result<Vec<Mount>, CallError> {
    let read_only = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .is_some_and(|context| context.readonly_rootfs);
    let options: &[&str] = if read_only {
        &["rbind", "rprivate", "ro"]
    } else {
        &["rbind", "rprivate", "rw"]
    };
    [
        ("/etc/hosts", HOSTS),
        ("/etc/resolv.conf", RESOLV_CONF),
        ("/etc/hostname", HOSTNAME),
    ]
    .into_iter()
    .map(|(path, file)| {
        let file = mount(path, "bind", &sandbox.file(file).to_string_lossy(), options);
        with_mapped_owners(sandbox, file)
    })
    .collect()
}

/// The image that a mount of the request shows, if it does.
pub(crate) fn volume_image(volume: &cri::Mount) -> Option<&str> {
    let image = volume.image.as_ref().map(|image| image.image.as_str());
    image.filter(|image| !image.is_empty())
}

/// An image as a volume: read-only whatever the request says, as CRI has it.
fn image_volume(volume: &cri::Mount, image: &str) -> Result<Mount, CallError> {
    let destination = inside_path(&volume.container_path)?;
    let sub_path = format!("{SUB_PATH}{}", volume.image_sub_path);
    let options = ["ro", "nosuid", "nodev", "rprivate", &sub_path];
    let mut out = mount(&destination.to_string_lossy(), IMAGE, image, &options);
    add_options(&mut out, volume)?;
    Ok(out)
}

fn add_options(mount: &mut Mount, volume: &cri::Mount) -> Result<(), CallError> {
    for option in &volume.mount_options {
        if !MOUNT_OPTIONS.contains(&option.as_str()) {
            let why = format!(
                "the mount option '{}' is none of {}",
                shown(option),
                MOUNT_OPTIONS.join(", ")
            );
            return Err(refused(volume, &why));
        }
    }
    if let Some(options) = mount.options_mut() {
        options.extend(volume.mount_options.iter().cloned());
    }
    Ok(())
}

/// The container's root owns what the host's root owns on the disk.
fn with_mapped_owners(sandbox: &Sandbox, mut mount: Mount) -> Result<Mount, CallError> {
    if let Some(mappings) = &sandbox.settings.user_namespace {
        mount.set_uid_mappings(Some(oci_mappings(&mappings.uids)?));
        mount.set_gid_mappings(Some(oci_mappings(&mappings.gids)?));
    }
    Ok(mount)
}

/// As the OCI spec has them.
pub(super) fn oci_mappings(ranges: &[IdRange]) -> Result<Vec<LinuxIdMapping>, CallError> {
    let mapping = |range: &IdRange| {
        LinuxIdMappingBuilder::default()
            .container_id(range.inside)
            .host_id(range.outside)
            .size(range.length)
            .build()
            .internal(|| "cannot build the pod's id mappings".into())
    };
    ranges.iter().map(mapping).collect()
}

fn volume(sandbox: &Sandbox, volume: &cri::Mount) -> Result<Mount, CallError> {
    if sandbox.settings.user_namespace.is_some()
        && volume.propagation == MountPropagation::PropagationBidirectional as i32
    {
        return Err(refused(
            volume,
            "what the root of a user namespace mounts must not appear on the host, as bidirectional propagation would have it",
        ));
    }
    if let Some(image) = volume_image(volume) {
        return with_mapped_owners(sandbox, image_volume(volume, image)?);
    }
    let bind = bind(volume)?;
    if map_volume(sandbox, volume)? {
        with_mapped_owners(sandbox, bind)
    } else {
        Ok(bind)
    }
}

fn bind(volume: &cri::Mount) -> Result<Mount, CallError> {
    let destination = inside_path(&volume.container_path)?;
    let mut options = vec!["rbind"];
    options.push(match MountPropagation::try_from(volume.propagation) {
        Ok(MountPropagation::PropagationPrivate) => "rprivate",
        Ok(MountPropagation::PropagationHostToContainer) => "rslave",
        Ok(MountPropagation::PropagationBidirectional) => "rshared",
        Err(_) => {
            return Err(CallError::invalid(format!(
                "{} is no mount propagation",
                volume.propagation
            )));
        }
    });
    options.push(match (volume.readonly, volume.recursive_read_only) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
        (false, true) => return Err(refused(volume, "recursive_read_only needs readonly")),
    });
    if volume.recursive_read_only
        && volume.propagation != MountPropagation::PropagationPrivate as i32
    {
        return Err(refused(
            volume,
            "recursive_read_only needs private propagation",
        ));
    }
    let mut out = mount(
        &destination.to_string_lossy(),
        "bind",
        &volume.host_path,
        &options,
    );
    add_options(&mut out, volume)?;
    Ok(out)
}

fn refused(volume: &cri::Mount, why: &str) -> CallError {
    CallError::invalid(format!(
        "cannot mount '{}' on '{}': {why}",
        shown(&volume.host_path),
        shown(&volume.container_path)
    ))
}

/// A path in the container, absolute and without `..`: it is resolved inside the root anyway, but `..` is never meant.
pub(crate) fn inside_path(text: &str) -> Result<PathBuf, CallError> {
    if text.is_empty() || text.contains('\0') || text.len() > LONGEST_PATH {
        return Err(CallError::invalid(format!(
            "'{}' is no path in a container",
            shown(text)
        )));
    }
    let path = Path::new("/").join(text);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(CallError::invalid(format!(
            "the container path '{}' holds '..'",
            shown(text)
        )));
    }
    Ok(path.components().collect())
}

/// Checks the request's mounts and makes host paths that are missing, as the peers do (a kubelet counts on it for
/// hostPath volumes without a type).
pub(crate) fn check_mounts(config: &ContainerConfig) -> Result<(), CallError> {
    for volume in &config.mounts {
        check_target(volume)?;
        if volume_image(volume).is_some() {
            continue;
        }
        let path = Path::new(&volume.host_path);
        if !path.is_absolute() || volume.host_path.contains('\0') {
            return Err(refused(volume, "the host path is not absolute"));
        }
        match std::fs::metadata(path) {
            Ok(_) => check_propagation(volume, path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path).internal(|| {
                    format!(
                        "cannot make the missing host path '{}'",
                        shown(&volume.host_path)
                    )
                })?;
            }
            Err(error) => {
                return Err(error).internal(|| {
                    format!(
                        "cannot look at the host path '{}'",
                        shown(&volume.host_path)
                    )
                });
            }
        }
    }
    Ok(())
}

/// What the host does not share cannot be shared with it: mounts would be lost without a word.
fn check_propagation(volume: &cri::Mount, path: &Path) -> Result<(), CallError> {
    let asked = volume.propagation();
    if asked == MountPropagation::PropagationPrivate {
        return Ok(());
    }
    let found = propagation::of(path).internal(|| {
        format!(
            "cannot find out how mounts at the host path '{}' propagate",
            shown(&volume.host_path)
        )
    })?;
    match asked {
        MountPropagation::PropagationBidirectional if !found.shared => Err(refused(
            volume,
            "bidirectional propagation needs a host path on a shared mount (mount --make-rshared)",
        )),
        _ if !found.shared && !found.slave => Err(refused(
            volume,
            "propagation from the host needs a host path on a shared or slave mount (mount --make-rshared)",
        )),
        _ => Ok(()),
    }
}

/// Files of /proc that may be replaced, by lxcfs and its like.
const REPLACEABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/uptime",
];

fn check_target(volume: &cri::Mount) -> Result<(), CallError> {
    let destination = inside_path(&volume.container_path)?;
    check_covered(&destination, &volume.host_path).map_err(|why| refused(volume, why))
}

/// Whether `source` of the host may be mounted on `destination`, or why not. Nothing else covers /proc, whose files take the
/// labels and settings of the container (CVE-2019-16884).
pub(crate) fn check_covered(destination: &Path, source: &str) -> Result<(), &'static str> {
    if destination == Path::new("/") {
        return Err("it would cover the container's root");
    }
    let of_proc = destination.starts_with("/proc");
    if !of_proc
        || REPLACEABLE
            .iter()
            .any(|file| destination == Path::new(file))
    {
        return Ok(());
    }
    let is_proc = destination == Path::new("/proc")
        && statfs(source).is_ok_and(|stat| stat.filesystem_type() == PROC_SUPER_MAGIC);
    if is_proc {
        Ok(())
    } else {
        Err("only another procfs may cover /proc")
    }
}

/// The directories that an image declares as volumes and no mount of the request covers. They are made in the writable
/// layer, inside the root, so that nothing of the host is ever copied or resolved (CVE-2022-23648).
pub(crate) fn image_volumes(
    config: &ContainerConfig,
    image: Option<&ImageConfig>,
) -> Result<Vec<PathBuf>, CallError> {
    let declared = image
        .and_then(|image| image.volumes().as_ref())
        .into_iter()
        .flatten();
    let mut volumes = declared
        .map(|path| inside_path(path))
        .collect::<Result<Vec<_>, _>>()?;
    volumes.retain(|path| {
        !config
            .mounts
            .iter()
            .any(|mount| Path::new(&mount.container_path) == path)
    });
    Ok(volumes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_paths_are_absolute_and_never_climb() {
        assert_eq!(inside_path("a//b/./c").unwrap(), Path::new("/a/b/c"));
        for bad in ["", "/a/../b", "..", "a\0b", &"x/".repeat(4096)] {
            assert!(inside_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn volume_options_follow_the_request() {
        let base = || cri::Mount {
            container_path: "/data".into(),
            host_path: "/srv".into(),
            ..Default::default()
        };
        let options = |mount: &cri::Mount| {
            bind(mount).map(|mount| mount.options().clone().unwrap_or_default().join(","))
        };
        assert_eq!(options(&base()).unwrap(), "rbind,rprivate,rw");
        assert_eq!(
            options(&cri::Mount {
                readonly: true,
                propagation: 1,
                ..base()
            })
            .unwrap(),
            "rbind,rslave,ro"
        );
        assert_eq!(
            options(&cri::Mount {
                readonly: true,
                recursive_read_only: true,
                ..base()
            })
            .unwrap(),
            "rbind,rprivate,rro"
        );
        assert!(
            options(&cri::Mount {
                recursive_read_only: true,
                ..base()
            })
            .is_err()
        );
        assert!(
            options(&cri::Mount {
                readonly: true,
                recursive_read_only: true,
                propagation: 2,
                ..base()
            })
            .is_err()
        );
        assert!(
            options(&cri::Mount {
                propagation: 9,
                ..base()
            })
            .is_err()
        );
    }
}
