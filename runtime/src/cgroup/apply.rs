//! Setting limits: what a request may hold, and who sets which part of it.

use nix::errno::Errno;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxHugepageLimit, LinuxPids, LinuxResources};

use super::dir::Dir;
use super::hierarchy::{Interface, Location};
use super::{Cgroup, CgroupError, Controller, Version, apply_devices, apply_v1, apply_v2};

impl Cgroup {
    /// Sets what `resources` holds; absent fields, and zero limits as the OCI runtimes treat them, stay as they are.
    /// A negative limit means none. Values that depend on each other are written in an order that the kernel takes.
    /// Not atomic: on an error, values written until then stay.
    ///
    /// Huge page limits are passed over when the kernel has no hugetlb controller, as the kubelet always sends them.
    ///
    /// # Errors
    /// [`CgroupError::Write`] with a hint when the kernel refuses a value; [`CgroupError::MissingController`],
    /// [`CgroupError::UnifiedOnV1`], [`CgroupError::DeviceProgram`], [`CgroupError::DeviceFilterUnsupported`], [`CgroupError::Unsupported`] or
    /// [`CgroupError::InvalidValue`] for what can never work.
    pub fn apply(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        refuse_unsupported(resources)?;
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
            match self.wanted(Controller::Memory, asked, "memory")? {
                Some((dir, Interface::V1)) => apply_v1::memory(&dir, memory)?,
                Some((dir, Interface::V2)) => apply_v2::memory(&dir, memory)?,
                None => {}
            }
        }
        if let Some(cpu) = resources.cpu() {
            let asked = cpu.shares().is_some_and(|v| v != 0)
                || cpu.quota().is_some_and(|v| v != 0)
                || cpu.period().is_some_and(|v| v != 0)
                || cpu.burst().is_some()
                || cpu.idle().is_some();
            match self.wanted(Controller::Cpu, asked, "cpu")? {
                Some((dir, Interface::V1)) => apply_v1::cpu(&dir, cpu)?,
                Some((dir, Interface::V2)) => apply_v2::cpu(&dir, cpu)?,
                None => {}
            }
            let sets = [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())];
            let asked = sets
                .iter()
                .any(|(_, value)| value.as_ref().is_some_and(|value| !value.is_empty()));
            if let Some((dir, _)) = self.wanted(Controller::Cpuset, asked, "cpu.cpus")? {
                for (file, value) in sets {
                    cpuset(&dir, file, value.as_deref().unwrap_or_default())?;
                }
            }
        }
        if let Some(pids) = resources.pids() {
            self.apply_pids(*pids)?;
        }
        for limit in resources.hugepage_limits().iter().flatten() {
            self.apply_hugepages(limit)?;
        }
        self.apply_unified(resources)
    }

    /// The controller's directory, opened when something is asked of it.
    fn wanted(
        &self,
        controller: Controller,
        asked: bool,
        field: &'static str,
    ) -> Result<Option<(Dir, Interface)>, CgroupError> {
        if !asked {
            return Ok(None);
        }
        match self.controller(controller)? {
            Some((dir, Location { interface, .. })) => Ok(Some((dir, interface))),
            None => Err(CgroupError::MissingController {
                controller: controller.name(),
                field,
            }),
        }
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

    fn apply_pids(&self, pids: LinuxPids) -> Result<(), CgroupError> {
        let limit = pids.limit();
        match self.wanted(Controller::Pids, limit != 0, "pids.limit")? {
            Some((dir, _)) if limit > 0 => dir.write("pids.max", &limit.to_string()),
            Some((dir, _)) => dir.write("pids.max", "max"),
            None => Ok(()),
        }
    }

    fn apply_hugepages(&self, limit: &LinuxHugepageLimit) -> Result<(), CgroupError> {
        let size = limit.page_size();
        if !self.hierarchy.page_sizes().contains(size) {
            return Err(CgroupError::InvalidValue {
                field: "hugepageLimits.pageSize",
                value: size.clone(),
                reason: "this machine has no such huge pages",
            });
        }
        let Some((dir, Location { interface, .. })) = self.controller(Controller::Hugetlb)? else {
            return Ok(());
        };
        let (file, value) = match interface {
            Interface::V1 => (
                format!("hugetlb.{size}.limit_in_bytes"),
                limit.limit().to_string(),
            ),
            Interface::V2 => (format!("hugetlb.{size}.max"), limit.limit().to_string()),
        };
        match dir.try_write(&file, &value) {
            Ok(()) => return Ok(()),
            // Beside v1 controllers the unified mount's hugetlb is enabled only for those who ask.
            Err(Errno::ENOENT) if interface == Interface::V2 => {
                self.hierarchy.enable(&self.path, &[Controller::Hugetlb])?
            }
            Err(source) => return Err(dir.write_error(&file, &value, String::new(), source)),
        }
        dir.write(&file, &value)
    }

    fn apply_unified(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let Some(unified) = resources
            .unified()
            .as_ref()
            .filter(|unified| !unified.is_empty())
        else {
            return Ok(());
        };
        let mut entries: Vec<_> = unified.iter().collect();
        entries.sort();
        let Some(mount) = self
            .hierarchy
            .unified()
            .filter(|_| self.hierarchy.version() == Version::V2)
        else {
            return Err(CgroupError::UnifiedOnV1 {
                key: entries[0].0.chars().take(80).collect(),
            });
        };
        let dir = mount.dir.open(self.path.relative())?;
        for (key, value) in entries {
            // "cgroup.*" files move processes and kill; only a controller's files are limits.
            let plain = key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            if !plain || !key.contains('.') || key.starts_with('.') || key.starts_with("cgroup.") {
                return Err(CgroupError::InvalidValue {
                    field: "unified",
                    value: key.chars().take(80).collect(),
                    reason: "is not a controller's interface file",
                });
            }
            dir.write(key, value)?;
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
fn cpuset(dir: &Dir, file: &str, value: &str) -> Result<(), CgroupError> {
    if value.is_empty() {
        return Ok(());
    }
    dir.try_write(file, value).map_err(|source| {
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
    dir: &Dir,
    values: &[(&str, String)],
    hint: impl Fn(&Dir, &str, Errno) -> String,
) -> Result<(), CgroupError> {
    let mut pending: Vec<&(&str, String)> = values.iter().collect();
    while !pending.is_empty() {
        let mut refused = Vec::new();
        let mut last = None;
        for entry in &pending {
            match dir.try_write(entry.0, &entry.1) {
                Ok(()) => {}
                Err(Errno::EINVAL) => {
                    last = last.or(Some(*entry));
                    refused.push(*entry);
                }
                Err(source) => {
                    return Err(dir.write_error(
                        entry.0,
                        &entry.1,
                        hint(dir, entry.0, source),
                        source,
                    ));
                }
            }
        }
        if let Some((file, value)) = last
            && refused.len() == pending.len()
        {
            return Err(dir.write_error(
                file,
                value,
                hint(dir, file, Errno::EINVAL),
                Errno::EINVAL,
            ));
        }
        pending = refused;
    }
    Ok(())
}
