//! A pod's scope: its name, and what systemd is asked for; see systemd.scope(5).

use nix::unistd::Pid;
use zbus::zvariant::Value;

use super::Slice;
use crate::CGROUP_PREFIX;
use crate::ids::SandboxId;

const SUFFIX: &str = ".scope";
/// Names of pods and namespaces are shorter; what is longer is cut, as nobody reads on.
const LONGEST_DESCRIPTION: usize = 200;

/// The name of a pod's scope, which is also that of its directory.
pub(crate) fn scope_name(id: &SandboxId) -> String {
    format!("{CGROUP_PREFIX}{id}{SUFFIX}")
}

/// The id of the pod whose scope has this name.
pub(crate) fn scope_id(name: &str) -> Option<&str> {
    name.strip_prefix(CGROUP_PREFIX)?.strip_suffix(SUFFIX)
}

/// All scopes of this and other daemons, for fnmatch(3).
pub(super) fn pattern() -> String {
    format!("{CGROUP_PREFIX}*{SUFFIX}")
}

/// Whether a scope with this description is `owner`'s.
pub(super) fn is_owned(description: &str, owner: &str) -> bool {
    description.ends_with(&suffix(owner))
}

fn suffix(owner: &str) -> String {
    format!(" ({owner})")
}

/// A scope to be started.
pub(crate) struct Scope {
    name: String,
    description: String,
    slice: String,
    pid: u32,
}

impl Scope {
    pub(super) fn new(id: &SandboxId, what: &str, owner: &str, slice: &Slice, pid: Pid) -> Self {
        let shown = what.chars().take(LONGEST_DESCRIPTION);
        let shown: String = shown
            .map(|letter| if letter.is_control() { '?' } else { letter })
            .collect();
        Self {
            name: scope_name(id),
            description: format!("{shown}{}", suffix(owner)),
            slice: slice.name().to_owned(),
            pid: pid.as_raw().unsigned_abs(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// As StartTransientUnit takes them.
    pub(super) fn properties(&self) -> Vec<(&'static str, Value<'_>)> {
        vec![
            ("Description", Value::from(self.description.as_str())),
            ("Slice", Value::from(self.slice.as_str())),
            ("PIDs", Value::from(vec![self.pid])),
            // All controllers for what is below, which systemd leaves alone from now on.
            ("Delegate", Value::from(true)),
            // Nothing of it stays when its last process has ended, however that ended.
            ("CollectMode", Value::from("inactive-or-failed")),
            // The kubelet stops pods before the machine goes down. What it leaves is stopped with the last processes, not in the
            // order of units.
            ("DefaultDependencies", Value::from(false)),
            // DefaultTasksMax of systemd-system.conf(5), 15 % of the machine's, is no limit that anybody asked for.
            ("TasksMax", Value::from(u64::MAX)),
            // What `systemctl status` tells.
            ("CPUAccounting", Value::from(true)),
            ("MemoryAccounting", Value::from(true)),
            ("TasksAccounting", Value::from(true)),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn id() -> SandboxId {
        SandboxId::parse(&"0123456789abcdef".repeat(4)).unwrap()
    }

    fn scope(what: &str, owner: &str) -> Scope {
        let slice = "/kubepods.slice/kubepods-pod1.slice".parse().unwrap();
        Scope::new(&id(), what, owner, &slice, Pid::from_raw(42))
    }

    #[test]
    fn a_name_tells_the_pod() {
        let name = scope_name(&id());
        assert_eq!(scope_id(&name), Some(id().as_str()));
        for other in [
            "podwright-1.service",
            "cri-containerd-1.scope",
            "podwright-1",
        ] {
            assert_eq!(scope_id(other), None, "{other}");
        }
    }

    #[test]
    fn a_scope_is_delegated_unlimited_and_leaves_nothing() {
        let scope = scope("pod ns/name", "/var/lib/podwright");
        let properties = scope.properties();
        let value = |wanted: &str| {
            let found = properties.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.try_clone().unwrap()).unwrap()
        };
        assert_eq!(value("Slice"), Value::from("kubepods-pod1.slice"));
        assert_eq!(value("PIDs"), Value::from(vec![42_u32]));
        assert_eq!(value("Delegate"), Value::from(true));
        assert_eq!(value("TasksMax"), Value::from(u64::MAX));
        assert_eq!(value("CollectMode"), Value::from("inactive-or-failed"));
        // A limit or a device rule would be written anew by systemd at a daemon-reload.
        for (name, _) in &properties {
            let is_limit = ["Memory", "CPU", "IO", "Device", "Allowed"];
            let is_limit = is_limit.iter().any(|kind| name.starts_with(kind));
            assert!(!is_limit || name.ends_with("Accounting"), "{name}");
        }
    }

    #[test]
    fn a_description_tells_whose_it_is() {
        let owned = |scope: &Scope, owner| is_owned(&scope.description, owner);
        let ours = scope("pod ns/name", "/a");
        assert_eq!(ours.description, "pod ns/name (/a)");
        assert!(owned(&ours, "/a"));
        assert!(!owned(&ours, "/b"));
        // A name cannot claim to be another daemon's.
        let hostile = scope(&format!("x (/b)\n{}", "y".repeat(1000)), "/a");
        assert!(owned(&hostile, "/a") && !owned(&hostile, "/b"));
        assert!(hostile.description.len() < 250 && !hostile.description.contains('\n'));
    }
}
