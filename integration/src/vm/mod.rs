//! A virtual machine that is what these machines are not: a node with pure cgroup v2, AppArmor, pressure stall
//! information, and a power plug to pull.
//!
//! Everything in it is of Debian's packages, which are fetched and unpacked into the cache ([`crate::cache`]);
//! nothing is installed. It has a disk image as its root, sees directories of this machine by 9p at the paths
//! that they have here, so that programs need not be copied, and has no network but its own. It runs one
//! command, tells its output and exit code over two serial ports, and switches itself off.

mod accelerator;
mod cpio;
mod disk;
mod image;
mod job;
mod kernel;
mod machine;
mod modules;
pub mod power;
mod programs;
mod qemu;
mod root;
mod selinux;
mod share;

pub use accelerator::Accelerator;
pub use disk::{Disk, FileSystem};
pub use job::{Init, Job, SecurityModule};
pub use kernel::DEFAULT_KERNEL;
pub use machine::Machine;
pub use share::{Access, Share};
