//! Device rules on cgroup v2, where no controller takes them: a program decides.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use oci_spec::runtime::LinuxDeviceCgroup;

use super::device_rule::DeviceRule;
use super::dir::Dir;
use super::{CgroupError, bpf, device_program};

/// Makes `rules` the group's, in place of those that it has. There is no moment without any: until the old program is
/// gone, both have to allow.
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

fn replace(cgroup: BorrowedFd<'_>, program: &[device_program::Instruction]) -> Result<(), Errno> {
    let old = bpf::attached(cgroup)?;
    let new = bpf::load(program)?;
    bpf::attach(cgroup, &new)?;
    old.iter().try_for_each(|old| bpf::detach(cgroup, old))
}
