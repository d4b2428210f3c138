//! Hardware virtualization where it works.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::time::timeout;

use super::{Job, Machine};
use crate::cache;

/// Where the host's kernel offers it; see the kernel's `Documentation/virt/kvm/api.rst`.
const KVM: &str = "/dev/kvm";
/// A machine with KVM is up within two seconds. A nested KVM may hang instead of failing.
const TRIAL: Duration = Duration::from_secs(15);

/// Who executes the machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU, about ten times slower: times are not to be judged.
    Emulation,
}

impl Accelerator {
    /// The fastest that works here. Where there is /dev/kvm, the first call after this machine's boot
    /// starts a machine to try it.
    ///
    /// # Errors
    /// When the machine cannot be made for another reason, or the cache cannot be written.
    pub async fn choose(kernel: &str) -> Result<Self> {
        if File::options().read(true).write(true).open(KVM).is_err() {
            return Ok(Self::Emulation);
        }
        let verdict = verdict()?;
        let known = fs::read_to_string(&verdict).ok();
        match known.as_deref().and_then(Self::parse) {
            Some(accelerator) => Ok(accelerator),
            None => {
                let accelerator = Self::try_kvm(kernel).await?;
                fs::write(&verdict, accelerator.name())
                    .with_context(|| format!("writing {}", verdict.display()))?;
                Ok(accelerator)
            }
        }
    }

    async fn try_kvm(kernel: &str) -> Result<Self> {
        let mut job = Job::new(&["true"]);
        kernel.clone_into(&mut job.kernel);
        let Ok(mut machine) = Machine::start_with(&job, Self::Kvm).await else {
            return Ok(Self::Emulation);
        };
        let up = timeout(TRIAL, machine.up()).await;
        machine.kill().await?;
        Ok(match up {
            Ok(Ok(())) => Self::Kvm,
            Ok(Err(_)) | Err(_) => Self::Emulation,
        })
    }

    /// How much longer than outside a test has to wait in the machine, on processors that others use too.
    pub(super) const fn patience(self) -> u32 {
        match self {
            Self::Kvm => 2,
            Self::Emulation => 10,
        }
    }

    /// What makes the kernel fast. Emulated, it takes the HPET for its clock, a device that QEMU answers for at each look;
    /// QEMU's TSC is one clock for all processors. Nothing leaks from a processor that speculates on nothing. Debian's clears
    /// all memory that it allocates, and QEMU is slow at that.
    pub(super) const fn kernel_parameters(self) -> &'static str {
        match self {
            Self::Kvm => "",
            Self::Emulation => {
                "clocksource=tsc tsc=reliable mitigations=off rcupdate.rcu_expedited=1 init_on_alloc=0"
            }
        }
    }

    /// As `parse` reads it, and people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Emulation => "emulation",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Kvm, Self::Emulation]
            .into_iter()
            .find(|accelerator| accelerator.name() == name)
    }

    pub(super) const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            // Where the processor says that its string instructions are fast, kernel and C library copy and clear by bytes,
            // each of which QEMU does by itself.
            Self::Emulation => &[
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max,erms=off,fsrm=off",
            ],
        }
    }
}

/// The file that remembers how the trial ended, until this machine boots anew. See random(4).
fn verdict() -> Result<PathBuf> {
    let boot = "/proc/sys/kernel/random/boot_id";
    let boot = fs::read_to_string(boot).with_context(|| format!("reading {boot}"))?;
    Ok(cache::directory().join(format!("vm-accelerator-{}", boot.trim())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back() {
        for accelerator in [Accelerator::Kvm, Accelerator::Emulation] {
            assert_eq!(Accelerator::parse(accelerator.name()), Some(accelerator));
        }
        assert_eq!(Accelerator::parse("kv"), None);
    }
}
