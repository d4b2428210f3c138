//! The systemd cgroup driver: systemd has the cgroup tree, and gives each pod a part of it.
//!
//! A pod is one transient scope with `Delegate=yes` in the slice that its request names. What is below a delegated unit is
//! nobody's but the runtime's (systemd's CGROUP_DELEGATION.md): pause and each container have groups there, made and limited
//! by plain file I/O as with the cgroupfs driver. So systemd is asked once per pod, and knows no limit, device rule or process
//! of a container that it could write anew at a daemon-reload.

mod bus;
mod error;
mod jobs;
mod scope;
mod slice;

use std::collections::HashSet;

use nix::unistd::Pid;
use tokio::sync::Mutex;

pub use error::SystemdError;
pub use slice::{InvalidSlice, Slice};

use crate::ids::SandboxId;
use bus::Bus;
pub(crate) use scope::{Scope, scope_id, scope_name};

/// A connection to systemd, made anew when it breaks.
pub(crate) struct Systemd {
    /// Guards the place, not the bus: calls go side by side.
    bus: Mutex<Option<Bus>>,
    /// What the descriptions of this daemon's scopes end with: others may have scopes with the same prefix.
    owner: String,
}

impl Systemd {
    /// Connects. `owner` tells this daemon's scopes from those of others on the machine.
    pub(crate) async fn connect(owner: String) -> Result<Self, SystemdError> {
        let bus = Bus::connect().await?;
        Ok(Self {
            bus: Mutex::new(Some(bus)),
            owner,
        })
    }

    /// Makes the pod's scope in `slice`, which systemd makes too when it is missing, with `pid` as its first process.
    pub(crate) async fn start_scope(
        &self,
        id: &SandboxId,
        what: &str,
        slice: &Slice,
        pid: Pid,
    ) -> Result<(), SystemdError> {
        let scope = Scope::new(id, what, &self.owner, slice, pid);
        let bus = self.bus().await?;
        match bus.start(&scope).await {
            Err(error) if error.is_disconnect() => {
                tracing::warn!(unit = scope.name(), error = %crate::error::chain(&error), "the connection to systemd broke; making another");
                self.reconnect(&bus).await?.resume(&scope).await
            }
            started => started,
        }
    }

    /// Ends a pod's scope, whose processes are gone. systemd does that by itself when it sees the group empty, but where it is executed anew
    /// meanwhile it makes the group again, and waits for ever for its end.
    pub(crate) async fn end_scope(&self, id: &SandboxId) -> Result<(), SystemdError> {
        let name = scope_name(id);
        let bus = self.bus().await?;
        match bus.stop(&name).await {
            Err(error) if error.is_disconnect() => self.reconnect(&bus).await?.stop(&name).await,
            stopped => stopped,
        }
    }

    /// Kills what is left in this daemon's scopes of pods that are not `live`, and ends them; their names.
    pub(crate) async fn kill_stale(
        &self,
        live: &HashSet<String>,
    ) -> Result<Vec<String>, SystemdError> {
        let bus = self.bus().await?;
        let mut killed = Vec::new();
        for (name, description) in bus.scopes().await? {
            let stale = scope_id(&name).is_some_and(|id| !live.contains(id));
            if stale && scope::is_owned(&description, &self.owner) {
                bus.kill(&name).await?;
                bus.stop(&name).await?;
                killed.push(name);
            }
        }
        Ok(killed)
    }

    async fn bus(&self) -> Result<Bus, SystemdError> {
        let mut held = self.bus.lock().await;
        match &*held {
            Some(bus) if !bus.is_closed() => Ok(bus.clone()),
            _ => Ok(held.insert(Bus::connect().await?).clone()),
        }
    }

    /// Another connection than `broken`; who comes second finds it made.
    async fn reconnect(&self, broken: &Bus) -> Result<Bus, SystemdError> {
        let mut held = self.bus.lock().await;
        match &*held {
            Some(bus) if !bus.is_same(broken) && !bus.is_closed() => Ok(bus.clone()),
            _ => Ok(held.insert(Bus::connect().await?).clone()),
        }
    }
}
