//! The Node Resource Interface, as the runtime uses it: what plugins are told of pods and containers, and what they may change.
//!
//! The interface itself is the crate `podwright_nri`. Here are the places where something happens ([`pods`], [`containers`]), what
//! pods and containers look like to plugins ([`describe`]), and how their wishes are met: for a new container in its OCI spec
//! ([`mod@adjust`]), for a living one in its cgroup ([`host`]). What cannot be met is an error that says so; nothing is left out.
//!
//! With no plugin connected all of it is one atomic load in each place.

mod adjust;
mod containers;
mod describe;
mod hooks;
mod host;
mod pods;
mod resources;
mod seccomp;

pub(crate) use adjust::adjust;
pub(crate) use containers::{
    Told, ended, follow_up, removed, starting, stopped, undone, updated, updating, wishes,
};
pub(crate) use host::NodeHost;
pub(crate) use pods::{pod_removed, pod_runs, pod_stops, pod_updated, pod_updating};
pub(crate) use resources::{overlay, refuse_rules};
pub(crate) use seccomp::profile as seccomp_profile;

use podwright_nri::NriError;

use crate::error::{CallError, Kind};

/// A plugin's refusal, as the client is told it.
fn call_error(what: &str, error: NriError) -> CallError {
    let kind = match error.is_transient() {
        true => Kind::Unavailable,
        false => Kind::FailedPrecondition,
    };
    CallError::caused(kind, what, error)
}
