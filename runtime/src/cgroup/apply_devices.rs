//! Device rules on cgroup v2, where no controller takes them: a program decides.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use oci_spec::runtime::LinuxDeviceCgroup;

use super::device_rule::DeviceRule;
use super::dir::Dir;
use super::{CgroupError, bpf, device_program};

/// Makes `rules` the group's, in place of those that it has, at once. Where something has added programs to the first, they
/// go afterwards: until then all have to allow.
pub(super) fn apply(dir: &Dir, rules: &[LinuxDeviceCgroup]) -> Result<(), CgroupError> {
    let rules = rules.iter().map(DeviceRule::parse);
    let rules = rules.collect::<Result<Vec<_>, _>>()?;
    replace(dir.as_fd(), &device_program::compile(&rules)).map_err(|source| {
        CgroupError::DeviceProgram {
            path: dir.path().to_owned(),
            source,
        }
    })
}

/// Makes a program and drops it: whether the kernel takes device programs at all.
pub(super) fn try_program() -> Result<(), Errno> {
    bpf::load(&device_program::compile(&[])).map(drop)
}

fn replace(cgroup: BorrowedFd<'_>, program: &[device_program::Instruction]) -> Result<(), Errno> {
    let old = bpf::attached(cgroup)?;
    let new = bpf::load(program)?;
    let (first, rest) = match old.split_first() {
        Some((first, rest)) => (Some(first), rest),
        None => (None, &[][..]),
    };
    bpf::attach(cgroup, &new, first)?;
    rest.iter().try_for_each(|old| bpf::detach(cgroup, old))
}
