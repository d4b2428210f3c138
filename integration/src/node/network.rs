//! A network for this process alone.

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};

use super::netfilter;

/// Puts the calling thread, and all that it starts from now on, into a new network namespace with a loopback. Links and rules that
/// are made there are gone with its last process.
///
/// # Errors
/// When the namespace cannot be made, which needs root.
pub fn enter_private_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
    netfilter::bring_up("lo")
}
