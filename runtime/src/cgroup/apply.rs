//! Setting limits: what a request may hold, and who sets which part of it.

use nix::errno::Errno;
use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxPids, LinuxResources,
};

use super::dir::Dir;
use super::hierarchy::{Interface, Location};
use super::undo::{Occasion, Target, Undo};
use super::{Cgroup, CgroupError, Controller, apply_devices, apply_v1, apply_v2};

impl Cgroup {
    /// Sets what `resources` holds on a group that nothing is in yet; absent fields, and zero limits as the OCI runtimes treat
    /// them, stay as they are. A negative limit means none. Values that depend on each other are written in an order that the
    /// kernel takes. Not atomic: on an error, values written until then stay.
    ///
    /// Huge page limits are passed over when the kernel has no hugetlb controller, as the kubelet always sends them.
    ///
    /// # Errors
    /// [`CgroupError::Write`] with a hint when the kernel refuses a value; [`CgroupError::MissingController`],
    /// [`CgroupError::UnifiedOnV1`], [`CgroupError::DeviceProgram`], [`CgroupError::DeviceFilterUnsupported`], [`CgroupError::Unsupported`] or
    /// [`CgroupError::InvalidValue`] for what can never work.
    pub fn apply(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        self.set(resources, &mut Occasion::New)
    }

    /// As [`Cgroup::apply`], on a group that may be in use: all limits change or none, and none so that the kernel kills. Blocks
    /// while memory is reclaimed.
    ///
    /// # Errors
    /// Those of [`Cgroup::apply`], and [`CgroupError::Write`] with EBUSY when the group uses more than it may have from now on.
    pub fn update(&self, resources: &LinuxResources) -> Result<Undo, CgroupError> {
        let mut occasion = Occasion::Update(Vec::new());
        let done = self.set(resources, &mut occasion);
        let undo = Undo::new(self.clone(), occasion);
        match done {
            Ok(()) => Ok(undo),
            Err(error) => {
                undo.restore();
                Err(error)
            }
        }
    }

    fn set(&self, resources: &LinuxResources, occasion: &mut Occasion) -> Result<(), CgroupError> {
        refuse_unsupported(resources)?;
        let unified = self.checked_unified(resources)?;
        if let Some(rules) = resources
            .devices()
            .as_ref()
            .filter(|rules| !rules.is_empty())
        {
            self.apply_devices(rules)?;
        }
        if let Some(memory) = resources.memory() {
            let asked = [memory.limit(), memory.swap(), memory.reservation()]
                .iter()
                .flatten()
                .any(|value| *value != 0);
            match self.wanted(Controller::Memory, asked, "memory", occasion)? {
                Some((mut target, Interface::V1)) => apply_v1::memory(&mut target, memory)?,
                Some((mut target, Interface::V2)) => apply_v2::memory(&mut target, memory)?,
                None => {}
            }
        }
        if let Some(cpu) = resources.cpu() {
            self.apply_cpu(cpu, occasion)?;
        }
        if let Some(pids) = resources.pids() {
            self.apply_pids(*pids, occasion)?;
        }
        for limit in resources.hugepage_limits().iter().flatten() {
            self.apply_hugepages(limit, occasion)?;
        }
        self.apply_unified(&unified, occasion)
    }

    /// The controller's directory, opened when something is asked of it.
    fn wanted<'a>(
        &self,
        controller: Controller,
        asked: bool,
        field: &'static str,
        occasion: &'a mut Occasion,
    ) -> Result<Option<(Target<'a>, Interface)>, CgroupError> {
        if !asked {
            return Ok(None);
        }
        match self.controller(controller)? {
            Some((dir, Location { mount, interface })) => {
                let target = Target {
                    dir,
                    mount,
                    occasion,
                };
                Ok(Some((target, interface)))
            }
            None => Err(CgroupError::MissingController {
                controller: controller.name(),
                field,
            }),
        }
    }

    fn apply_cpu(&self, cpu: &LinuxCpu, occasion: &mut Occasion) -> Result<(), CgroupError> {
        let asked = cpu.shares().is_some_and(|v| v != 0)
            || cpu.quota().is_some_and(|v| v != 0)
            || cpu.period().is_some_and(|v| v != 0)
            || cpu.burst().is_some()
            || cpu.idle().is_some();
        match self.wanted(Controller::Cpu, asked, "cpu", occasion)? {
            Some((mut target, Interface::V1)) => apply_v1::cpu(&mut target, cpu)?,
            Some((mut target, Interface::V2)) => apply_v2::cpu(&mut target, cpu)?,
            None => {}
        }
        let sets = [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())];
        let asked = sets
            .iter()
            .any(|(_, value)| value.as_ref().is_some_and(|value| !value.is_empty()));
        if let Some((mut target, _)) =
            self.wanted(Controller::Cpuset, asked, "cpu.cpus", occasion)?
        {
            for (file, value) in sets {
                cpuset(&mut target, file, value.as_deref().unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// By the v1 controller where there is one, and by a program on the unified mount otherwise.
    fn apply_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<(), CgroupError> {
        if let Some((dir, _)) = self.controller(Controller::Devices)? {
            return apply_v1::devices(&dir, rules);
        }
        let Some(mount) = self.hierarchy.unified() else {
            return Err(CgroupError::DeviceFilterUnsupported {
                path: self.path.to_string(),
            });
        };
        apply_devices::apply(&mount.dir.open(self.path.relative())?, rules)
    }

    fn apply_pids(&self, pids: LinuxPids, occasion: &mut Occasion) -> Result<(), CgroupError> {
        let limit = pids.limit();
        let wanted = self.wanted(Controller::Pids, limit != 0, "pids.limit", occasion)?;
        match wanted {
            Some((mut target, _)) if limit > 0 => target.write("pids.max", &limit.to_string()),
            Some((mut target, _)) => target.write("pids.max", "max"),
            None => Ok(()),
        }
    }

    fn apply_hugepages(
        &self,
        limit: &LinuxHugepageLimit,
        occasion: &mut Occasion,
    ) -> Result<(), CgroupError> {
        let size = limit.page_size();
        if !self.hierarchy.page_sizes().contains(size) {
            return Err(CgroupError::InvalidValue {
                field: "hugepageLimits.pageSize",
                value: size.clone(),
                reason: "this machine has no such huge pages",
            });
        }
        let Some((dir, Location { mount, interface })) = self.controller(Controller::Hugetlb)?
        else {
            return Ok(());
        };
        let suffix = match interface {
            Interface::V1 => "limit_in_bytes",
            Interface::V2 => "max",
        };
        let file = format!("hugetlb.{size}.{suffix}");
        let mut target = Target {
            dir,
            mount,
            occasion,
        };
        if interface == Interface::V2 && !target.has(&file) {
            // Beside v1 controllers the unified mount's hugetlb is enabled only for those who ask.
            self.hierarchy
                .enable(&self.path, &[Controller::Hugetlb.name()])?;
        }
        let value = limit.limit().to_string();
        target.write(&file, &value)?;
        // Pages that a mapping reserves are refused to it at mmap(2), not by SIGBUS when it touches them. Linux 5.7.
        let reserved = format!("hugetlb.{size}.rsvd.{suffix}");
        if target.has(&reserved) {
            target.write(&reserved, &value)?;
        }
        Ok(())
    }
}

/// Fields that would be ignored silently otherwise.
fn refuse_unsupported(resources: &LinuxResources) -> Result<(), CgroupError> {
    let cpu = resources.cpu().as_ref();
    let memory = resources.memory().as_ref();
    let refused = [
        ("blockIO", resources.block_io().is_some()),
        ("network", resources.network().is_some()),
        (
            "rdma",
            resources
                .rdma()
                .as_ref()
                .is_some_and(|rdma| !rdma.is_empty()),
        ),
        (
            "cpu.realtimeRuntime",
            cpu.is_some_and(|cpu| cpu.realtime_runtime().is_some_and(|value| value != 0)),
        ),
        (
            "cpu.realtimePeriod",
            cpu.is_some_and(|cpu| cpu.realtime_period().is_some_and(|value| value != 0)),
        ),
        (
            "memory.swappiness",
            memory.is_some_and(|memory| memory.swappiness().is_some()),
        ),
        (
            "memory.disableOOMKiller",
            memory.is_some_and(|memory| memory.disable_oom_killer() == Some(true)),
        ),
        (
            "memory.kernelTCP",
            memory.is_some_and(|memory| memory.kernel_tcp().is_some_and(|value| value != 0)),
        ),
    ];
    match refused.into_iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(CgroupError::Unsupported { field }),
        None => Ok(()),
    }
}

/// Both interfaces have the same two files.
fn cpuset(target: &mut Target<'_>, file: &str, value: &str) -> Result<(), CgroupError> {
    if value.is_empty() {
        return Ok(());
    }
    target.try_write(file, value).map_err(|source| {
        let dir = &target.dir;
        let offered = |name: &str| dir.read(name).unwrap_or_default().trim().to_owned();
        let what = if file == "cpuset.cpus" {
            "CPUs"
        } else {
            "memory nodes"
        };
        let hint = match source {
            Errno::EINVAL | Errno::ERANGE | Errno::EACCES | Errno::ENODEV => {
                let name = file.trim_start_matches("cpuset.");
                let held = [
                    format!("cpuset.{name}.effective"),
                    format!("cpuset.effective_{name}"),
                ]
                .iter()
                .map(|name| offered(name))
                .find(|list| !list.is_empty());
                format!(
                    "available {what}: {}",
                    held.unwrap_or_else(|| "unknown".to_owned())
                )
            }
            Errno::EBUSY => format!("a child group still uses some of the {what}"),
            _ => String::new(),
        };
        dir.write_error(file, value, hint, source)
    })
}

/// Writes values that constrain each other (memory and memory+swap, quota and period and burst): what the kernel
/// refuses with EINVAL is tried again after the others, until a round brings nothing. Raising needs one order,
/// lowering the other; trying costs less than reading the old values.
pub(super) fn write_in_any_order(
    target: &mut Target<'_>,
    values: &[(&str, String)],
    hint: impl Fn(&Dir, &str, Errno) -> String,
) -> Result<(), CgroupError> {
    let mut pending: Vec<&(&str, String)> = values.iter().collect();
    while !pending.is_empty() {
        let mut refused = Vec::new();
        let mut last = None;
        for entry in &pending {
            match target.try_write(entry.0, &entry.1) {
                Ok(()) => {}
                Err(Errno::EINVAL) => {
                    last = last.or(Some(*entry));
                    refused.push(*entry);
                }
                Err(source) => {
                    let hint = hint(&target.dir, entry.0, source);
                    return Err(target.dir.write_error(entry.0, &entry.1, hint, source));
                }
            }
        }
        if let Some((file, value)) = last
            && refused.len() == pending.len()
        {
            let hint = hint(&target.dir, file, Errno::EINVAL);
            return Err(target.dir.write_error(file, value, hint, Errno::EINVAL));
        }
        pending = refused;
    }
    Ok(())
}
