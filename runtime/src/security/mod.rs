//! What a container may do: seccomp programs, capabilities, users, paths, devices, sysctls, OOM score.
//!
//! Everything here is data in, data out; the results go into launch plans, and nothing is applied here. The one exception is
//! the default AppArmor profile, which is loaded when the daemon starts (`apparmor/load.rs`).

pub mod apparmor;
pub mod capabilities;
pub mod devices;
pub mod id_mappings;
pub mod oom;
pub mod paths;
pub mod seccomp;
pub mod selinux;
pub mod sysctl;
pub mod users;

/// Whether a container asked to be privileged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// The defaults and what the request adds.
    Confined,
    /// Everything that this machine and this daemon have.
    Privileged,
}
