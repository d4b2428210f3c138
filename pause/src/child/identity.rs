//! Who the process is: limits, labels, ids, capabilities.

use crate::fault::{Fault, OrFault};
use crate::procfs;
use crate::sys::process::{self, CapabilitySets};
use crate::sys::{Errno, file};
use podwright_pause::plan::{Capabilities, NewPrivileges, Process};
use podwright_pause::protocol::{Failure, Stage};
use std::os::fd::{AsFd, OwnedFd};

/// A seccomp filter that is still to be installed, with the last that happens before execve.
pub(super) struct PendingFilter<'a>(pub(super) Option<&'a [u8]>);

/// Everything but the last filter and execve. The order is forced:
/// - capabilities leave the bounding set while CAP_SETPCAP is there;
/// - groups before the user, who may not change them;
/// - a filter without no_new_privs takes CAP_SYS_ADMIN, so it is installed before capabilities go, and with it only after
///   everything that it might forbid;
/// - the parent-death signal after the ids, whose change clears it.
pub(super) fn assume(
    process: &Process,
    labels: Option<OwnedFd>,
) -> Result<PendingFilter<'_>, Failure> {
    let identity = |fault: Fault| fault.at(Stage::Identity);
    for limit in &process.rlimits {
        process::set_limit(limit.resource, limit.soft, limit.hard)
            .or_fault("prlimit", limit.resource.to_string().as_bytes())
            .map_err(identity)?;
    }
    if let Some(labels) = labels {
        set_labels(process, &labels).map_err(identity)?;
    }
    change_user(process).map_err(identity)?;
    file::set_umask(process.umask);
    enter_working_directory(&process.cwd.0).map_err(|fault| fault.at(Stage::WorkingDirectory))?;
    process::die_with_parent()
        .or_fault("prctl PDEATHSIG", b"")
        .map_err(identity)?;
    let filter = process.seccomp.as_ref().map(|program| program.0.as_slice());
    let pending = match process.new_privileges {
        NewPrivileges::Denied => filter,
        NewPrivileges::Allowed => {
            install(filter).map_err(identity)?;
            None
        }
    };
    limit_capabilities(&process.capabilities).map_err(identity)?;
    if process.new_privileges == NewPrivileges::Denied {
        process::deny_new_privileges()
            .or_fault("prctl NO_NEW_PRIVS", b"")
            .map_err(identity)?;
    }
    Ok(PendingFilter(pending))
}

/// Installs a seccomp filter.
pub(super) fn install(filter: Option<&[u8]>) -> Result<(), Fault> {
    match filter {
        Some(program) => process::filter_system_calls(program).or_fault("seccomp", b""),
        None => Ok(()),
    }
}

fn set_labels(process: &Process, attr: &OwnedFd) -> Result<(), Fault> {
    if let Some(profile) = &process.apparmor {
        // Where AppArmor shares the machine with other modules it has its own directory (Linux 5.8).
        let file = match procfs::open_beneath(attr.as_fd(), b"apparmor/exec", libc::O_WRONLY) {
            Err(Fault {
                errno: Errno(libc::ENOENT),
                ..
            }) => procfs::open_beneath(attr.as_fd(), b"exec", libc::O_WRONLY)?,
            file => file?,
        };
        let value = [b"exec ", profile.0.as_slice()].concat();
        file::write_value(file.as_fd(), &value).or_fault("write apparmor/exec", &profile.0)?;
    }
    if let Some(label) = &process.selinux {
        let file = procfs::open_beneath(attr.as_fd(), b"exec", libc::O_WRONLY)?;
        file::write_value(file.as_fd(), &label.0).or_fault("write attr/exec", &label.0)?;
    }
    Ok(())
}

/// Changes ids, and keeps all permitted capabilities in force for what follows.
fn change_user(process: &Process) -> Result<(), Fault> {
    drop_bounding(process.capabilities.bounding)?;
    process::keep_capabilities().or_fault("prctl KEEPCAPS", b"")?;
    process::set_groups(&process.groups).or_fault("setgroups", b"")?;
    process::set_gid(process.gid).or_fault("setresgid", process.gid.to_string().as_bytes())?;
    process::set_uid(process.uid).or_fault("setresuid", process.uid.to_string().as_bytes())?;
    let now = process::capabilities().or_fault("capget", b"")?;
    process::set_capabilities(CapabilitySets {
        effective: now.permitted,
        ..now
    })
    .or_fault("capset", b"")
}

fn drop_bounding(keep: u64) -> Result<(), Fault> {
    for capability in (0..64).filter(|capability| keep & (1 << capability) == 0) {
        match process::drop_bounding(capability) {
            Ok(()) => {}
            // The first number that this kernel has no capability for.
            Err(Errno(libc::EINVAL)) => break,
            // Who has no CAP_SETPCAP does not have to drop what is not there.
            Err(_) if process::is_bounding(capability) == Ok(false) => {}
            dropped => {
                dropped.or_fault("prctl CAPBSET_DROP", capability.to_string().as_bytes())?;
            }
        }
    }
    Ok(())
}

fn limit_capabilities(wanted: &Capabilities) -> Result<(), Fault> {
    let sets = CapabilitySets {
        effective: wanted.effective,
        permitted: wanted.permitted,
        inheritable: wanted.inheritable,
    };
    process::set_capabilities(sets).or_fault("capset", b"")?;
    process::clear_ambient().or_fault("prctl CAP_AMBIENT", b"")?;
    for capability in (0..64).filter(|capability| wanted.ambient & (1 << capability) != 0) {
        process::raise_ambient(capability)
            .or_fault("prctl CAP_AMBIENT", capability.to_string().as_bytes())?;
    }
    Ok(())
}

/// Enters the working directory, as the user but with the privileges that a directory of another may need, and checks that
/// it is below the root, wherever a leaked descriptor might have led (CVE-2024-21626).
fn enter_working_directory(cwd: &[u8]) -> Result<(), Fault> {
    file::enter_path(cwd).or_fault("chdir", cwd)?;
    if file::working_directory_is_inside().or_fault("getcwd", cwd)? {
        Ok(())
    } else {
        Err(Fault::new(
            "working directory is outside the root",
            cwd,
            libc::EXDEV,
        ))
    }
}
