//! Where a pod's cgroup is, and how it is made, by the driver that is configured.
//!
//! With cgroupfs the pod's group is a directory in its parent. With systemd the parent is a slice and the pod's group a scope in
//! it; a pod that names no parent has its limits from the runtime, and those in a group of their own, as a scope's own values
//! are systemd's to write.

use nix::unistd::Pid;
use podwright_cri_api::v1::PodSandboxConfig;

use crate::cgroup::{CgroupPath, Leaf};
use crate::config::CgroupDriver;
use crate::error::{CallError, Context, Kind};
use crate::handler::Handler;
use crate::ids::SandboxId;
use crate::node::Node;
use crate::pause::Pause;
use crate::systemd::{Slice, Systemd, scope_id, scope_name};

/// In the scope of a pod that the runtime limits: the pod's group.
const LIMITED: &str = "pod";
/// In the pod's group, on cgroup v2: pause.
const PAUSE: &str = "pause";

/// The cgroup of a new pod.
pub(super) fn path(
    driver: CgroupDriver,
    handler: &Handler,
    id: &SandboxId,
    config: &PodSandboxConfig,
) -> Result<CgroupPath, CallError> {
    let asked = parent(config);
    let named = |parent: &CgroupPath, name: &str| {
        parent
            .join(name)
            .internal(|| "cannot name the pod's cgroup".into())
    };
    match (driver, asked) {
        (CgroupDriver::Cgroupfs, "") => named(handler.cgroup_root(), &directory_name(id)),
        (CgroupDriver::Cgroupfs, asked) => named(&absolute(asked)?, &directory_name(id)),
        (CgroupDriver::Systemd, "") => {
            named(&named(handler.cgroup_root(), &scope_name(id))?, LIMITED)
        }
        (CgroupDriver::Systemd, asked) => named(&slice(asked)?.path(), &scope_name(id)),
    }
}

/// What the request names, which is nothing or limits the pod itself.
pub(super) fn parent(config: &PodSandboxConfig) -> &str {
    let linux = config.linux.as_ref();
    linux.map_or("", |linux| linux.cgroup_parent.as_str())
}

fn directory_name(id: &SandboxId) -> String {
    format!("{}{id}", crate::CGROUP_PREFIX)
}

/// The pod whose cgroup has this name, with either driver.
pub(crate) fn id_of_group(name: &str) -> &str {
    scope_id(name).unwrap_or_else(|| name.trim_start_matches(crate::CGROUP_PREFIX))
}

/// The kubelet's cgroupfs driver sends absolute paths; a relative one starts at the root as well.
fn absolute(asked: &str) -> Result<CgroupPath, CallError> {
    let path = asked.trim_matches('/');
    if path.ends_with(".slice") {
        return Err(CallError::invalid(format!(
            "cannot use the pod's cgroup parent {:?}: it is a slice, as clients with the cgroup driver systemd send it, and this runtime's driver is cgroupfs; give both the same (cgroup.driver here, cgroupDriver of a kubelet)",
            crate::index::shown(asked)
        )));
    }
    CgroupPath::new(&format!("/{path}")).invalid(|| "cannot use the pod's cgroup parent".into())
}

fn slice(asked: &str) -> Result<Slice, CallError> {
    asked.parse().map_err(|error| {
        let what = "cannot use the pod's cgroup parent: this runtime's cgroup driver is systemd, which takes slices; if the client's is cgroupfs, give both the same (cgroup.driver here, cgroupDriver of a kubelet)";
        CallError::caused(Kind::InvalidArgument, what, error)
    })
}

/// The group of a pod that is being made.
pub(super) enum PodGroup<'a> {
    /// pause is born into this one, its own.
    Made(Leaf),
    /// systemd makes a scope around pause, which has to be there first.
    Around(&'a Systemd),
}

impl<'a> PodGroup<'a> {
    /// Makes so much of the pod's group, if that is the runtime's to make, that pause can be born there.
    pub(super) fn begin(node: &'a Node, pod: &CgroupPath) -> Result<Self, CallError> {
        if let Some(systemd) = &node.systemd {
            return Ok(Self::Around(systemd));
        }
        let own = node.cgroups.begin_leaf(pod, PAUSE).internal(failed)?;
        Ok(Self::Made(own))
    }

    /// Makes the rest of it meanwhile, with the pod's limits.
    pub(super) fn proceed(
        &self,
        node: &Node,
        config: &PodSandboxConfig,
        pod: &CgroupPath,
    ) -> Result<(), CallError> {
        match self {
            Self::Made(own) => {
                node.cgroups.complete_leaf(own).internal(failed)?;
                super::update::apply(config, &node.cgroups.cgroup(pod), &config.into())
            }
            Self::Around(_) => Ok(()),
        }
    }

    /// Where pause is born.
    pub(super) fn birthplace(&self) -> Option<&Leaf> {
        match self {
            Self::Made(group) => Some(group),
            Self::Around(_) => None,
        }
    }

    /// Makes it around pause, where it is not made; returns pause's own.
    pub(super) async fn complete(
        self,
        node: &Node,
        id: &SandboxId,
        config: &PodSandboxConfig,
        pod: &CgroupPath,
        pause: &Pause,
    ) -> Result<Leaf, CallError> {
        let systemd = match self {
            Self::Made(group) => return Ok(group),
            Self::Around(systemd) => systemd,
        };
        let pid = scoped(systemd, id, config, pod, pause).await?;
        let own = node.cgroups.create_leaf_around(pod, PAUSE, pid);
        let own = own.internal(failed)?;
        super::update::apply(config, &node.cgroups.cgroup(pod), &config.into())?;
        Ok(own)
    }
}

fn failed() -> String {
    "cannot make the pod's cgroup".to_owned()
}

/// Puts pause into a new scope.
async fn scoped(
    systemd: &Systemd,
    id: &SandboxId,
    config: &PodSandboxConfig,
    pod: &CgroupPath,
    pause: &Pause,
) -> Result<Pid, CallError> {
    let internal = |what: &'static str| CallError::new(Kind::Internal, what);
    let pid = pause
        .pid()
        .ok_or_else(|| internal("pause has not told its process id"))?;
    let ancestors = std::iter::successors(pod.parent(), CgroupPath::parent);
    let slice = ancestors
        .filter_map(|ancestor| ancestor.as_str().parse().ok())
        .next()
        .ok_or_else(|| internal("the pod's cgroup is in no slice"))?;
    let metadata = config.metadata.clone().unwrap_or_default();
    let what = format!("pod {}/{}", metadata.namespace, metadata.name);
    let pid = Pid::from_raw(pid.cast_signed());
    systemd
        .start_scope(id, &what, &slice, pid)
        .await
        .internal(|| format!("cannot make the pod's scope in {slice}"))?;
    Ok(pid)
}
