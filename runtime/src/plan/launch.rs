//! The launch plan of a container or exec: its OCI spec, as steps for pause's child.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceType, PosixRlimitType, Spec};
use podwright_pause::plan::{
    Capabilities, LaunchPlan, NewPrivileges, PidNamespace, Process, Rlimit, Stdin, Stdio, Step,
};
use podwright_pause::wire::Bytes;

use super::mount_steps::mount_steps;
use super::{hooks, overlay};
use crate::cgroup::Version;
use crate::error::{CallError, Kind};
use crate::ids::ContainerId;
use crate::records::VolumeImageRecord;
use crate::security::capabilities::Capabilities as CapabilitySets;
use crate::security::devices;

/// What the plan is made from besides the spec.
pub(crate) struct LaunchInputs<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) id: &'a ContainerId,
    pub(crate) capabilities: &'a CapabilitySets,
    /// Where relative layer names start.
    pub(crate) layers_root: &'a Path,
    /// Layer directories, lowest first.
    pub(crate) layers: &'a [String],
    /// A layer that is below them all; none in a pod with a user namespace, whose owners it does not have.
    pub(crate) mount_points: Option<&'a Path>,
    /// Holds `upper` and `work`.
    pub(crate) directory: &'a Path,
    /// An empty directory; the root is mounted on it, in the container's own mount namespace only.
    pub(crate) mount_point: &'a Path,
    /// An empty directory of the host.
    pub(crate) empty: &'a Path,
    /// The images of volumes.
    pub(crate) volume_images: &'a [VolumeImageRecord],
    /// Directories that the image declares as volumes.
    pub(crate) image_volumes: Vec<PathBuf>,
    pub(crate) cgroup_version: Version,
    /// A directory of the host with a place for each of cgroup v1's mounts; none in a pod with a user namespace, to which it would be
    /// a stranger's.
    pub(crate) cgroup_places: Option<&'a Path>,
    /// The files that take a process into the container's groups.
    pub(crate) join_files: Vec<PathBuf>,
    pub(crate) cgroup: &'a str,
    pub(crate) pid_namespace: Option<PidNamespace>,
    pub(crate) seccomp: Option<&'a [u8]>,
    pub(crate) stdin: Stdin,
}

pub(super) fn path_bytes(path: &Path) -> Bytes {
    path.into()
}

pub(super) fn flags(bits: libc::c_ulong) -> u64 {
    bits
}

/// The plan of a container.
pub(crate) fn launch_plan(inputs: &LaunchInputs<'_>) -> Result<LaunchPlan, CallError> {
    let spec = inputs.spec;
    let terminal = spec
        .process()
        .as_ref()
        .and_then(oci_spec::runtime::Process::terminal)
        == Some(true);
    let mut namespaces = libc::CLONE_NEWNS;
    if inputs.pid_namespace.is_none() {
        namespaces |= libc::CLONE_NEWPID;
    }
    if inputs.cgroup_version == Version::V2 {
        namespaces |= libc::CLONE_NEWCGROUP;
    }
    Ok(LaunchPlan {
        new_namespaces: u64::from(namespaces.unsigned_abs()),
        pid_namespace: inputs.pid_namespace.clone().unwrap_or(PidNamespace::Host),
        cgroup_procs: inputs
            .join_files
            .iter()
            .map(|path| path_bytes(path))
            .collect(),
        oom_score_adj: spec
            .process()
            .as_ref()
            .and_then(oci_spec::runtime::Process::oom_score_adj),
        steps: steps(inputs, terminal)?,
        process: process(inputs)?,
        stdio: if terminal {
            Stdio::Terminal
        } else {
            Stdio::Log {
                stdin: inputs.stdin.clone(),
            }
        },
        #[cfg(feature = "next-protocol")]
        rehearsal: Bytes::default(),
    })
}

fn steps(inputs: &LaunchInputs<'_>, terminal: bool) -> Result<Vec<Step>, CallError> {
    let spec = inputs.spec;
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    // Mounts of the host still arrive (a volume that is mounted late), none of ours goes back.
    let mut steps = vec![
        Step::TreePropagation {
            flags: flags(libc::MS_SLAVE | libc::MS_REC),
        },
        overlay::root(inputs)?,
    ];
    for mount in mounts {
        mount_steps(inputs, mount, &mut steps)?;
    }
    let own_dev = mounts.iter().any(|mount| {
        mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("tmpfs")
    });
    if own_dev {
        device_steps(spec, &mut steps);
    }
    if terminal {
        steps.push(Step::Terminal {
            rows: 0,
            columns: 0,
        });
    }
    let directory = |path: &Path| Step::Mkdir {
        path: path_bytes(path),
        mode: 0o755,
        uid: 0,
        gid: 0,
    };
    steps.extend(inputs.image_volumes.iter().map(|path| directory(path)));
    if let Some(process) = spec.process() {
        steps.push(directory(process.cwd()));
    }
    if let Some(linux) = spec.linux() {
        let paths = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        steps.extend(
            paths(linux.readonly_paths())
                .into_iter()
                .map(|path| Step::ReadOnly { path: path.into() }),
        );
        steps.extend(
            paths(linux.masked_paths())
                .into_iter()
                .map(|path| Step::Mask { path: path.into() }),
        );
    }
    let hooks = spec.hooks().as_ref();
    let before = hooks.and_then(|hooks| hooks.create_container().as_ref());
    let after = hooks.and_then(|hooks| hooks.start_container().as_ref());
    steps.extend(hooks::steps(inputs, before)?);
    steps.push(Step::Pivot);
    steps.extend(hooks::steps(inputs, after)?);
    if spec
        .root()
        .as_ref()
        .and_then(oci_spec::runtime::Root::readonly)
        == Some(true)
    {
        steps.push(Step::RootReadOnly);
    }
    Ok(steps)
}

/// The devices and links that every container has (config-linux.md, "Default Devices" and "Dev symbolic links"), and its own.
fn device_steps(spec: &Spec, steps: &mut Vec<Step>) {
    for device in devices::DEFAULT {
        let mode = libc::S_IFCHR | device.mode & 0o7777;
        steps.push(Step::Device {
            path: device.path.into(),
            mode,
            major: device.major,
            minor: device.minor,
            uid: 0,
            gid: 0,
        });
    }
    let own = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.devices().clone())
        .unwrap_or_default();
    for device in own {
        let kind = match device.typ() {
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::P => libc::S_IFIFO,
            _ => libc::S_IFCHR,
        };
        let number = |value: i64| u32::try_from(value).unwrap_or_default();
        steps.push(Step::Device {
            path: path_bytes(device.path()),
            mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
            major: number(device.major()),
            minor: number(device.minor()),
            uid: device.uid().unwrap_or_default(),
            gid: device.gid().unwrap_or_default(),
        });
    }
    for (text, path) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ] {
        steps.push(Step::Symlink {
            text: text.into(),
            path: path.into(),
        });
    }
}

fn process(inputs: &LaunchInputs<'_>) -> Result<Process, CallError> {
    let process = inputs
        .spec
        .process()
        .as_ref()
        .ok_or_else(|| CallError::new(Kind::Internal, "the OCI spec has no process"))?;
    let user = process.user();
    let strings = |list: &Option<Vec<String>>| {
        list.iter()
            .flatten()
            .map(|text| text.as_str().into())
            .collect()
    };
    let rlimits = process.rlimits().iter().flatten();
    Ok(Process {
        argv: strings(process.args()),
        env: strings(process.env()),
        cwd: path_bytes(process.cwd()),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(0o022),
        capabilities: Capabilities {
            bounding: inputs.capabilities.bounding.bits(),
            effective: inputs.capabilities.effective.bits(),
            permitted: inputs.capabilities.permitted.bits(),
            inheritable: inputs.capabilities.inheritable.bits(),
            ambient: inputs.capabilities.ambient.bits(),
        },
        new_privileges: if process.no_new_privileges() == Some(true) {
            NewPrivileges::Denied
        } else {
            NewPrivileges::Allowed
        },
        seccomp: inputs.seccomp.map(|program| Bytes(program.to_vec())),
        rlimits: rlimits.map(rlimit).collect(),
        apparmor: process.apparmor_profile().as_deref().map(Bytes::from),
        selinux: process.selinux_label().as_deref().map(Bytes::from),
    })
}

/// The hard limit of open files is kept within the daemon's own: raising it needs CAP_SYS_RESOURCE, and every container has one.
fn rlimit(limit: &oci_spec::runtime::PosixRlimit) -> Rlimit {
    let resource = match limit.typ() {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    let mut hard = limit.hard();
    if resource == libc::RLIMIT_NOFILE {
        let own = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        hard = own.map_or(hard, |(_, own)| hard.min(own));
    }
    Rlimit {
        resource,
        soft: limit.soft().min(hard),
        hard,
    }
}
