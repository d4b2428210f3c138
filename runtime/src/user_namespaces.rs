//! Whether this machine can run pods in user namespaces, and which volumes they can have there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

use crate::error::{CallError, Context, Kind, chain};
use crate::index::shown;
use crate::security::seccomp::KernelVersion;
use crate::sys::{self, MountDepth};

/// The first Linux whose overlayfs takes idmapped layers. It cannot be tried without a mount on the host.
const OVERLAY_OF_MAPPED_LAYERS: KernelVersion = KernelVersion(5, 19);

/// What was found out when the daemon started.
pub(crate) struct UserNamespaceSupport(Result<OwnedFd, String>);

impl UserNamespaceSupport {
    /// Makes a user namespace, and tries an idmapped mount of the directory that all layers are in.
    pub(crate) fn probe(layers_root: &Path) -> Self {
        let probed = (|| {
            let running = KernelVersion::running();
            if running < OVERLAY_OF_MAPPED_LAYERS {
                let KernelVersion(major, minor) = running;
                return Err(format!(
                    "overlayfs has no idmapped layers in Linux {major}.{minor}: 5.19 is needed"
                ));
            }
            let namespace = sys::user_namespace().map_err(|error| {
                format!(
                    "a user namespace cannot be made (see /proc/sys/user/max_user_namespaces): {}",
                    chain(&error)
                )
            })?;
            sys::try_idmapped_mount(layers_root, namespace.as_fd(), MountDepth::This).map_err(
                |error| {
                    format!(
                        "{} has no idmapped mounts: {}",
                        layers_root.display(),
                        chain(&error)
                    )
                },
            )?;
            Ok(namespace)
        })();
        if let Err(why) = &probed {
            tracing::info!(%why, "pods cannot have user namespaces here");
        }
        Self(probed)
    }

    /// Whether pods can have user namespaces.
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_ok()
    }

    /// What is missing, if anything is.
    pub(crate) fn why_not(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    /// An error that says what is missing, if anything is.
    pub(crate) fn require(&self) -> Result<&OwnedFd, CallError> {
        self.0.as_ref().map_err(|why| {
            CallError::state(format!(
                "cannot run the pod sandbox in a user namespace on this node: {why}"
            ))
        })
    }

    /// That the owners of a volume's files can be mapped.
    pub(crate) fn check_volume(&self, host: &str, container: &str) -> Result<(), CallError> {
        let namespace = self.require()?.as_fd();
        let path = Path::new(host);
        let Err(error) = sys::try_idmapped_mount(path, namespace, MountDepth::Tree) else {
            return Ok(());
        };
        let what = |why: &str| {
            format!(
                "cannot mount '{}' on '{}' in the pod's user namespace: {why}; use another file system for the volume (ext4, \
                 xfs and btrfs have idmapped mounts, tmpfs since Linux 6.3), or run the pod without a user namespace",
                shown(host),
                shown(container)
            )
        };
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error).internal(|| what("its owners cannot be mapped"));
        }
        let alone = sys::try_idmapped_mount(path, namespace, MountDepth::This);
        let why = match alone {
            Ok(()) => "a file system mounted below it has no idmapped mounts".to_owned(),
            Err(_) => format!(
                "its file system ({}) has no idmapped mounts",
                file_system(path)
            ),
        };
        Err(CallError::new(Kind::FailedPrecondition, what(&why)))
    }
}

/// What a file system is called, as far as its number says (statfs(2)).
fn file_system(path: &Path) -> String {
    const KNOWN: [(i64, &str); 10] = [
        (0x6969, "nfs"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb"),
        (0x6573_5546, "fuse"),
        (0x794c_7630, "overlayfs"),
        (0x0102_1994, "tmpfs"),
        (0x0102_1997, "9p"),
        (0x00c3_6400, "ceph"),
        (0x9fa0, "proc"),
        (0x6265_6572, "sysfs"),
    ];
    match statfs(path).map(|stat| stat.filesystem_type()) {
        Ok(FsType(number)) => KNOWN
            .iter()
            .find(|(known, _)| *known == number)
            .map_or_else(
                || format!("number {number:#x}"),
                |(_, name)| (*name).to_owned(),
            ),
        Err(errno) => format!("unknown: {}", io::Error::from(errno)),
    }
}
