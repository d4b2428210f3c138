//! The launch plan of a container or exec: its OCI spec, as steps for pause's child.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceType, Mount, PosixRlimitType, Spec};
use podwright_pause::plan::{
    BindSource, Capabilities, Create, FsOption, LaunchPlan, NewPrivileges, Owners, PidNamespace,
    Process, Recursion, Rlimit, Stdin, Stdio, Step,
};
use podwright_pause::wire::Bytes;

use super::hooks;
use super::mounts::{IMAGE, POD_SHM, SUB_PATH};
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

/// The most that mount(2) takes as options: a page, with its NUL.
const LONGEST_OPTIONS: usize = 4095;

fn path_bytes(path: &Path) -> Bytes {
    path.into()
}

fn flags(bits: libc::c_ulong) -> u64 {
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
        overlay(inputs)?,
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

fn overlay(inputs: &LaunchInputs<'_>) -> Result<Step, CallError> {
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
fn image_source(
    inputs: &LaunchInputs<'_>,
    name: &str,
    options: &Options,
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
        sub_path: options.sub_path.as_str().into(),
        at: path_bytes(inputs.mount_point),
    })
}

/// The label of an overlay's files. Its commas are the label's own (mount(8), "context=").
fn push_label(options: &mut Vec<u8>, spec: &Spec) {
    if let Some(label) = mount_label(spec) {
        options.extend_from_slice(format!(",context=\"{label}\"").as_bytes());
    }
}

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

/// The SELinux label of what is mounted for the container.
fn mount_label(spec: &Spec) -> Option<&str> {
    spec.linux().as_ref()?.mount_label().as_deref()
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

fn mount_steps(
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
            source: image_source(inputs, &source.to_string_lossy(), &options)?,
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
