//! From a CRI request to what pause executes: CRI → OCI spec ([`spec`]) → launch plan ([`launch`]).
//!
//! The OCI spec in between is what plugins, device injection and `inspect` work on. All of this is data in, data out:
//! no system call is made here but to look at devices that a request names.

mod command;
mod environment;
mod hooks;
mod launch;
mod mount_steps;
mod mounts;
mod overlay;
mod process;
mod resources;
mod spec;
#[cfg(test)]
mod tests;

pub(crate) use command::CommandBase;
pub(crate) use hooks::write_bundle;
pub(crate) use launch::{LaunchInputs, launch_plan};
pub(crate) use mounts::{
    LONGEST_PATH, check_covered, check_mounts, image_volumes, inside_path, volume_image,
};
pub(crate) use process::{SeccompChoice, capability_sets, privilege, seccomp_choice};
pub(crate) use resources::{held_resources, merge_resources, oci_resources, sum_resources};
pub(crate) use spec::{SpecInputs, container_pid_mode, container_spec};
