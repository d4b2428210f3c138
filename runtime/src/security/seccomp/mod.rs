//! seccomp profiles, compiled to classic BPF (seccomp(2), bpf(4), `Documentation/userspace-api/seccomp_filter.rst`).
//!
//! A program first checks the architecture, then finds the call by binary search over ranges of numbers, so that every
//! call costs at most a dozen instructions, and those that need no argument can be cached by the kernel (5.11).
//!
//! **Precedence.** For one call: rules with arguments in the order they are listed, the first that matches counts;
//! then the rule without arguments; then the default. Two rules with the same arguments and different actions are an
//! error ([`SeccompError::Contradiction`]); rules with arguments that overlap and differ in action are reported in
//! [`Program::overlaps`]. Within a rule all arguments must match; when a rule names one argument twice, each
//! comparison is a rule of its own, as in runc.
//!
//! **Calls newer than the profile.** Where the default action denies, numbers above the highest one that the profile
//! names get ENOSYS, as in runc: a C library then falls back to the older call, which it would not on EPERM.

mod bpf;
mod builtin;
mod cache;
mod compile;
mod error;
mod numbers;
mod profile;
mod rules;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use builtin::default_profile;
pub use cache::ProgramCache;
pub use compile::{Program, compile};
pub use error::SeccompError;
pub use profile::{KernelVersion, MAX_PROFILE, ProfileHost, parse_profile};
pub use rules::Overlap;
