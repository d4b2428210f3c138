//! The daemon's own resource limits.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, as the Go runtime does for its programs: shells and many units leave 1,024, which some
/// hundred pods use up. The soft one is there for programs that use select(2), as no part of this one does. Containers
/// have a limit of their own (`plan/spec.rs`).
pub(crate) fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files to the hard one: some hundred pods may use it up");
    }
}
