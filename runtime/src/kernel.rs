//! What this kernel offers beyond what the runtime needs, found out once at the start.

use crate::user_namespaces::UserNamespaceSupport;

/// Features that clients are told of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelFeatures {
    /// mount_setattr(2), which makes a whole tree of mounts read-only at once.
    pub(crate) recursive_read_only_mounts: bool,
    /// Pods can have user namespaces.
    pub(crate) user_namespaces: bool,
}

impl KernelFeatures {
    /// Asks the kernel.
    pub(crate) fn probe(user_namespaces: &UserNamespaceSupport) -> Self {
        Self {
            recursive_read_only_mounts: crate::sys::has_mount_setattr(),
            user_namespaces: user_namespaces.is_there(),
        }
    }
}
