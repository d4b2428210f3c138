//! Localhost profiles: JSON in docker's form (`archMap`, `includes`, `excludes`), of which OCI's form is a part.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::Deserialize;

use super::SeccompError;
use crate::security::capabilities::{Capability, CapabilitySet};

/// The largest profile in bytes; real ones have some 20 KiB.
pub const MAX_PROFILE: usize = 1 << 20;

/// A kernel's `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32);

impl KernelVersion {
    /// The running kernel's; 0.0 when it has no such number, so that no `minKernel` is met.
    pub fn running() -> Self {
        let release = nix::sys::utsname::uname().ok();
        let release = release
            .as_ref()
            .and_then(|name| name.release().to_str())
            .unwrap_or_default();
        Self::parse(release).unwrap_or(Self(0, 0))
    }

    /// From `6.1`, `6.1.0-13-amd64` and the like.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        Some(Self(
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        ))
    }
}

/// What a profile's conditions ask about.
#[derive(Clone, Copy, Debug)]
pub struct ProfileHost {
    /// The container's bounding set.
    pub caps: CapabilitySet,
    /// The machine's kernel.
    pub kernel: KernelVersion,
}

impl ProfileHost {
    /// A container with `caps` on this machine.
    pub fn new(caps: CapabilitySet) -> Self {
        Self {
            caps,
            kernel: KernelVersion::running(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a profile and decides its conditions for one container on this machine.
///
/// # Errors
/// [`SeccompError::Json`] with line and column, [`SeccompError::TooLarge`], [`SeccompError::Field`].
pub fn parse_profile(json: &[u8], host: &ProfileHost) -> Result<LinuxSeccomp, SeccompError> {
    if json.len() > MAX_PROFILE {
        return Err(SeccompError::TooLarge {
            size: json.len(),
            limit: MAX_PROFILE,
        });
    }
    let profile: Profile = serde_json::from_slice(json).map_err(SeccompError::Json)?;
    if profile
        .listener_path
        .as_ref()
        .is_some_and(|path| !path.is_empty())
    {
        return Err(SeccompError::Notify);
    }
    let mut syscalls = Vec::new();
    for call in profile.syscalls.into_iter().flatten() {
        if call.applies(host)? {
            syscalls.push(call.into_oci()?);
        }
    }
    let architectures = architectures(profile.architectures, profile.arch_map)?;
    let mut result = LinuxSeccomp::default();
    result
        .set_default_action(profile.default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures(Some(architectures))
        .set_flags(profile.flags)
        .set_syscalls(Some(syscalls));
    Ok(result)
}

/// A list as it is, or this machine's entry of the map with all it can run.
fn architectures(
    list: Option<Vec<Arch>>,
    map: Option<Vec<ArchMap>>,
) -> Result<Vec<Arch>, SeccompError> {
    let list = list.unwrap_or_default();
    let map = map.unwrap_or_default();
    if !list.is_empty() && !map.is_empty() {
        return Err(field(
            "archMap",
            "",
            "is given beside architectures; use one of them",
        ));
    }
    let native = if cfg!(target_arch = "aarch64") {
        Arch::ScmpArchAarch64
    } else {
        Arch::ScmpArchX86_64
    };
    match map.into_iter().find(|entry| entry.architecture == native) {
        Some(entry) => Ok([vec![native], entry.sub_architectures.unwrap_or_default()].concat()),
        None => Ok(list),
    }
}

impl Call {
    fn applies(&self, host: &ProfileHost) -> Result<bool, SeccompError> {
        let included = match &self.includes {
            Some(conditions) => {
                conditions
                    .arches
                    .as_ref()
                    .is_none_or(|arches| arches.is_empty() || names_this_machine(arches))
                    && conditions.capabilities(host)?.iter().all(|held| *held)
                    && conditions.kernel(host)?.unwrap_or(true)
            }
            None => true,
        };
        let excluded = match &self.excludes {
            Some(conditions) => {
                conditions
                    .arches
                    .as_ref()
                    .is_some_and(|arches| names_this_machine(arches))
                    || conditions.capabilities(host)?.iter().any(|held| *held)
                    || conditions.kernel(host)?.unwrap_or(false)
            }
            None => false,
        };
        Ok(included && !excluded)
    }

    fn into_oci(self) -> Result<LinuxSyscall, SeccompError> {
        let names = match (
            self.name.filter(|name| !name.is_empty()),
            self.names.unwrap_or_default(),
        ) {
            (Some(name), names) if names.is_empty() => vec![name],
            (Some(name), _) => {
                return Err(field(
                    "syscalls[].name",
                    &name,
                    "is given beside names; use one of them",
                ));
            }
            (None, names) => names,
        };
        let mut syscall = LinuxSyscall::default();
        syscall
            .set_names(names)
            .set_action(self.action)
            .set_errno_ret(self.errno_ret)
            .set_args(self.args);
        Ok(syscall)
    }
}

impl Conditions {
    /// For each capability, whether the container has it.
    fn capabilities(&self, host: &ProfileHost) -> Result<Vec<bool>, SeccompError> {
        let held = |name: &String| match Capability::parse(name) {
            Ok(capability) => Ok(host.caps.contains(capability)),
            Err(_) => Err(field("caps", name, "is no capability")),
        };
        self.caps.iter().flatten().map(held).collect()
    }

    fn kernel(&self, host: &ProfileHost) -> Result<Option<bool>, SeccompError> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let least = KernelVersion::parse(text)
            .ok_or_else(|| field("minKernel", text, "is not of the form 4.8"))?;
        Ok(Some(host.kernel >= least))
    }
}

/// Go's names of architectures.
fn names_this_machine(arches: &[String]) -> bool {
    let native = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    arches.iter().any(|arch| arch == native)
}

fn field(field: &'static str, value: &str, reason: &'static str) -> SeccompError {
    SeccompError::Field {
        field,
        value: value.chars().take(80).collect(),
        reason,
    }
}
